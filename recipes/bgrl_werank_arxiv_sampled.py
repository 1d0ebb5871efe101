"""``bgrl_arxiv_sampled`` with WERank on every encoder layer; nothing else differs."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_arxiv_sampled.py"),
    dict(name="bgrl_werank_arxiv_sampled", regularizers=dict(werank=dict(type="werank", coefficient=1e-2))),
)
