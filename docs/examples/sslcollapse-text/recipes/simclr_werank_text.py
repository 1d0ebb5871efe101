"""SimCSE on docstrings with WERank at one untuned coefficient; everything else is the same."""

from pathlib import Path

from sslcollapse import extend

recipe = extend(
    Path(__file__).with_name("simclr_text.py"),
    dict(name="simclr_werank_text", regularizers=dict(werank=dict(type="werank", coefficient=1e-3))),
)
