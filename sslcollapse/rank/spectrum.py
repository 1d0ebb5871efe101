"""Measures of a spectrum as pure functions of singular values σ (1-D, any order).

``sslcollapse.rank.measures`` has the same measures of features and weights. Here λ = σ²: where σ are the
singular values of centred features, the eigenvalues of the covariance up to a factor, which no measure depends on.

Every function takes singular values [k], computes in float64, and refuses NaN, infinite and negative ones with
``NotFiniteError`` and ``ValueError``. An all-zero or empty spectrum has rank 0 by every measure.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.distributed import unsharded
from sslcollapse.nn.init import unreadable
from sslcollapse.nn.moments import gram_matrix

NUMERICAL_RANK_RTOL = 1e-3
"""Default tolerance of the numerical rank. torch's own default counts rounding noise above zero, so that after
BatchNorm and PReLU everything is full rank; directions below a thousandth of the largest carry 1e-6 of its energy."""

ALPHA_REQ_RANGE = (11, 100)
"""Default ranks k, first and last included, that α-ReQ's line is fitted to: the first ten eigenvalues lie off the power
law of the tail. Published uses differ in it, between 3 and 12 for the first and around 50 to 500 for the last."""


class NotFiniteError(ValueError):
    """A matrix has NaN or infinite entries, so it has no spectrum."""


def widest(values: Any, what: str = "a matrix") -> Tensor:
    """Values without their gradient, in float64, or in complex128 where they are complex.

    Of a sharded tensor (DTensor) all of it, so that every rank must call.

    Raises:
        TypeError: for anything but a tensor.
        ValueError: for a tensor that is sparse, nested or quantised, or that has no values (on the meta device).
    """
    if not isinstance(values, Tensor):
        raise TypeError(f"expected {what} as a torch.Tensor, got {type(values).__name__}; use torch.as_tensor first")
    reason = unreadable(values)
    if reason is not None:
        raise ValueError(f"expected {what}, got a tensor that {reason}")
    values = unsharded(values.detach())
    return values.to(torch.complex128 if values.is_complex() else torch.float64)  # which types of 8 bits become as well


def singular_values(matrix: Tensor) -> Tensor:
    """Singular values of [n, d] in float64, descending, from the Gram matrix of the smaller side.

    Exact to about 1e-8 of the largest, which is below anything that the measures here depend on, and much
    faster than an SVD. A complex matrix is measured as one. Of a sharded matrix every rank must call.

    Raises:
        TypeError, ValueError: for what ``widest`` refuses.
    """
    gram, scale = gram_of(matrix)
    sigma = from_gram(gram)
    return sigma if scale is None else sigma * scale


def gram_of(matrix: Tensor) -> tuple[Tensor, Tensor | None]:
    """BᴴB or BBᴴ in float64, the smaller of the two, and the scale s of a matrix A = s B; None for 1.

    A finite matrix may be too large to be squared. On a CPU that is looked at; elsewhere the host would have to wait
    for the answer, so that every matrix is scaled by its largest entry.

    Raises:
        TypeError, ValueError: for what ``widest`` refuses.
    """
    rows = widest(matrix)
    side = rows if rows.shape[0] <= rows.shape[1] else rows.mH
    if side.device.type == "cpu" or not side.numel():
        gram = gram_matrix(side)
        if torch.isfinite(gram).all():
            return gram, None
    peak = side.abs().amax()
    peak = torch.where(peak > 0, peak, 1.0)
    return gram_matrix(side / peak), peak


def from_gram(gram: Tensor) -> Tensor:
    """Singular values, descending, of any matrix with this Gram matrix [d, d] (float64 or complex128).

    Eigenvalues within rounding of zero (d · 2⁻⁵² of the largest) count as zero: their square roots would be of the size
    1e-8, and several hundred of them are seen in an effective rank.

    Raises:
        NotFiniteError: for a Gram matrix with NaN or infinite entries.
    """
    finite(gram)
    if not gram.numel():
        return gram.real.new_zeros(0)
    return without_noise(torch.linalg.eigvalsh(gram).flip(0)).clamp(min=0.0).sqrt()


def finite(values: Tensor) -> Tensor:
    """A Gram matrix, or the singular values of one, that has a spectrum.

    Raises:
        NotFiniteError: for one with NaN or infinite entries.
    """
    if not torch.isfinite(values).all():
        raise NotFiniteError("the matrix has NaN or infinite entries, so it has no spectrum")
    return values


def without_noise(energy: Tensor) -> Tensor:
    """Eigenvalues [..., d] in float64, descending; those within rounding of zero (d · 2⁻⁵² of the first) are zero."""
    noise = energy.shape[-1] * torch.finfo(energy.dtype).eps * energy[..., :1]
    return torch.where(energy > noise, energy, 0.0)


def effective_rank_from_singular_values(sigma: Tensor) -> float:
    """exp(−Σ p log p) with p = σ/Σσ (Roy & Vetterli 2007, definition 1): [k] → between 1 and k."""
    return _exp_entropy(_checked(sigma))


def rankme_from_singular_values(sigma: Tensor, eps: float = 1e-7) -> float:
    """exp(−Σ p log p) with p = σ/Σσ + ε, of un-centred features (Garrido et al. 2023, equation 1): [k] → scalar."""
    return _exp_entropy(_checked(sigma), eps)


def participation_ratio_from_singular_values(sigma: Tensor) -> float:
    """(Σλ)² / Σλ² with λ = σ²: [k] → between 1 and k."""
    return _participation_ratio(_energies(_checked(sigma)))


def stable_rank_from_singular_values(sigma: Tensor) -> float:
    """Σσ² / σ₁², that is ‖A‖²_F / ‖A‖²₂: [k] → between 1 and k."""
    return float(_energies(_checked(sigma)).sum())


def nesum_from_singular_values(sigma: Tensor) -> float:
    """Σλ / λ₁ with λ = σ² of centred features (He & Ozay 2022): [k] → between 1 and k.

    The same function of σ as the stable rank; what differs is that the features are centred.
    """
    return stable_rank_from_singular_values(sigma)


def numerical_rank_from_singular_values(sigma: Tensor, rtol: float = NUMERICAL_RANK_RTOL) -> int:
    """Number of singular values above ``rtol`` times the largest: [k] → count."""
    return _count(_checked(sigma), rtol)


def alpha_req_from_singular_values(sigma: Tensor, fit: tuple[int, int] = ALPHA_REQ_RANGE) -> float:
    """α of the power law λ_k ∝ k^−α: minus the slope of log λ_k against log k, λ = σ² of centred features.

    A least-squares fit with weights 1/k, which count every octave of ranks about equally.

    Args:
        sigma: [k] singular values.
        fit: first and last rank, counted from 1 and both included, that the line is fitted to. Cut where singular
            values are within rounding of zero.

    Returns:
        α, larger the faster the spectrum decays; NaN where fewer than two non-zero singular values are in the range.

    Raises:
        ValueError: for a range that does not have 1 <= first < last.

    Source: Agrawal et al. 2022 (α-ReQ), with the fit of Stringer et al. 2019. The range in which a spectrum is a power
    law depends on N and d, so state it beside the number.
    """
    first, last = fit
    if not 1 <= first < last:
        raise ValueError(f"fit must be (first, last) with 1 <= first < last, got {fit!r}")
    energy = _energies(_checked(sigma)).sort(descending=True).values
    noise = (len(energy) * torch.finfo(energy.dtype).eps) ** 2
    energy = energy[: int((energy > noise).sum())][first - 1 : last]
    if energy.numel() < 2:
        return math.nan
    k = torch.arange(first, first + energy.numel(), dtype=torch.float64, device=energy.device)
    weight = 1.0 / k
    x = k.log() - (weight * k.log()).sum() / weight.sum()
    return -float((weight * x * energy.log()).sum() / (weight * x.square()).sum())


def summarize(sigma: Tensor, attainable: int) -> dict[str, float | int]:
    """All rank measures of one spectrum beside the largest rank that its shape allows."""
    sigma = _checked(sigma)  # once: of a whole network, looking takes longer than computing
    energies = _energies(sigma)
    return {
        "effective_rank": _exp_entropy(sigma),
        "rankme": _exp_entropy(sigma, 1e-7),
        "participation_ratio": _participation_ratio(energies),
        "stable_rank": float(energies.sum()),
        "numerical_rank": _count(sigma, NUMERICAL_RANK_RTOL),
        "rtol": NUMERICAL_RANK_RTOL,
        "attainable": attainable,
    }


def _checked(sigma: Tensor) -> Tensor:
    sigma = widest(sigma, "singular values")
    if sigma.dim() != 1:
        raise ValueError(
            f"singular values must be 1-D, got shape {tuple(sigma.shape)}; for a matrix use the function of the same "
            "name without _from_singular_values"
        )
    if sigma.is_complex():
        raise ValueError(f"singular values are real numbers, got {sigma.dtype}")
    if not torch.isfinite(sigma).all():
        raise NotFiniteError("there are NaN or infinite singular values, so there is no spectrum")
    if (sigma < 0).any():
        raise ValueError(f"singular values must be >= 0, got {float(sigma.min()):g}")
    return sigma


def _exp_entropy(sigma: Tensor, eps: float = 0.0) -> float:
    total = sigma.sum()
    if total == 0:
        return 0.0
    share = sigma / total
    return float(torch.exp(torch.special.entr(share + eps if eps else share).sum()))


def _participation_ratio(energies: Tensor) -> float:
    return float(energies.sum().square() / energies.square().sum()) if energies.numel() else 0.0


def _count(sigma: Tensor, rtol: float) -> int:
    return int((sigma > rtol * sigma.max()).sum()) if sigma.numel() else 0


def _energies(sigma: Tensor) -> Tensor:
    """λ / λ₁, so that nothing over- or underflows; empty for an all-zero spectrum."""
    largest = sigma.max() if sigma.numel() else sigma.new_zeros(())
    return (sigma / largest).square() if largest > 0 else sigma.new_zeros(0)
