"""BYOL on digits as images as the claims' grids use it: byol_digits with half the steps and one probe."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).parents[1] / "byol_digits.py",
    dict(
        name="claims_byol_digits",
        regularizers=dict(werank=dict(type="werank", coefficient=0.0)),
        train=dict(steps=200, checkpoint_every=0),
        evaluate=dict(public=None),
    ),
)
