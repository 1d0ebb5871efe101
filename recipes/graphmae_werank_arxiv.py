"""``graphmae_arxiv`` with WERank on every encoder layer; nothing else differs."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("graphmae_arxiv.py"),
    dict(name="graphmae_werank_arxiv", regularizers=dict(werank=dict(type="werank", coefficient=1e-3))),
)
