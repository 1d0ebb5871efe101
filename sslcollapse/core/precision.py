"""What numbers are computed in: float32 that is float32 where it matters, and one policy for a run.

Torch has two ways to compute less precisely than a program says: autocast, which turns operands to half precision, and
TF32, in which a GPU keeps 10 bits of what a float32 factor has. Penalties, ranks, probabilities and probes want
neither, whatever the network around them does: ``full_precision``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which operations on a device compute in the type of their operands: no autocast, no TF32.

    On a CPU, and where neither is on, it costs next to nothing. In an autograd function both passes need one, since a
    backward pass runs with what is in force then.
    """
    if torch.compiler.is_compiling():  # a graph cannot change what holds for the process
        return torch.autocast(device.type, enabled=False)
    if device.type == "cuda" and torch.backends.cuda.matmul.fp32_precision == "tf32":
        return _exact(device.type)
    # A device that has no autocast is not asked about it: meta refuses the question.
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


@contextmanager
def _exact(kind: str) -> Iterator[None]:
    matmul = torch.backends.cuda.matmul
    matmul.fp32_precision = "ieee"
    try:
        with torch.autocast(kind, enabled=False):
            yield
    finally:
        matmul.fp32_precision = "tf32"
