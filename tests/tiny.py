"""Tiny graphs and a tiny recipe that several tests use."""

from typing import Any

import torch

from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView
from sslcollapse.nn.sparse import SparseMatrix


def tiny_edges() -> torch.Tensor:
    """7 nodes, directed edges with one self-loop (2 → 2) and one isolated node (6)."""
    return torch.tensor([[0, 1, 1, 2, 2, 3, 4, 5, 0, 5], [1, 0, 2, 1, 2, 4, 3, 0, 5, 4]])


def tiny_view(*, sparse: bool = False, features: int = 5, dtype: torch.dtype = torch.float64) -> GraphView:
    """The tiny graph with random features, half of them zero."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(7, features, generator=rng, dtype=dtype) * (torch.rand(7, features, generator=rng) < 0.5)
    stored = SparseMatrix.from_csr(x.to_sparse_csr()) if sparse else x
    return GraphView(GraphStructure(tiny_edges(), 7), Features(stored))


def random_graph(nodes: int = 60, degree: int = 6, features: int = 12, seed: int = 0) -> GraphView:
    """An undirected random graph in float32."""
    rng = torch.Generator().manual_seed(seed)
    source = torch.randint(nodes, (nodes * degree // 2,), generator=rng)
    target = torch.randint(nodes, (nodes * degree // 2,), generator=rng)
    proper = source != target
    edges = torch.stack([torch.cat([source[proper], target[proper]]), torch.cat([target[proper], source[proper]])])
    x = torch.randn(nodes, features, generator=rng)
    return GraphView(GraphStructure(edges, nodes), Features(x))


def tiny_recipe(name: str, **parts: Any) -> dict[str, Any]:
    """BGRL on an embedded graph of 120 nodes, a second's run; ``parts`` replace or add top-level entries."""
    dataset = dict(type="csbm", nodes=120, features=12, train_per_class=5, validation_per_class=5)
    return dict(
        name=name,
        domain=dict(type="graph", dataset=dataset, views=dict()),
        encoder=dict(type="gcn", hidden=[16, 8]),
        objective=dict(type="bgrl", predictor_hidden=7),
        **parts,
    )
