"""What the processes of the distributed tests run; imported by name in each spawned process."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from sslcollapse.core.distributed import Gather


def start(rank: int, world_size: int, store: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world_size, timeout=timedelta(seconds=60)
    )


def coupled_loss(z: torch.Tensor) -> torch.Tensor:
    """A loss in which every sample depends on every other, asymmetric in the samples."""
    weights = torch.arange(1.0, z.shape[0] + 1, dtype=z.dtype)
    return (weights[:, None] * torch.softmax(z @ z.t(), dim=1) ** 2).sum() / z.shape[0]


def gathered_gradient(rank: int, world_size: int, store: str, results: str) -> None:
    start(rank, world_size, store)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3).double()
    x = torch.randn(6, 4, dtype=torch.float64) * torch.arange(1, 7)[:, None]
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    coupled_loss(Gather()(wrapped(x.chunk(world_size)[rank]))).backward()
    torch.save(model.weight.grad, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def graph_module(norm: str = "none"):
    """BGRL with WERank whose loss has no coupling between nodes but the graph itself."""
    from sslcollapse.encoders.gcn import GCN
    from sslcollapse.objectives.byol import BGRL
    from sslcollapse.regularizers.werank import WERankPenalty
    from sslcollapse.training.module import SSLModule

    torch.manual_seed(0)
    encoder = GCN(12, hidden=[8, 6], norm=norm)
    return SSLModule(encoder, BGRL(predictor_hidden=7), {"werank": WERankPenalty(coefficient=0.3)}, total_steps=10)


def graph_batch(members: list[int]):
    """Graphs of equal size, as one disjoint union seen twice."""
    from tiny import random_graph

    from sslcollapse.core.types import Batch
    from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView

    graphs = [random_graph(nodes=20, seed=member) for member in members]
    edges = torch.cat([graph.structure.edge_index + 20 * k for k, graph in enumerate(graphs)], dim=1)
    x = torch.cat([graph.features.dense for graph in graphs])
    view = GraphView(GraphStructure(edges, 20 * len(members)), Features(x))
    return Batch([view, view], torch.tensor(members), None, False)


def graph_gradient(rank: int, world_size: int, store: str, results: str) -> None:
    start(rank, world_size, store)
    module = graph_module()
    wrapped = torch.nn.parallel.DistributedDataParallel(module)
    wrapped(graph_batch([2 * rank, 2 * rank + 1]), 0)["loss"].backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    torch.save(gradients, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def meetings(rank: int, world_size: int, store: str, results: str) -> None:
    import json
    import time

    from sslcollapse.core.distributed import meeting
    from sslcollapse.core.errors import RunError

    start(rank, world_size, store)
    with meeting("counting") as first:
        time.sleep(0.3 * rank)
        first.result = {"rank": rank, "third": 1 / 3}
    message = "no error"
    try:
        with meeting("sorting"):
            if rank == 1:
                raise ValueError("out of paper")
    except (RunError, ValueError) as error:
        message = f"{type(error).__name__}: {error}"
    apart = "no error"
    try:
        with meeting(("writing", "reading")[rank]):
            pass
    except RunError as error:
        apart = str(error)
    with open(f"{results}/{rank}.json", "w") as file:
        json.dump([first.results, message, apart], file)
    dist.barrier()
    dist.destroy_process_group()
