"""Columns of weights that people know from elsewhere: α of the tail, spikes, soft rank, and the shuffled control.

``docs/diagnose-columns.md`` says how each relates to the rank beside it, and where the two disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import SSLCollapseError, suggest
from sslcollapse.rank.spectrum import effective_rank_from_singular_values, singular_values

COLUMNS = {
    "alpha": "α of a power law λ^−α, fitted to the tail of λ = σ² (Clauset et al. 2009, as WeightWatcher does)",
    "alpha_distance": "the distance of Kolmogorov and Smirnov between that tail and its fit",
    "alpha_farms": "α of the upper half of λ of square cuts, so that the shape has no say (FARMS, Hu et al. 2025)",
    "spikes": "number of λ above the bulk of a random matrix of the same entries (Marchenko and Pastur 1967)",
    "soft_rank": "the upper edge of that bulk over the largest λ",
    "shuffled_rank": "effective rank of the same entries in random places",
}
"""Name of a column → what it is."""

_WINDOWS = 8
_LEAST = 8
"""Of fewer eigenvalues nothing is fitted."""


def check_columns(names: Sequence[str]) -> list[str]:
    """The columns that are asked for, once each; ``all`` is every one.

    Raises:
        SSLCollapseError: there is none of that name.
    """
    found = list(COLUMNS) if "all" in names else list(dict.fromkeys(names))
    for name in found:
        if name not in COLUMNS:
            raise SSLCollapseError(
                f"columns: there is no column {name!r}{suggest(name, list(COLUMNS))} (there are: {', '.join(COLUMNS)})"
            )
    return found


def columns_of(weight: Tensor, sigma: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Column → its value; NaN where it cannot be told.

    Args:
        weight: [out, in].
        sigma: its singular values.
        names: of ``COLUMNS``.
    """
    energies = np.square(sigma)
    found: dict[str, float] = {}
    if {"alpha", "alpha_distance"} & set(names):
        found["alpha"], found["alpha_distance"] = tail_exponent(energies)
    if "alpha_farms" in names:
        found["alpha_farms"] = upper_half_exponent(_square_energies(weight))
    if {"spikes", "soft_rank"} & set(names):
        found["spikes"], found["soft_rank"] = spikes(energies, (weight.shape[0], weight.shape[1]))
    if "shuffled_rank" in names:
        found["shuffled_rank"] = shuffled_rank(weight)
    return {name: found[name] for name in names}


def tail_exponent(values: np.ndarray) -> tuple[float, float]:
    """α and the distance of its fit: a power law x^−α above the x_min that makes the distance the smallest.

    For each x_min, α = 1 + n / Σ log(x/x_min) over the n values from it on, the maximum of the likelihood; the distance
    is the largest one between their distribution function and 1 − (x/x_min)^(1−α).

    Returns:
        NaN twice for fewer than eight values that are not zero, or where all are alike.

    Source: Clauset, Shalizi & Newman 2009, sections 3.1 and 3.3.
    """
    x = np.sort(values[values > 1e-12 * values.max(initial=0.0)])
    if len(x) < _LEAST or x[0] == x[-1]:
        return math.nan, math.nan
    logs = np.log(x)
    best = (math.inf, math.nan)
    after = np.cumsum(logs[::-1])[::-1]  # Σ log over a value and all that are larger
    for first in range(len(x) - 1):
        n = len(x) - first
        spread = after[first] - n * logs[first]
        if spread <= 0:
            continue
        alpha = 1 + n / spread
        fitted = 1 - np.exp((1 - alpha) * (logs[first:] - logs[first]))
        best = min(best, (float(np.abs(fitted - np.arange(n) / n).max()), float(alpha)))
    return best[1], best[0] if math.isfinite(best[0]) else math.nan


def upper_half_exponent(values: np.ndarray) -> float:
    """α of the values from their median on, by the maximum of the likelihood; NaN for fewer than eight of them.

    Where the tail begins is fixed, as FARMS has it: a search for the best x_min finds another part of a spectrum
    the more values there are.

    Source: Hill 1975.
    """
    x = np.sort(values[values > 1e-12 * values.max(initial=0.0)])
    upper = x[len(x) // 2 :]
    if len(upper) < _LEAST or upper[0] == upper[-1]:
        return math.nan
    return float(1 + len(upper) / np.log(upper / upper[0]).sum())


def spikes(energies: np.ndarray, shape: tuple[int, int]) -> tuple[float, float]:
    """How many λ = σ² lie above the bulk, and the bulk's edge over the largest λ.

    Independent entries of variance v have λ up to v (√out + √in)²; the largest of them strays above it by the share
    min(out, in)^(−2/3) (Tracy and Widom 1994). v is that of the entries without the spikes, which is repeated until no
    more are found.

    Returns:
        NaN twice where all are zero.
    """
    largest = float(energies.max(initial=0.0))
    if largest <= 0:
        return math.nan, math.nan
    descending = np.sort(energies)[::-1]
    edge, above = math.inf, 0
    small, large = sorted(shape)
    while above < len(descending):
        rows = (small - above) * large
        edge = float(descending[above:].sum()) / rows * (math.sqrt(small) + math.sqrt(large)) ** 2
        outside = int((descending > edge * (1 + small ** (-2 / 3))).sum())
        if outside <= above:
            break
        above = outside
    return float(above), min(edge / largest, 1.0)


def shuffled_rank(weight: Tensor) -> float:
    """Effective rank of the same entries in random places, which depends on their distribution alone."""
    flat = weight.detach().flatten()
    order = torch.randperm(flat.numel(), generator=torch.Generator().manual_seed(0)).to(flat.device)
    return effective_rank_from_singular_values(singular_values(flat[order].view(weight.shape)))


def _square_energies(weight: Tensor) -> np.ndarray:
    """λ of square cuts side by side, at most eight of them, all together."""
    side = weight.detach() if weight.shape[0] <= weight.shape[1] else weight.detach().mT
    small, large = side.shape
    count = min(large // small, _WINDOWS)
    starts = [round(k * (large - small) / max(count - 1, 1)) for k in range(count)]
    return np.concatenate([singular_values(side[:, k : k + small]).square().cpu().numpy() for k in starts])
