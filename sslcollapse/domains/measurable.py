"""Views as rows of numbers, for measurements of the views themselves."""

from __future__ import annotations

from torch import Tensor

MAX_DIM = 3072
"""Samples of more numbers are left out; this is a CIFAR image."""


def flat_rows(view: Tensor) -> Tensor | None:
    """[N, ...] → [N, d], or None where d is above ``MAX_DIM``."""
    return view.flatten(1) if view[0].numel() <= MAX_DIM else None
