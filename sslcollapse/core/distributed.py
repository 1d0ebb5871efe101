"""Rank, world size, collectives that gradients flow through, and a barrier without a time limit.

A plain ``all_gather`` with the own slice put back, or an in-place ``all_reduce``, scales gradients by
1 / world size without an error; ``Gather`` has an exact backward pass, so that W ranks with B/W
samples each give the gradient of one rank with B.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from sslcollapse.core.errors import RunError
from sslcollapse.core.texts import launched

HEARTBEAT = 2.0
"""Seconds after which a rank that works shows again that it is alive."""
PATIENCE = 600.0
"""Seconds without such a sign after which a rank is taken for frozen or dead, if the group's timeout is not shorter."""


_reduce_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
"""By the name that torch has given it since 2.14, and the one before that, which then warns."""


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


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process has a part of a tensor only (DTensor, as of FSDP2)."""
    return hasattr(tensor, "full_tensor")


def sharded_as(whole: Tensor, like: Tensor) -> Tensor:
    """The tensor itself; where ``like`` is sharded, this process's part of it, without asking the others.

    Args:
        whole: the same on every rank.
        like: how it is to be sharded.
    """
    if not is_sharded(like):
        return whole
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = like
    return distribute_tensor(whole, sharded.device_mesh, sharded.placements, src_data_rank=None)


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
        """Several tensors [N, d], each gathered; where all have one shape, in one collective."""
        if not self.enabled or len({view.shape for view in views}) > 1 or len(views) == 1:
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
        # A rank needs the sum of its own rows alone, which is half of what an all-reduce sends. The gradient is read
        # and not written: autograd hands the same tensor to every input of a sum.
        own = grad.new_empty((rows, *grad.shape[1:]))
        _reduce_scatter(own, grad.contiguous())
        return own

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _AllGather.apply(grad), None


class Meeting:
    """What a ``meeting`` is given and gives back.

    Attributes:
        result: what this rank hands to the others, set inside the block; it could be JSON.
        results: what every rank handed over, in rank order, known after the block.
    """

    def __init__(self) -> None:
        self.result: Any = None
        self.results: list[Any] = []


@contextmanager
def meeting(what: str) -> Iterator[Meeting]:
    """A barrier without a time limit: each rank does its part in the block, however long it takes, then all go on.

    Where some ranks work while others wait in a collective, the timeout of the process group (ten minutes with NCCL)
    ends the job. Here ranks wait by looking into the group's store, where a rank that works shows that it is alive.

    Args:
        what: is done in the block, for messages: "measuring ranks".

    Raises:
        RunError: another rank failed in its block, is at another meeting since one of them failed between two, or has
            shown no life for ``PATIENCE`` seconds; it is named.
    """
    found = Meeting()
    if world_size() == 1:
        yield found
        found.results = [found.result]
        return
    talk = _Talk(rank(), world_size())
    try:
        yield found
    except BaseException as error:
        talk.give({"error": str(error) or type(error).__name__})
        # This process may be about to end, and with it the store: till the others have come, and a moment to read.
        talk.join(min(talk.patience, 10.0))
        time.sleep(0.5)
        raise
    talk.give({"result": found.result, "what": what})
    found.results = [answer["result"] for answer in _answers(talk, what)]


@contextmanager
def gathering(minutes: float) -> Iterator[None]:
    """Around what makes the process group: where the processes do not meet, it is said where they should have.

    Raises:
        RunError: names the address, how many processes were to come, and how long this one has waited.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        first = str(error).partition("\n")[0][:200]
        if not isinstance(error, dist.DistError) and not re.search(r"(?i)gloo|nccl|rendezvous|store", first):
            raise
        address = ":".join(os.environ.get(name) or f"({name} is not set)" for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise RunError(
            f"rank {os.environ.get('RANK', 0)} of {launched()} has not met the other processes at {address} within "
            f"{minutes:g} minutes; start all of them, on every host with this address, which is that of the host of "
            f"rank 0, and let this port through between hosts ({first})"
        ) from error


def made_by_rank_0(
    what: str, make: Callable[[], Tensor], device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """What ``make`` returns on rank 0, on every rank: of that type, on ``device``; it may take any time."""
    with meeting(what) as together:
        if rank() == 0:
            made = make()
            together.result = list(made.shape)
    if world_size() > 1:
        if rank():
            made = torch.empty(together.results[0], device=device, dtype=dtype)
        dist.broadcast(made, 0)
    return made


def _answers(talk: _Talk, what: str) -> list[dict[str, Any]]:
    """What all ranks gave, once they have."""
    while True:
        talk.join(0.2)
        for other, answer in enumerate(talk.answers):
            if "error" in answer:
                raise RunError(f"rank {other} failed while {what}: {answer['error']}")
            if answer["what"] != what:  # its result is of something else
                raise RunError(
                    f"rank {other} is {answer['what']} and this one {what}: one of them has failed where the other did "
                    "not, and says why; continue with --resume"
                )
        other, silent = len(talk.answers), time.monotonic() - talk.heard
        if other == talk.ranks:
            return talk.answers
        if talk.failure is not None:  # the store ended with the process that had it
            raise RunError(f"rank {other} cannot be reached while {what}: {talk.failure}") from talk.failure
        if silent > talk.patience:
            raise RunError(
                f"rank {other} has shown no life for {silent:.0f} s while {what}, so it is frozen or dead; look at its "
                "process and its machine, then continue with --resume"
            )


class _Talk(Thread):
    """What a rank says to the others in one meeting, and hears of them, through the store of the process group.

    In a thread, since a rank has to show that it is alive while it works, and since a store that is in a frozen process
    does not answer.

    Attributes:
        answers: of the ranks so far, in their order.
        heard: when the rank whose answer is awaited was last known to be alive.
        failure: why nothing can be heard any more.
        patience: seconds without a sign of life after which a rank is given up.
    """

    def __init__(self, own: int, ranks: int) -> None:
        super().__init__(name="meeting", daemon=True)
        self.own, self.ranks = own, ranks
        self.answers: list[dict[str, Any]] = []
        self.heard = time.monotonic()
        self.failure: Exception | None = None
        self._group = cast(Any, dist.distributed_c10d._get_default_store())  # whose types lack its timeout
        self.patience = min(PATIENCE, self._group.timeout.total_seconds())
        self._given = Event()
        self._answer = ""
        self.start()

    def give(self, answer: dict[str, Any]) -> None:
        """Say what the own part of the work gave."""
        self._answer, self.heard = json.dumps(answer), time.monotonic()
        self._given.set()

    def run(self) -> None:
        """Beat until the own answer is given, then wait for those of the others."""
        try:
            store = dist.PrefixStore("sslcollapse", self._group)
            # Every rank comes to the same meetings, so all count to the same number.
            place = f"meeting/{store.add(f'rank/{self.own}', 1)}"
            while not self._given.wait(HEARTBEAT):
                store.add(f"{place}/{self.own}/alive", 1)
            store.set(f"{place}/{self.own}", self._answer)
            for other in range(self.ranks):
                self.answers.append(json.loads(self._awaited(store, f"{place}/{other}")))
        except Exception as error:
            self.failure = error

    def _awaited(self, store: Any, key: str) -> bytes:
        began, beats = time.monotonic(), -1
        self.heard = began
        while not store.check([key]):
            count = store.add(f"{key}/alive", 0)
            if count != beats:
                self.heard, beats = time.monotonic(), count
            # Of short work little is lost by waiting, and long work is not disturbed.
            time.sleep(min(0.25, 0.001 + 0.05 * (time.monotonic() - began)))
        return store.get(key)
