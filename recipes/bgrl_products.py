"""BGRL on ogbn-products, with the settings of ``bgrl_arxiv_sampled``; they are not tuned for this graph.

BGRL's authors did not train on it. GraphMAE2's authors report BGRL on it, 78.59, and do not list its settings. The
graph is read from a folder in the data root that was written before; docs/large-graphs.md says how. An epoch is 2,391
steps, so that 24,000 are 10.
"""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_arxiv_sampled.py"),
    dict(
        name="bgrl_products",
        domain=dict(dataset=dict(type="stored", path="graph/packed/ogbn-products")),
        train=dict(steps=24_000, checkpoint_every=2000),
        monitor=dict(every=4000),
    ),
)
