"""What the processes of the covariance test run."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))
from workers import start

from sslcollapse.rank.covariance import StreamingCovariance


def rows() -> torch.Tensor:
    return torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) + 100.0


def merged(rank: int, world_size: int, store: str, results: str) -> None:
    """Unequal shares of the rows, merged over ranks."""
    start(rank, world_size, store)
    covariance = StreamingCovariance(6)
    covariance.update(rows()[:13] if rank == 0 else rows()[13:])
    covariance.all_reduce()
    torch.save({"n": covariance.n, "sigma": covariance.singular_values(centred=True)}, f"{results}/{rank}.pt")
    dist.destroy_process_group()
