"""``bgrl_cora`` with WERank whose coefficient follows the measured rank of each layer; nothing else differs."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_cora.py"),
    dict(
        name="bgrl_rank_floor_cora",
        regularizers=dict(werank=dict(type="werank", coefficient=dict(type="rank_floor", target=0.9))),
    ),
)
