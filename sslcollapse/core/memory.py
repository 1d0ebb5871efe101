"""Memory: kept in the process where it is freed, and refused in a sentence where there is too little of it."""

from __future__ import annotations

import ctypes
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sslcollapse.core.errors import RecipeError, RunError

_SIZE = re.compile(r"(?:tried|unable) to allocate ([\d.]+ ?[KMGTPE]iB|\d+ bytes)", re.IGNORECASE)
_TOO_MUCH = re.compile(r"not enough memory|out of memory|size calculation overflow", re.IGNORECASE)
"""How torch and NumPy say that an allocation failed, with its size and without."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Tell glibc to reuse large freed blocks instead of returning them to the system; True where it did.

    A training step allocates the same activations again and again. By default glibc unmaps each one and the
    kernel clears every page anew, which costs as much as the arithmetic of a memory-bound operation.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_M_TRIM_THRESHOLD, 1 << 30))


def machine_memory() -> int:
    """Bytes of this machine's main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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


def shortage(error: BaseException, recipe: Mapping[str, Any]) -> str | None:
    """A sentence on an allocation that failed: its size, and the largest number of the recipe. None of other errors.

    Args:
        error: a ``MemoryError`` of Python or NumPy, or torch's ``RuntimeError`` of the same meaning.
        recipe: a resolved one, or an empty dict.
    """
    found = _SIZE.search(str(error))
    if not (isinstance(error, MemoryError) or found or _TOO_MUCH.search(str(error))):
        return None
    size = found[1] if found else ""
    if size.endswith("bytes"):
        size = in_units(int(size.split()[0]))
    return f"there is not enough memory{f' ({size} at once)' if size else ''}; {_largest(recipe)}"


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
                f"{_largest(self._recipe)}"
            )
        return func(*args, **kwargs)


_HOST = torch.device("cpu")


def in_units(count: int) -> str:
    """A number of bytes as people read it: ``"4 TB"``."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.3g} {unit}" if count < 1e15 else f"{count / 1e12:.1e} TB"
    return f"{count} bytes"


def _ours() -> str:
    return in_units(machine_memory())


def _largest(recipe: Mapping[str, Any]) -> str:
    """Which number of a recipe is the largest, of those that can have to do with memory."""
    parts = {name: recipe.get(name) for name in ("domain", "encoder", "objective", "regularizers")}
    found = max(_numbers(parts, ""), key=lambda item: item[1], default=("", 0))
    if not found[0]:
        return "give it less to do at once"
    return f"of the recipe's sizes {found[0]} = {found[1]} is the largest: make it smaller"


def _numbers(value: Any, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, int) and not isinstance(value, bool) and not path.endswith("seed"):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for k, item in enumerate(value):
            yield from _numbers(item, f"{path}[{k}]")
