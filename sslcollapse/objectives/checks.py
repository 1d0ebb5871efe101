"""Checks that several objectives make on their arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sslcollapse.nn.checks import check_widths


def check_projector(widths: Sequence[int]) -> list[int]:
    """A projector's widths as a list, which may be empty (no projector).

    Raises:
        ValueError: when one is not positive; quotes them.
    """
    return check_widths(widths, "projector") if widths else []


def check_weight(name: str, value: float) -> float:
    """A finite weight of a term, at least 0.

    Raises:
        ValueError: names the argument and quotes the value.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number >= 0, got {value}")
    return value
