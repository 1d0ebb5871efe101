"""``bgrl_cora`` with WERank on every encoder layer; nothing else differs."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_cora.py"),
    dict(name="bgrl_werank_cora", regularizers=dict(werank=dict(type="werank", coefficient=3e-4))),
)
