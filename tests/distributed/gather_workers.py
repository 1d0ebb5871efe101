"""Gathering of unequal shapes, and its second derivative, in two processes; imported by name in each of them."""

import torch
import torch.distributed as dist
from workers import coupled_loss, start

from sslcollapse.core.distributed import Gather
from sslcollapse.rank.covariance import StreamingCovariance


def unequal(rank: int, world_size: int, store: str, results: str) -> None:
    """What is said where one rank has 3 rows and the other 5, and where widths or dimensions differ."""
    start(rank, world_size, store)
    said = []
    for shape in ((3 + 2 * rank, 4), (3, 4 + rank), (3, 4, 2)[: 2 + rank]):
        try:
            Gather()(torch.ones(shape))
            said.append("gathered")
        except ValueError as error:
            said.append(str(error))
    said.append(Gather()(torch.full((2, 1), float(rank))).flatten().tolist())
    torch.save(said, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def collectives(rank: int, world_size: int, store: str, results: str) -> None:
    """How many collectives a call takes, where shapes are known to be equal and where not."""
    start(rank, world_size, store)
    counts = []
    for equal in (True, False):
        with torch.profiler.profile() as profile:
            Gather(equal=equal)(torch.ones(3, 4))
        counts.append(sum(event.count for event in profile.key_averages() if event.key == "gloo:all_gather"))
    torch.save(counts, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def graphs(rank: int, world_size: int, store: str, results: str) -> None:
    """One step of CCA-SSG on a graph of another size on each rank, then on graphs of one size."""
    from tiny import random_graph

    from sslcollapse.core.types import Batch
    from sslcollapse.encoders.gcn import GCN
    from sslcollapse.objectives.cca_ssg import CCASSG
    from sslcollapse.training.module import SSLModule

    start(rank, world_size, store)
    module = SSLModule(GCN(12, hidden=[8, 6]), CCASSG(), total_steps=10)
    said = []
    for nodes in (20 + 10 * rank, 20):
        view = random_graph(nodes=nodes)
        try:
            loss = module(Batch([view, view], torch.tensor([rank]), None, False), 0)["loss"]
            said.append(f"finite: {bool(torch.isfinite(loss))}")
        except ValueError as error:
            said.append(str(error))
    torch.save(said, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def samples() -> torch.Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def second(rank: int, world_size: int, store: str, results: str) -> None:
    """This rank's part of a product with the Hessian of a loss of all samples."""
    start(rank, world_size, store)
    x = samples().chunk(world_size)[rank].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(coupled_loss(Gather()(x)) / world_size, x, create_graph=True)
    (product,) = torch.autograd.grad(gradient.square().sum(), x)
    torch.save((gradient.detach(), product), f"{results}/{rank}.pt")
    dist.destroy_process_group()


def complex_rows() -> torch.Tensor:
    return torch.complex(samples(), samples().flip(0))


def complex_covariance(rank: int, world_size: int, store: str, results: str) -> None:
    """Singular values of the complex rows of both ranks."""
    start(rank, world_size, store)
    stream = StreamingCovariance(3)
    stream.update(complex_rows().chunk(world_size)[rank])
    stream.all_reduce()
    torch.save((stream.n, stream.singular_values(centred=True)), f"{results}/{rank}.pt")
    dist.destroy_process_group()


def backward_collectives(rank: int, world_size: int, store: str, results: str) -> None:
    """Which collectives the backward pass of a gathering takes, by name."""
    start(rank, world_size, store)
    loss = coupled_loss(Gather(equal=True)(samples().chunk(world_size)[rank].clone().requires_grad_()))
    with torch.profiler.profile() as profile:
        loss.backward()
    names = sorted({event.key for event in profile.key_averages() if "c10d::" in event.key})
    torch.save(names, f"{results}/{rank}.pt")
    dist.destroy_process_group()


REPLICATED = {
    "bgrl": {"type": "bgrl", "predictor_hidden": 7},
    "simclr": {"type": "simclr", "projector": [7, 6], "norm": "none"},
    "cca_ssg": {"type": "cca_ssg"},
    "vicreg": {"type": "vicreg", "projector": [7, 6], "norm": "none"},
}
"""Objectives on one graph: with a target, with negatives, and with the covariance of all nodes."""


def graph_gradients(name: str, rank: int, wrap=lambda module: module) -> dict[str, torch.Tensor]:
    """Parameter → gradient of the first step on one graph, with the views of a rank of two."""
    from pathlib import Path

    from sslcollapse.core.registry import DOMAINS, OBJECTIVES
    from sslcollapse.core.types import Context
    from sslcollapse.encoders.gcn import GCN
    from sslcollapse.training.module import SSLModule

    dataset = {"type": "csbm", "nodes": 60, "features": 12, "train_per_class": 3, "validation_per_class": 3}
    domain = DOMAINS.build({"type": "graph", "dataset": dataset, "views": {}}, Path())
    domain.load()
    torch.manual_seed(0)
    module = SSLModule(GCN(12, hidden=[8, 6], norm="none"), OBJECTIVES.build(REPLICATED[name]), {}, total_steps=10)
    batch = next(domain.batches(0, Context(seed=0, rank=rank, world_size=2)))
    wrapped = wrap(module)  # what averages gradients lives as long as this
    wrapped(batch, 0)["loss"].backward()
    return {name: p.grad for name, p in module.named_parameters() if p.requires_grad}


def replicated(rank: int, world_size: int, store: str, results: str) -> None:
    """Gradients that DistributedDataParallel leaves where every rank has the whole graph and views of its own."""
    start(rank, world_size, store)
    parallel = torch.nn.parallel.DistributedDataParallel
    torch.save({name: graph_gradients(name, rank, parallel) for name in REPLICATED}, f"{results}/{rank}.pt")
    dist.destroy_process_group()
