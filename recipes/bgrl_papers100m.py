"""BGRL on ogbn-papers100M, with the settings of ``bgrl_arxiv_sampled``; they are not tuned for this graph.

BGRL's authors did not train on it. GraphMAE2's authors report BGRL on it, 62.18, and do not list its settings. The
graph is read from a folder in the data root that was written before; docs/large-graphs.md says how. An epoch with 8,192
roots is 13,556 steps, so that 27,000 are 2. Batches are for several processes: 1,024 roots each on 8 of them.
"""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_arxiv_sampled.py"),
    dict(
        name="bgrl_papers100m",
        domain=dict(dataset=dict(type="stored", path="graph/packed/ogbn-papers100M"), batching=dict(batch_size=8192)),
        train=dict(steps=27_000, checkpoint_every=1000),
        monitor=dict(every=9000),
    ),
)
