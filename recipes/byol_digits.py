"""BYOL on handwritten digits; as simclr_digits, with twice as many steps of half as many images."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("simclr_digits.py"),
    dict(
        name="byol_digits",
        objective=dict(type="byol", projector=[256, 64], predictor_hidden=256, momentum=0.99),
        domain=dict(batch_size=125),
        train=dict(steps=400),
    ),
)
