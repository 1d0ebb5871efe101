"""SimCLR on handwritten digits with WERank whose coefficient follows the measured rank of each layer."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("simclr_digits.py"),
    dict(
        name="simclr_rank_floor_digits",
        regularizers=dict(werank=dict(type="werank", coefficient=dict(type="rank_floor", target=0.9))),
    ),
)
