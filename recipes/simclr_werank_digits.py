"""SimCLR on handwritten digits with WERank; everything else is the same."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("simclr_digits.py"),
    dict(name="simclr_werank_digits", regularizers=dict(werank=dict(type="werank", coefficient=1e-3))),
)
