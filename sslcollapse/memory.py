"""How a process on a Linux CPU gets memory for large tensors."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def prepare_memory() -> bool:
    """Keep freed memory and back large tensors by huge pages; True where the C library took the setting.

    A training step allocates the same activations again and again. By default glibc unmaps each one and the
    kernel clears every page anew, which costs as much as the arithmetic of a memory-bound operation; here large
    freed blocks are reused. PyTorch asks the kernel for huge pages (2 MB instead of 4 kB, so fewer address
    translations) where ``THP_MEM_ALLOC_ENABLE`` is 1. It reads that once, at its first allocation: the variable is
    set here unless the user has set it, and has no effect once a tensor was made, as importing PyTorch Geometric
    does. So commands call this before they import anything heavy.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_M_TRIM_THRESHOLD, 1 << 30))
