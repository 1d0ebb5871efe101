"""Every objective on sampled neighbourhoods and on ego graphs, in one process or two; imported by each spawned one."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist
from objective_workers import LEAST, SMALL
from torch import nn
from workers import start

from sslcollapse.core.registry import ENCODERS, OBJECTIVES
from sslcollapse.core.types import Batch, Context
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.training.module import SSLModule

STEP, ROOTS = 5, 16
DATASET = dict(type="csbm", nodes=200, features=10, degree=9, train_per_class=5, validation_per_class=5)


BATCHINGS = {
    "neighbours": dict(type="neighbours", batch_size=ROOTS, fanout=[3, 3]),
    "ego": dict(type="ego", batch_size=ROOTS, size=12, epsilon=1e-3),
}


def batch(batching: str, rank: int = 0, world_size: int = 1) -> Batch:
    """Of one step, with features in float64."""
    domain = GraphDomain(Path(), dataset=DATASET, batching=BATCHINGS[batching])
    domain.load()
    data = domain.dataset
    domain.use(replace(data, graphs=tuple(replace(graph, x=graph.x.double()) for graph in data.graphs)))
    return next(islice(domain.batches(STEP, Context(3, rank, world_size)), 1))


def gradients(objective: str, samples: Batch, wrap=lambda module: module) -> dict[str, torch.Tensor]:
    """Parameter → gradient, and the loss, of a GCN with LayerNorm in float64."""
    torch.manual_seed(0)
    spec = LEAST.get(objective, {"type": objective})
    small = {name: value for name, value in SMALL.items() if name in OBJECTIVES.parameters(objective)}
    encoder = ENCODERS.build({"type": "gcn", "hidden": [9, 7], "norm": "layer"}, (10,))
    module = SSLModule(encoder, OBJECTIVES.build({**small, **spec}), total_steps=10).double()
    if module.target is not None:
        with torch.no_grad():
            for p in module.target.parameters():
                p.add_(0.1 * torch.randn(p.shape))
    forward = wrap(module)  # which must live until the backward pass
    loss = forward(samples, 0)["loss"]
    loss.backward()
    found = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    return {"loss": loss.detach(), **found}


def every_gradient(rank: int, world_size: int, store: str, results: str) -> None:
    """Save this rank's gradients with its share of the roots."""
    start(rank, world_size, store)
    for batching in BATCHINGS:
        samples = batch(batching, rank, world_size)
        found = {name: gradients(name, samples, nn.parallel.DistributedDataParallel) for name in OBJECTIVES.names()}
        torch.save({**found, "roots": samples.index}, f"{results}/{batching}{rank}.pt")
    dist.destroy_process_group()
