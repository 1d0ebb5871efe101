"""VICReg on docstrings with SimCSE's views; all but the objective as simclr_text."""

from pathlib import Path

from sslcollapse import extend

recipe = extend(
    Path(__file__).with_name("simclr_text.py"),
    dict(name="vicreg_text", objective=dict(type="vicreg", projector=[128, 128])),
)
