"""What the processes of the distributed tests run; imported by name in each spawned process."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from sslcollapse.distributed import Gather


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
