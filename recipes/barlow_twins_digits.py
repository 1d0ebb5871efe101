"""Barlow Twins on handwritten digits; all but the objective as simclr_digits."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("simclr_digits.py"),
    dict(
        name="barlow_twins_digits",
        objective=dict(type="barlow_twins", projector=[256, 256], scale=0.1),
    ),
)
