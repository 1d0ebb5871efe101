"""What the processes of the monitor's test run."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))
from workers import start

from sslcollapse.core.errors import CollapsedError
from sslcollapse.rank.monitor import CollapseMonitor, MonitorError


def rows() -> torch.Tensor:
    return torch.randn(12, 5, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))


def stops(rank: int, folder: Path) -> tuple[int, str]:
    """Summary at which a network that collapses stops this process, and the reason."""
    model = network()
    monitor = CollapseMonitor(model, every=1, on_collapse="stop", below=0.4, patience=1, folder=folder / "stop")
    torch.manual_seed(rank)
    for step in range(4):
        if step == 2:
            model[1].weight.data.copy_(torch.ones(3, 4))
        model(torch.randn(32, 5))
        try:
            monitor.summary(step, all_reduce=True)
        except CollapsedError as error:
            return step, str(error)
    return -1, ""


def refused() -> str:
    """What a summary of this process alone says where several are to stop together."""
    model = network()
    monitor = CollapseMonitor(model, every=1, on_collapse="stop")
    model(rows())
    try:
        monitor.summary()
    except MonitorError as error:
        return str(error)
    return ""


def monitored(rank: int, world_size: int, store: str, results: str) -> None:
    """One step on this process's rows, watched and not, and the ranks of its own rows and of all."""
    start(rank, world_size, store)
    own = rows().chunk(world_size)[rank]
    plain = nn.parallel.DistributedDataParallel(network())
    plain(own).square().mean().backward()
    wrapped = nn.parallel.DistributedDataParallel(network())
    monitor = CollapseMonitor(wrapped)
    wrapped(own).square().mean().backward()
    together = [row for row in monitor.summary(all_reduce=True) if row.kind == "output"]
    alone = next(row for row in monitor.summary() if row.kind == "output")
    result = {
        "together": [(row.layer, row.n, row.effective_rank) for row in together],
        "own": alone.effective_rank,
        "own_n": alone.n,
        "gradient": wrapped.module[0].weight.grad,
        "unwatched": plain.module[0].weight.grad,
    }
    result |= {"stopped": stops(rank, Path(results)), "refused": refused()}
    torch.save(result, f"{results}/{rank}.pt")
    dist.destroy_process_group()
