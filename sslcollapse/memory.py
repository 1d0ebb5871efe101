"""Keep freed memory in the process on Linux CPUs."""

from __future__ import annotations

import ctypes

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
