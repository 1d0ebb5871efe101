"""Memory, kept where it is freed and refused where there is too little; and threads for small products."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sslcollapse.core.errors import RecipeError, RunError, in_units, largest_size

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

LARGEST_KEPT = 1 << 28
"""Bytes of the largest block that is kept when it is freed (256 MiB)."""


def keep_freed_memory() -> bool:
    """Tell glibc to reuse large freed blocks instead of returning them to the system; True where it did.

    A training step allocates the same activations again and again. By default glibc unmaps each one and the
    kernel clears every page anew, which costs as much as the arithmetic of a memory-bound operation. The largest blocks
    (``LARGEST_KEPT``) go back all the same: between those that are kept they leave gaps that none of them fits into,
    which made the peak of a graph of a million nodes 19 GiB in place of 11, for a step that was 5 % faster.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT)) and bool(mallopt(_M_TRIM_THRESHOLD, 1 << 30))


def onto(device: torch.device, values: Tensor) -> Tensor:
    """Values of the host on a device, without waiting for what the device is doing; to the host they are waited for."""
    return values.to(device, non_blocking=device.type != "cpu")


def onto_together(device: torch.device, values: Sequence[Tensor]) -> list[Tensor]:
    """What ``onto`` gives of each, by one copy for all; the values themselves where that is the host.

    Each copy costs the host what the start of a kernel costs it, and for a GPU the memory must be pinned, or the copy
    goes through a buffer of the driver. Pinned blocks come back to torch's cache when their copy is done.
    """
    if device.type == "cpu":
        return list(values)
    return _unpacked(onto(device, _packed(values, pinned=device.type == "cuda")), values)


_ALIGNED = 256
"""Bytes that values begin at multiples of, as those of torch's allocators do at least."""


def _starts(values: Sequence[Tensor]) -> list[int]:
    """Where each begins in one block, and where the block ends."""
    return list(accumulate((-(-value.nbytes // _ALIGNED) * _ALIGNED for value in values), initial=0))


def _packed(values: Sequence[Tensor], *, pinned: bool) -> Tensor:
    """All values in one block of bytes."""
    *starts, end = _starts(values)
    block = torch.empty(end, dtype=torch.uint8, pin_memory=pinned)
    for value, start in zip(values, starts, strict=True):
        _as(block[start : start + value.nbytes], value).copy_(value)
    return block


def _unpacked(block: Tensor, values: Sequence[Tensor]) -> list[Tensor]:
    """Views of a block of bytes, of the types and shapes of the values that were packed into it."""
    *starts, _ = _starts(values)
    return [_as(block[start : start + v.nbytes], v) for v, start in zip(values, starts, strict=True)]


def _as(data: Tensor, like: Tensor) -> Tensor:
    """Bytes as values of this type and shape."""
    return data.view(like.dtype).view(like.shape)


def to_host(values: Tensor) -> Tensor:
    """Values of a device on the host, which waits for them: the one way in which a measurement does."""
    return values.cpu()


def machine_memory() -> int:
    """Bytes of this machine's main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def processes_here() -> int:
    """How many processes of this run are on this machine, as its launcher says; 1 where none does."""
    number = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(number)) if number.isdecimal() else 1


def check_size(needed: int, what: str) -> None:
    """Refuse to make what this machine cannot hold, before the system ends the process for it.

    Args:
        needed: bytes.
        what: what needs them, and which argument says so.

    Raises:
        RunError: there is less than that.
    """
    if needed > machine_memory():
        raise RunError(f"{what}: needs at least {in_units(needed)} of memory, and this machine has {_ours()}")


@contextmanager
def bounded(recipe: Mapping[str, Any]) -> Iterator[None]:
    """Within it, tensors are not made that together would not fit into this machine's memory.

    Raises:
        RecipeError: says how large they would be, and which number of the recipe is the largest.
    """
    with _Budget(recipe):
        yield


class _Budget(TorchDispatchMode):
    """Adds up what tensors on the host need as they are made, and stops before there is too much of it."""

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        super().__init__()
        self._recipe, self._needed, self._limit = recipe, 0, machine_memory()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if args and isinstance(args[0], (list, torch.Size)) and kwargs.get("device", _HOST) in (None, _HOST):
            dtype = kwargs.get("dtype") or torch.get_default_dtype()
            if all(isinstance(size, int) for size in args[0]):
                self._needed += math.prod(args[0]) * dtype.itemsize
        if self._needed > self._limit:
            raise RecipeError(
                f"the networks need at least {in_units(self._needed)} of memory, and this machine has {_ours()}; "
                f"{largest_size(self._recipe)}"
            )
        return func(*args, **kwargs)


_HOST = torch.device("cpu")


def _ours() -> str:
    return in_units(machine_memory())


Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep small products on one thread: threads that wait for a busy core cost far more than they save."""
    threads = torch.get_num_threads()
    try:
        with threadpool_limits(limits=1):
            torch.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(threads)


def map_on_threads(function: Callable[[Item], Result], items: Iterable[Item], limit: int | None = None) -> list[Result]:
    """``function`` of every item, in order; items are shared out over torch's threads, at most ``limit`` of them.

    Each item is computed on one thread: the eigenvalues of one small matrix on several take longer than on one, and
    far longer where cores are busy.
    """
    workers = min(torch.get_num_threads(), limit or torch.get_num_threads())
    with one_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(function, items))
