"""BYOL on docstrings with SimCSE's views: dropout, of the online and of the target network, is the only change."""

from pathlib import Path

from sslcollapse import extend

recipe = extend(
    Path(__file__).with_name("simclr_text.py"),
    dict(
        name="byol_text",
        objective=dict(type="byol", projector=[128, 64], predictor_hidden=128, momentum=0.99),
    ),
)
