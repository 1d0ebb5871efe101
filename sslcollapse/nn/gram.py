"""Gram matrices: on a CPU a large one is half multiplied and half mirrored."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

_PANELS = 4
_HALVED_FROM = 2048
"""Bytes of a row of a Gram matrix from which on, on a CPU, the half that is left out costs more than additional calls:
512 columns of float32, 256 of float64."""


def gram_matrix(w: Tensor) -> Tensor:
    """``w @ w.mH``, the product with the conjugate transpose: [n, k] → [n, n]."""
    if not _halved(w):
        return w @ w.mH
    return mirrored_(add_gram_(w.new_empty(w.shape[0], w.shape[0]), w, beta=0))


def add_gram_(total: Tensor, w: Tensor, *, beta: float = 1) -> Tensor:
    """Make ``total`` beta · total + ``w @ w.mH`` up to mirroring: above the diagonal it may hold anything.

    Args:
        total: [n, n], changed and returned; ``mirrored_`` completes it.
        w: [n, k].
        beta: with 0 ``total`` may be uninitialised.
    """
    if not _halved(w):
        return total.addmm_(w, w.mH, beta=beta)
    for top, bottom in _panels(w.shape[0]):
        total[top:bottom, :bottom].addmm_(w[top:bottom], w[:bottom].mH, beta=beta)
    return total


def mirrored_(total: Tensor) -> Tensor:
    """Copy what ``add_gram_`` has below the diagonal of ``total`` [n, n] to above it; changed and returned."""
    for top, bottom in _panels(total.shape[0]):
        total[:top, top:bottom] = total[top:bottom, :top].mH
    return total


def _panels(n: int) -> Iterator[tuple[int, int]]:
    """First and last row of each panel; its part on the diagonal is computed whole."""
    height = max(-(-n // _PANELS), 1)
    return ((top, min(top + height, n)) for top in range(0, n, height))


def _halved(w: Tensor) -> bool:
    return w.device.type == "cpu" and w.shape[0] * w.element_size() >= _HALVED_FROM
