"""What a worker has of its machine: how many runs a GPU has room for, and whether something was left behind."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path
from typing import NamedTuple

from sslcollapse.core.errors import in_units

HOST_GROWTH, DEVICE_GROWTH = 1 << 30, 256 << 20
"""Bytes that a worker may hold more than after its first run; with more it is replaced."""
MORE_FILES, MORE_THREADS = 64, 16
"""Likewise open files and threads."""

CONTEXT = (512 << 20, 1536 << 20)
"""Least and most that a process is taken to need on a GPU beside its tensors: its context and kernels."""
LEAST_RUN = 64 << 20
USED = 0.9
"""Share of a GPU's memory that is given out to runs."""


class Memory(NamedTuple):
    """Bytes of the GPU that a worker has, after a run.

    Attributes:
        free: of the whole device.
        total: likewise.
        reserved: by the worker's allocator, now.
        peak: the most that it had reserved during the run.
    """

    free: int
    total: int
    reserved: int
    peak: int


def runs_that_fit(alone: Memory, peak: int) -> int:
    """How many runs a GPU has memory for, each with a context of its own; at least 1.

    Args:
        alone: measured after a run that had the device for itself.
        peak: the most that a run has reserved.
    """
    least, most = CONTEXT
    context = min(max(alone.total - alone.free - alone.reserved, least), most)
    room = int(USED * (alone.free + alone.reserved)) - peak  # the first run and its context have theirs
    return 1 + max(0, room // (peak + context))


def memory_of_gpu() -> Memory | None:
    """Of the GPU, before its cache is given back and the next run's peak is counted; None without one."""
    import torch

    if not torch.cuda.is_initialized():
        return None
    try:
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        memory = Memory(free, total, torch.cuda.memory_reserved(), torch.cuda.max_memory_reserved())
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    except RuntimeError:  # the context is broken; the run has failed then, and this process ends
        return None
    return memory


def held() -> dict[str, int]:
    """What this process has, as far as the system says it."""
    import torch

    found = {"host": _resident(), "files": 0, "threads": threading.active_count(), "device": 0}
    if torch.cuda.is_initialized():
        found["device"] = torch.cuda.memory_allocated()
    with suppress(OSError):
        found["files"] = len(os.listdir("/proc/self/fd"))
    return found


def _resident() -> int:
    """Bytes of memory that this process has, 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def why_it_ends(code: int, first: dict[str, int], now: dict[str, int], growth: tuple[int, int]) -> str:
    """Why this process is not to make another run; "" if it can."""
    if code:
        return f"its run ended with code {code}"
    more = {name: now[name] - first[name] for name in now}
    if more["host"] > growth[0]:
        return f"it holds {in_units(more['host'])} more memory than after its first run"
    if more["device"] > growth[1]:
        return f"it holds {in_units(more['device'])} more memory of the GPU than after its first run"
    if more["files"] > MORE_FILES:
        return f"{more['files']} more files are open than after its first run"
    if more["threads"] > MORE_THREADS:
        return f"{more['threads']} more threads are running than after its first run"
    return "a run has left a process behind" if active_children() else ""
