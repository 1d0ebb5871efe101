"""Tiny graphs, a tiny recipe, and every registered component with the least arguments, that several tests use."""

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


# The least arguments of components that have required ones, and small widths for encoders.
SPECS = {
    ("encoder", "gcn"): {"hidden": [8, 6]},
    ("encoder", "sage"): {"hidden": [8, 8]},
    ("encoder", "mlp"): {"hidden": [8, 6]},
    ("encoder", "linear"): {"hidden": [8, 6]},
    ("encoder", "pyg"): {"module": "GraphSAGE", "out_dim": 6, "kwargs": {"hidden_channels": 8, "num_layers": 2}},
    ("encoder", "resnet_narrow"): {"width": 4},
    ("encoder", "timm"): {"model": "test_vit"},
    ("domain", "graph"): {"dataset": {"type": "csbm", "features": 12}},
    ("domain", "vision"): {"dataset": {"type": "digits"}, "batch_size": 8},
    ("domain", "toy"): {"batch_size": 8},
    ("objective", "byol"): {"projector": [9, 6], "predictor_hidden": 7},
    ("objective", "simsiam"): {"projector": [9, 6], "predictor_hidden": 7},
    ("objective", "simclr"): {"projector": [9, 6]},
    ("objective", "vicreg"): {"projector": [9, 6]},
    ("objective", "barlow_twins"): {"projector": [9, 6]},
    ("objective", "lightly"): {"loss": "VICRegLoss", "projector": [9, 6]},
    ("coefficient", "depth"): {"first": 1.0, "last": 0.5},
    ("coefficient", "band"): {"value": 1.0},
    ("coefficient", "schedule"): {"base": 1.0},
    ("optimizer", "adamw"): {"lr": 1e-3},
    ("optimizer", "sgd"): {"lr": 1e-3},
    ("optimizer", "lars"): {"lr": 1e-3},
    ("optimizer", "timm"): {"lr": 1e-3, "name": "muon"},
}

SHAPES = {"graph": (12,), "image": (3, 32, 32), "vector": (1, 12)}
"""Kind of input → shape of a sample."""


def build(registry: Any, name: str, *supplied: Any) -> Any:
    """A registered component with the least arguments, drawn from one seed."""
    arguments = SPECS.get((registry.kind, name), {})
    required = [p.name for p in registry.parameters(name).values() if p.default is p.empty and p.name not in arguments]
    assert not required, f"add the least arguments of {registry.kind} {name!r} ({', '.join(required)}) to SPECS"
    torch.manual_seed(0)
    return registry.build({"type": name, **arguments}, *supplied)
