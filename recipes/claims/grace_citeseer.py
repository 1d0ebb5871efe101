"""GRACE on CiteSeer as grids of claims use it: grace_citeseer with half the width and one probe."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).parents[1] / "grace_citeseer.py",
    dict(
        name="claims_grace_citeseer",
        encoder=dict(hidden=[256, 256]),
        regularizers=dict(werank=dict(type="werank", coefficient=0.0)),
        train=dict(checkpoint_every=0),
        evaluate=dict(one_vs_rest=None),
    ),
)
