"""A network sharded by FSDP2 in two processes; imported by name in each spawned process."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from workers import start

from sslcollapse.core.errors import RecipeError
from sslcollapse.layers.map import layer_map
from sslcollapse.rank.measure import measure
from sslcollapse.rank.monitor import CollapseMonitor
from sslcollapse.regularizers.attach import DSO, SO, SRIP, WERank
from sslcollapse.regularizers.constraints import Constrained, Orthogonal, Retraction, SpectralNorm

PENALTIES = {
    "werank": lambda model: WERank(model, coefficient={"0": 1.0, "2": 0.5, "4": 2.0}),
    "squared": lambda model: WERank(model, coefficient=0.1, squared=True, gram="input"),
    "so": lambda model: SO(model, coefficient=0.1),
    "dso": lambda model: DSO(model, coefficient=0.1),
    "srip": lambda model: SRIP(model, coefficient=1.0),
}


def network() -> nn.Sequential:
    """Widths that two processes cannot share equally."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 5))


def inputs() -> torch.Tensor:
    return torch.randn(12, 6, generator=torch.Generator().manual_seed(1))


def step(model: nn.Module, penalty, x: torch.Tensor) -> torch.Tensor:
    """The loss and penalty of one step as a user's loop has them, the penalty after the forward pass."""
    model.zero_grad()
    value = penalty()
    (model(x).square().mean() + value + penalty()).backward()
    return value.detach()


def sharded(rank: int, world_size: int, store: str, results: str) -> None:
    start(rank, world_size, store)
    model = network()
    mesh = init_device_mesh("cpu", (world_size,))
    for part in (model[0], model[2]):
        fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)
    own = inputs().chunk(world_size)[rank]
    found = {}
    for name, make in PENALTIES.items():
        value = step(model, make(model), own)
        gradients = {key: p.grad.full_tensor() for key, p in model.named_parameters()}
        found[name] = {"value": value, "gradients": gradients}
    monitor = CollapseMonitor(model, every=1)
    model(own)
    rows = monitor.summary(all_reduce=True)
    monitor.close()
    found["ranks"] = {f"{row.kind}/{row.layer}": row.effective_rank for row in rows}
    found["measured"] = measure(model, [inputs()]).metrics()
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def constrained_steps(model: nn.Module, constrained: Constrained, x: torch.Tensor) -> None:
    """Three steps of a user's loop."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        with constrained.held():
            model(x).square().mean().backward()
        optimizer.step()
        constrained.after_step()
        optimizer.zero_grad()


def constrained(rank: int, world_size: int, store: str, results: str) -> None:
    """Retractions before and after a network is sharded; and what is said of parametrizations."""
    start(rank, world_size, store)
    mesh = init_device_mesh("cpu", (world_size,))
    found: dict = {"said": []}
    for sharded_first in (False, True):
        for make in (Retraction, Orthogonal, SpectralNorm):
            model = network()
            sets = {"first": make(on=["0", "2"])}
            try:
                if not sharded_first:
                    held = Constrained(sets, model, layer_map(model))
                for part in (model[0], model[2]):
                    fully_shard(part, mesh=mesh)
                fully_shard(model, mesh=mesh)
                if sharded_first:
                    held = Constrained(sets, model, layer_map(model))
                constrained_steps(model, held, inputs().chunk(world_size)[rank])
                found[sharded_first] = {key: p.full_tensor().detach() for key, p in model.named_parameters()}
            except RecipeError as error:
                found["said"].append(f"{make.__name__} {sharded_first}: {error}")
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def flat(rank: int, world_size: int, store: str, results: str) -> None:
    """What is said about FSDP1, around the network or a part of it."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    start(rank, world_size, store)
    said = []
    part = nn.Sequential(network(), FullyShardedDataParallel(nn.Linear(5, 4), device_id=torch.device("cpu")))
    for attach in (WERank, CollapseMonitor):
        try:
            attach(part)
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    torch.save(said, f"{results}/{rank}.pt")
    dist.destroy_process_group()
