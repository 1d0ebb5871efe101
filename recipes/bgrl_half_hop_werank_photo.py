"""``bgrl_half_hop_photo`` with WERank on every encoder layer; nothing else differs."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_half_hop_photo.py"),
    dict(name="bgrl_half_hop_werank_photo", regularizers=dict(werank=dict(type="werank", coefficient=1e-2))),
)
