"""SimSiam on handwritten digits; all but the objective as simclr_digits."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("simclr_digits.py"),
    dict(
        name="simsiam_digits",
        objective=dict(type="simsiam", projector=[256, 256], predictor_hidden=64),
    ),
)
