"""BYOL on handwritten digits; all but the objective as simclr_digits."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("simclr_digits.py"),
    dict(
        name="byol_digits",
        objective=dict(type="byol", projector=[256, 64], predictor_hidden=256, momentum=0.98),
    ),
)
