"""Measures of features and weights as pure functions of a matrix.

Each takes a matrix (rows are samples, or the outputs of a weight), computes in float64 on the matrix's device, gives a
Python number, and refuses NaN and infinite entries with ``NotFiniteError``. A complex matrix is measured as such: Aᴴ
stands for Aᵀ. What is no dense tensor is refused with ``TypeError`` or ``ValueError``. Where only a spectrum is left,
of a streaming covariance for example, use the functions called ``*_from_singular_values``; both share their formulas.

Sample size and centring change a rank: fix N, and say which of the two it is. ``centred`` means that the mean row is
subtracted; a centred rank is at most min(N − 1, d).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcollapse.rank.spectrum import (
    ALPHA_REQ_RANGE,
    NUMERICAL_RANK_RTOL,
    NotFiniteError,
    alpha_req_from_singular_values,
    effective_rank_from_singular_values,
    from_gram,
    nesum_from_singular_values,
    numerical_rank_from_singular_values,
    participation_ratio_from_singular_values,
    rankme_from_singular_values,
    stable_rank_from_singular_values,
    widest,
)

_CHUNK = 1024


def effective_rank(matrix: Tensor, *, centred: bool = False) -> float:
    """exp(−Σ p log p) with p = σ/Σσ, σ the singular values: [N, d] → between 1 and min(N, d); 0 for a zero matrix.

    Source: Roy & Vetterli 2007, definition 1.
    """
    return effective_rank_from_singular_values(_spectrum(matrix, centred))


def rankme(features: Tensor, *, eps: float = 1e-7) -> float:
    """exp(−Σ p log p) with p = σ/Σσ + ε, features not centred: [N, d] → scalar.

    Source: Garrido et al. 2023 (RankMe), equation 1.
    """
    return rankme_from_singular_values(_spectrum(features, centred=False), eps)


def participation_ratio(features: Tensor, *, centred: bool = True) -> float:
    """(Σλ)² / Σλ², λ the eigenvalues of the covariance: [N, d] → between 1 and min(N, d)."""
    return participation_ratio_from_singular_values(_spectrum(features, centred))


def stable_rank(matrix: Tensor, *, centred: bool = False) -> float:
    """Σσ² / σ₁² = ‖A‖²_F / ‖A‖²₂: [N, d] → between 1 and min(N, d)."""
    return stable_rank_from_singular_values(_spectrum(matrix, centred))


def nesum(features: Tensor, *, centred: bool = True) -> float:
    """Σλ / λ₁, λ the eigenvalues of the covariance: [N, d] → between 1 and min(N, d).

    Source: He & Ozay 2022.
    """
    return nesum_from_singular_values(_spectrum(features, centred))


def numerical_rank(matrix: Tensor, *, rtol: float = NUMERICAL_RANK_RTOL, centred: bool = False) -> int:
    """Number of singular values above ``rtol`` times the largest: [N, d] → count. State ``rtol`` beside it."""
    return numerical_rank_from_singular_values(_spectrum(matrix, centred), rtol)


def alpha_req(features: Tensor, *, fit: tuple[int, int] = ALPHA_REQ_RANGE, centred: bool = True) -> float:
    """α of the power law λ_k ∝ k^−α, fitted with weights 1/k to log λ_k against log k: [N, d] → scalar.

    Args:
        features: [N, d].
        fit: first and last rank, counted from 1 and both included, that the line is fitted to; cut at the rank.
        centred: λ are the eigenvalues of the covariance.

    Returns:
        α, or NaN where fewer than two non-zero eigenvalues are in the range.

    Source: Agrawal et al. 2022 (α-ReQ), with the fit of Stringer et al. 2019. State ``fit`` beside the number.
    """
    return alpha_req_from_singular_values(_spectrum(features, centred), fit)


def lidar(features: Tensor, *, delta: float = 1e-4, eps: float = 1e-7) -> float:
    """Effective rank of the linear discriminant of samples under their views: [n, q, d] → between 1 and min(n − 1, d).

    Formula: with x_ij view j of sample i, m_i the mean of sample i's views and m that of all,
    S_b = Σ_i (m_i − m)(m_i − m)ᵀ / n, S_w = Σ_ij (x_ij − m_i)(x_ij − m_i)ᵀ / (n q) + δ I, λ the eigenvalues of
    S_w^−½ S_b S_w^−½, and exp(−Σ p log p) with p = λ/Σλ + ε.

    Args:
        features: [n, q, d]: q views of each of n samples.
        delta: δ. It is not relative: scale the features as the objective sees them.
        eps: ε.

    Raises:
        ValueError: for features that are not [n, q, d], or a δ that is not positive.

    Source: Thilak et al. 2024 (LiDAR), section 4. A single sample has nothing between samples: 0.
    """
    if delta <= 0:
        raise ValueError(f"delta must be positive, got {delta}")
    x = _wide(features, 3, "[n, q, d]: q views of each of n samples")
    n, q, d = x.shape
    means = x.mean(1)  # [n, d]
    within = (x - means[:, None]).reshape(n * q, d)
    between = means - means.mean(0)
    scatter = within.mH @ within / (n * q)
    scatter.diagonal().add_(delta)
    # With S_w = L Lᵀ the eigenvalues of L⁻¹ S_b L⁻ᵀ are those of S_w^−½ S_b S_w^−½.
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(scatter), between.mH, upper=False)  # [d, n]
    gram = whitened @ whitened.mH if d <= n else whitened.mH @ whitened
    return rankme_from_singular_values(from_gram(gram).square(), eps)


def local_intrinsic_dimension(features: Tensor, *, k: int = 64) -> float:
    """Geometric mean over samples of m/(a_k − m), by the method of moments: [N, d] → scalar.

    a_k is a sample's Euclidean distance to its k-th nearest neighbour and m the mean of its k nearest distances. With
    uniform samples in D dimensions it tends to D.

    Args:
        features: [N, d].
        k: number of neighbours, without the sample itself.

    Returns:
        0 where a sample coincides with k others, infinite where all its k nearest are at the same distance.

    Raises:
        ValueError: for a k that is not between 2 and N − 1.

    Source: Huang et al. 2024 (LDReg); the estimator is of Amsaleg et al. 2018.
    """
    x = _real(_wide(features))
    if not 2 <= k < len(x):
        raise ValueError(f"k must be between 2 and N - 1 = {len(x) - 1}, got {k}")
    logs = []
    for start in range(0, len(x), _CHUNK):
        part = x[start : start + _CHUNK]
        distances = _distances(part, x)
        own = torch.arange(len(part), device=x.device)
        distances[own, start + own] = torch.inf
        nearest = distances.topk(k, largest=False).values  # [n, k], ascending
        m, a = nearest.mean(1), nearest[:, -1]
        logs.append(torch.where(a > 0, m.log() - (a - m).clamp(min=0.0).log(), -torch.inf))
    every = torch.cat(logs)
    return 0.0 if bool((every == -torch.inf).any()) else float(every.mean().exp())


def alignment(x: Tensor, y: Tensor) -> float:
    """E‖x − y‖² over positive pairs, L2-normalised: [N, d], [N, d] → between 0 and 4; smaller is closer.

    Raises:
        ValueError: for two shapes.

    Source: Wang & Isola 2020, with exponent 2.
    """
    x, y = _real(_wide(x)), _real(_wide(y))
    if x.shape != y.shape:
        raise ValueError(f"x and y must be of one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    return float((F.normalize(x) - F.normalize(y)).square().sum(1).mean())


def uniformity(features: Tensor, *, t: float = 2.0) -> float:
    """log E exp(−t‖x − y‖²) over pairs of different samples, L2-normalised: [N, d] → at most 0; smaller is spread more.

    Raises:
        ValueError: for fewer than two samples.

    Source: Wang & Isola 2020.
    """
    x = F.normalize(_real(_wide(features)))
    n = len(x)
    if n < 2:
        raise ValueError(f"uniformity is over pairs and needs two samples, got {n}")
    total = x.new_zeros(())
    for part in x.split(_CHUNK):
        total = total + torch.exp(-t * _distances(part, x).square()).sum()
    return float(((total - n) / (n * (n - 1))).log())  # each sample is at distance 0 from itself


def feature_std(features: Tensor) -> float:
    """Mean over channels of the standard deviation of z/‖z‖: [N, d] → about 1/√d when spread, 0 when collapsed.

    The variance is over N, so that a single sample has 0.

    Source: Chen & He 2021 (SimSiam), section 4.1.
    """
    return float(F.normalize(_wide(features)).std(0, correction=0).mean())


def _spectrum(matrix: Tensor, centred: bool) -> Tensor:
    """Singular values by SVD: the Gram matrix that is used on every step of a run is faster but less exact."""
    rows = _wide(matrix)
    return torch.linalg.svdvals(rows - rows.mean(0) if centred else rows)


def _real(x: Tensor) -> Tensor:
    """Real and imaginary parts side by side, between whose rows distances are the same: [N, d] → [N, d] or [N, 2d]."""
    return torch.view_as_real(x.resolve_conj()).flatten(1) if x.is_complex() else x


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i − y_j‖ without the cancellation of ‖x‖² + ‖y‖² − 2xy: [n, d], [N, d] → [n, N]."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _wide(values: Tensor, dims: int = 2, shape: str = "a matrix [N, d]") -> Tensor:
    wide = widest(values, shape)
    if values.dim() != dims:
        hint = "; for singular values use the function called ..._from_singular_values" if values.dim() == 1 else ""
        raise ValueError(f"expected {shape}, got shape {tuple(values.shape)}{hint}")
    if not values.numel():
        raise ValueError(f"expected {shape}, got the empty shape {tuple(values.shape)}")
    if not torch.isfinite(wide).all():
        raise NotFiniteError("the features have NaN or infinite entries, so they have no spectrum and no distances")
    return wide
