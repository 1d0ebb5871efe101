"""What each of two processes on GPUs does; imported by name in each of them."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from on_device import DEVICE
from torch import Tensor, nn

from sslcollapse.core.distributed import Gather


def alone() -> torch.device:
    """The device of the process that has the whole batch."""
    return torch.device(DEVICE.type, 0) if DEVICE.type == "cuda" else DEVICE


def start(rank: int, world_size: int, store: str) -> torch.device:
    """The device of a rank: a GPU of its own over NCCL, or, as NCCL refuses two ranks on one, the same over gloo."""
    os.environ["OMP_NUM_THREADS"] = "1"
    gpus = torch.cuda.device_count() if DEVICE.type == "cuda" else 0
    dist.init_process_group(
        "nccl" if gpus >= world_size else "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=60),
    )
    if not gpus:
        return DEVICE
    torch.cuda.set_device(rank % gpus)
    return torch.device("cuda", rank % gpus)


def samples() -> Tensor:
    return torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def gathered(device: torch.device, x: Tensor, wrap=lambda network: network) -> dict[str, Tensor]:
    """Gradients of a loss in which every sample depends on every other."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 5)).double().to(device)
    wrapped = wrap(network)  # what averages gradients lives as long as this
    z = Gather()(wrapped(x.to(device)))
    (torch.softmax(z @ z.t(), dim=1).square() * torch.arange(1.0, len(z) + 1, device=device)[:, None]).sum().backward()
    return {name: p.grad.cpu() for name, p in network.named_parameters()}


def normalised(device: torch.device, x: Tensor, wrap=lambda network: network, devices: int = 1) -> dict[str, Tensor]:
    """Gradients, output and running statistics of a network with BatchNorm, made ready as the trainer does it."""
    from types import SimpleNamespace

    from sslcollapse.training.build import prepare_networks

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    settings = {"channels_last": False, "sync_batchnorm": True, "compile": False}
    prepare_networks({"train": settings}, network, SimpleNamespace(replicated=False), devices)  # type: ignore[arg-type]
    network.double().to(device)
    wrapped = wrap(network)
    z = Gather()(wrapped(x.to(device)))
    z.square().sum(1).sin().mean().backward()
    state = {name: value.cpu() for name, value in network.state_dict().items() if value.is_floating_point()}
    return {"output": z.detach().cpu(), **state, **{f"∂{name}": p.grad.cpu() for name, p in network.named_parameters()}}


def both(rank: int, world_size: int, store: str, results: str) -> None:
    """The gradients of this rank's half of the samples."""
    device = start(rank, world_size, store)
    own, parallel = samples().chunk(world_size)[rank], nn.parallel.DistributedDataParallel
    found = {"gathered": gathered(device, own, parallel)}
    if device.type == "cuda":
        found["normalised"] = normalised(device, own, parallel, world_size)
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()
