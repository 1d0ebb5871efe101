"""Rank measures as pure functions of singular values σ (1-D, any order).

An all-zero spectrum has rank 0 by every measure.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUMERICAL_RANK_RTOL = 1e-3
"""Default tolerance of ``numerical_rank``. torch's own default counts rounding noise above zero, so that after
BatchNorm and PReLU everything is full rank; directions below a thousandth of the largest carry 1e-6 of its energy."""


class NotFiniteError(ValueError):
    """A matrix has NaN or infinite entries, so it has no spectrum."""


def singular_values(matrix: Tensor) -> Tensor:
    """Singular values of [n, d] in float64, descending, from the Gram matrix of the smaller side.

    Exact to about 1e-8 of the largest, which is below anything that the measures here depend on, and much
    faster than an SVD.
    """
    rows = matrix.detach().double()
    gram = rows @ rows.t() if rows.shape[0] <= rows.shape[1] else rows.t() @ rows
    return from_gram(gram)


def from_gram(gram: Tensor) -> Tensor:
    """Singular values, descending, of any matrix with this Gram matrix [d, d] (float64).

    Raises:
        NotFiniteError: for a Gram matrix with NaN or infinite entries.
    """
    if not torch.isfinite(gram).all():
        raise NotFiniteError("the matrix has NaN or infinite entries, so it has no spectrum")
    return torch.linalg.eigvalsh(gram).clamp(min=0.0).sqrt().flip(0)


def effective_rank(sigma: Tensor) -> float:
    """exp(−Σ p log p) with p = σ/Σσ (Roy & Vetterli 2007, definition 1)."""
    total = sigma.sum()
    if total == 0:
        return 0.0
    return float(torch.exp(torch.special.entr(sigma / total).sum()))


def rankme(sigma: Tensor, eps: float = 1e-7) -> float:
    """exp(−Σ p log p) with p = σ/Σσ + ε, of un-centred features (Garrido et al. 2023, equation 1)."""
    total = sigma.sum()
    if total == 0:
        return 0.0
    return float(torch.exp(torch.special.entr(sigma / total + eps).sum()))


def participation_ratio(sigma: Tensor) -> float:
    """(Σλ)² / Σλ² with λ = σ²."""
    energy = sigma.square()
    denominator = energy.square().sum()
    return float(energy.sum().square() / denominator) if denominator > 0 else 0.0


def stable_rank(sigma: Tensor) -> float:
    """Σσ² / σ₁²."""
    largest = sigma.max() if sigma.numel() else sigma.new_zeros(())
    return float((sigma / largest).square().sum()) if largest > 0 else 0.0


def numerical_rank(sigma: Tensor, rtol: float = NUMERICAL_RANK_RTOL) -> int:
    """Number of singular values above ``rtol`` times the largest."""
    return int((sigma > rtol * sigma.max()).sum()) if sigma.numel() else 0


def summarize(sigma: Tensor, attainable: int) -> dict[str, float | int]:
    """All measures of one spectrum beside the largest rank that its shape allows."""
    return {
        "effective_rank": effective_rank(sigma),
        "rankme": rankme(sigma),
        "participation_ratio": participation_ratio(sigma),
        "stable_rank": stable_rank(sigma),
        "numerical_rank": numerical_rank(sigma),
        "rtol": NUMERICAL_RANK_RTOL,
        "attainable": attainable,
    }
