"""Checks that several encoders make on their arguments."""

from __future__ import annotations

from collections.abc import Sequence


def check_widths(hidden: Sequence[int], name: str = "hidden") -> list[int]:
    """Return layer widths as a list.

    Raises:
        ValueError: when there is none or one is not positive; quotes them.
    """
    if not hidden or any(width < 1 for width in hidden):
        raise ValueError(f"{name} must be a non-empty list of positive widths, got {list(hidden)}")
    return list(hidden)
