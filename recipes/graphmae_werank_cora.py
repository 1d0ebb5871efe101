"""``graphmae_cora`` with WERank on every encoder layer; nothing else differs."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("graphmae_cora.py"),
    dict(name="graphmae_werank_cora", regularizers=dict(werank=dict(type="werank", coefficient=1e-3))),
)
