"""Pure functions of the optimiser step: learning rate, EMA momentum, coefficients."""

from __future__ import annotations

import math
from typing import Literal

ScheduleName = Literal["constant", "linear", "cosine"]


def decay(step: int, total: int, kind: ScheduleName) -> float:
    """Factor that goes from 1 at step 0 towards 0 at ``total``; constant 1 for ``"constant"``.

    Formulas, t = step / total: linear 1 − t; cosine (1 + cos πt) / 2.
    """
    if kind == "constant":
        return 1.0
    t = min(max(step / max(total, 1), 0.0), 1.0)
    if kind == "linear":
        return 1.0 - t
    if kind == "cosine":
        return (1.0 + math.cos(math.pi * t)) / 2.0
    raise ValueError(f"schedule must be 'constant', 'linear' or 'cosine', got {kind!r}")


def warmup_then_decay(step: int, total: int, warmup: int, kind: ScheduleName) -> float:
    """Factor that rises linearly over ``warmup`` steps (0 at step 0), then decays until ``total``."""
    if step < warmup:
        return step / warmup
    return decay(step - warmup, total - warmup, kind)


def ema_momentum(step: int, total: int, base: float) -> float:
    """Momentum that rises from ``base`` to 1: 1 − (1 − base)(1 + cos(π step / total)) / 2.

    Source: Grill et al. 2020 (BYOL), section 3.3; BGRL uses the same.
    """
    return 1.0 - (1.0 - base) * decay(step, total, "cosine")
