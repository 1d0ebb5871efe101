"""Rank, world size, and collectives that gradients flow through.

A plain ``all_gather`` with the own slice put back, or an in-place ``all_reduce``, scales gradients by
1 / world size without an error; the functions here have exact backward passes, so that W ranks with B/W
samples each give the gradient of one rank with B.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's rank; 0 outside a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def unsharded(tensor: Tensor) -> Tensor:
    """The tensor itself; of a sharded one (DTensor) all of it, with gradients that go back to the shards.

    Bringing the shards together is a collective: every rank that holds one must call, in the same order.
    """
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


class Gather:
    """What an objective calls to see the samples of all ranks: ``gather(z)`` is [W·N, d], in rank order.

    Args:
        enabled: False for replicated batches (every rank holds the same samples) and on one process.
        equal: the caller knows that every rank has the same shape. Without it shapes are compared first, which costs
            a collective of a few numbers and a wait for the device: a collective of unequal shapes mixes rows, or never
            ends.

    Attributes:
        ranks: number of ranks whose rows come together; 1 where gathering is off.
        rank: which of them are this process's.
    """

    def __init__(self, enabled: bool = True, *, equal: bool = False) -> None:
        self.enabled = enabled and world_size() > 1
        self.equal = equal
        self.ranks = world_size() if self.enabled else 1
        self.rank = rank() if self.enabled else 0

    def __call__(self, x: Tensor) -> Tensor:
        """The rows of every rank, in rank order, with gradients; `x` itself where gathering is off.

        Raises:
            ValueError: on every rank, where shapes are compared and differ.
        """
        if not self.enabled:
            return x
        if not self.equal:
            _check_equal_shapes(x)
        return _AllGather.apply(x)

    def views(self, *views: Tensor) -> tuple[Tensor, ...]:
        """Several tensors of one shape [N, d], each gathered, in one collective."""
        if not self.enabled or len(views) == 1:
            return tuple(self(view) for view in views)
        return self(torch.cat(views, dim=1)).split(views[0].shape[1], dim=1)


def _check_equal_shapes(x: Tensor) -> None:
    """Refuse what has another shape on another rank; every rank must call, and every rank raises."""
    own = torch.tensor([x.dim(), *x.shape][:8] + [0] * (7 - x.dim()), device=x.device)  # of one length on every rank
    found = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(found, own)
    shapes = [tuple(sizes[1 : 1 + sizes[0]]) for sizes in torch.stack(found).tolist()]
    if len(set(shapes)) > 1:
        listed = ", ".join(f"rank {number} {shape}" for number, shape in enumerate(shapes))
        raise ValueError(
            f"gathering needs the same shape on every rank, got {listed}; give every rank as many samples (leave out "
            "an incomplete batch, or use graphs of one size), or train in one process"
        )


class _AllGather(torch.autograd.Function):
    """Concatenate equal shapes [N, ...] over ranks; backward sums every rank's gradient of the own slice.

    DistributedDataParallel then averages parameter gradients over ranks. A loss that every rank computes on
    all gathered samples therefore gets the joint batch's gradient: (1/W) Σ_r Σ_s ∂L_s/∂z_r = ∂L/∂z.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _SumOfOwn.apply(grad, ctx.rows)


class _SumOfOwn(torch.autograd.Function):
    """This rank's rows of the sum over ranks, [W·N, ...] → [N, ...]; its backward is the gathering again."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, rows: int) -> Tensor:
        # A copy: autograd hands the same tensor to every input of a sum, and the others want it as it is.
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        start = rank() * rows
        return grad[start : start + rows]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _AllGather.apply(grad), None
