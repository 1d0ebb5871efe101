"""BGRL on ogbn-arxiv as in ``bgrl_arxiv``, on sampled neighbourhoods. Needs the extra `ogb`.

Two things differ from the authors' settings, which are of the full graph: batches, and LayerNorm for each node by
itself in the place of that over all nodes, which a batch does not see. An epoch is 165 steps, so that 10,000 are 60.
"""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_arxiv.py"),
    dict(
        name="bgrl_arxiv_sampled",
        domain=dict(batching=dict(type="neighbours", batch_size=1024, fanout=[10, 10, 10])),
        encoder=dict(norm="layer"),
    ),
)
