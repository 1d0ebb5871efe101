"""VICReg on Cora as grids of claims use it: vicreg_cora with half the width, 200 steps and one probe."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).parents[1] / "vicreg_cora.py",
    dict(
        name="claims_vicreg_cora",
        encoder=dict(hidden=[256, 256]),
        regularizers=dict(werank=dict(type="werank", coefficient=0.0)),
        train=dict(steps=200, checkpoint_every=0),
        evaluate=dict(one_vs_rest=None),
    ),
)
