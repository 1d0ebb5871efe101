"""What a run does not go on with: losses, parameters and buffers that are NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from sslcollapse.core.errors import NonFiniteLossError
from sslcollapse.training.checkpoint import newest_step


def check_losses(step: int, parts: Mapping[str, Tensor], checkpoints: Path) -> None:
    """Refuse non-finite parts of the loss of a step.

    Raises:
        NonFiniteLossError: names the first, a named part before their sum.
    """
    for name in sorted(parts, key=lambda key: key == "loss"):
        value = float(parts[name])
        if not math.isfinite(value):
            raise NonFiniteLossError(f"step {step}: {name} is {value}. {way_out(checkpoints)}")


def check_tensors(step: int, module: nn.Module, checkpoints: Path) -> None:
    """Refuse a network with non-finite parameters or buffers after a step.

    Raises:
        NonFiniteLossError: names the first.
    """
    name = first_non_finite(module)
    if name is not None:
        raise NonFiniteLossError(
            f"step {step}: {name} has NaN or infinite entries after the update. {way_out(checkpoints)}"
        )


@torch.no_grad()
def first_non_finite(module: nn.Module) -> str | None:
    """Name of the first parameter or buffer with NaN or infinite entries, or None; the host waits once for all."""
    named = chain(module.named_parameters(), module.named_buffers())
    tensors = {
        name: tensor.detach()
        for name, tensor in named
        if tensor.numel() and (tensor.is_floating_point() or tensor.is_complex())
    }
    if not tensors:
        return None
    # The largest size of an entry, which is not finite where one entry is not; a sum of squares would overflow.
    largest = torch._foreach_norm(list(tensors.values()), math.inf)
    finite = torch.isfinite(torch.stack([peak.double() for peak in largest])).tolist()
    return next((name for name, good in zip(tensors, finite, strict=True) if not good), None)


def way_out(checkpoints: Path) -> str:
    """What is left of a run that diverged, and what to do."""
    newest = newest_step(checkpoints)
    left = "No checkpoint was written"
    if newest is not None:
        left = f"The last checkpoint in {checkpoints}, of step {newest}, is from before"
    return (
        f"{left}. Lower optim.lr or the regularizer's coefficient, or use train.precision=no or bf16, and train again: "
        "a changed recipe is a run of its own"
    )
