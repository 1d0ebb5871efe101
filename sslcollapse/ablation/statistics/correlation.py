"""Correlation of two metrics over cells, with intervals over cells or over seeds."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sslcollapse.ablation.claims.schema import LEAST_CELLS
from sslcollapse.ablation.statistics.intervals import rounded

RESAMPLES = 10_000
MOST_RESAMPLES = 200_000
BEYOND = 20
"""Resamples that must lie beyond each end of an interval, so that no end is the extreme of what was drawn."""
DIGITS = 10
"""Means are rounded to this many decimals of the largest before they are ranked, so that rounding breaks no tie."""


class Correlation(NamedTuple):
    """Spearman's and Pearson's correlation over n cells, with intervals by Fisher's z (None at ±1)."""

    spearman: float
    spearman_interval: tuple[float, float] | None
    pearson: float
    pearson_interval: tuple[float, float] | None
    n: int


def correlate(x: Sequence[float], y: Sequence[float], confidence: float = 0.95) -> Correlation | None:
    r"""Of at least 6 cells that differ, neither metric being constant; else None.

    .. math:: \tanh(\operatorname{artanh} r \pm z \, s), \quad
        s^2 = 1 / (n-3) \text{ (Pearson)}, \; (1 + r^2/2) / (n-3) \text{ (Spearman)}

    Source: Bonett and Wright, Sample size requirements for estimating Pearson, Kendall and Spearman correlations, 2000.
    """
    n = len(x)
    if different(x, y) < LEAST_CELLS:
        return None
    columns = np.array([x, y], dtype=float)[:, :, None]  # [2, cells, 1]
    pearson, spearman = float(_pearson(columns)[0]), float(_pearson(_ranks(columns))[0])
    if not math.isfinite(pearson) or not math.isfinite(spearman):
        return None
    return Correlation(
        spearman,
        _fisher(spearman, (1 + spearman**2 / 2) / (n - 3), confidence),
        pearson,
        _fisher(pearson, 1 / (n - 3), confidence),
        n,
    )


def different(x: Sequence[float], y: Sequence[float]) -> int:
    """The number of cells that differ in one of two metrics."""
    return len({(rounded(a), rounded(b)) for a, b in zip(x, y, strict=True)})


def fewest_seeds(confidence: float) -> int:
    r"""The fewest seeds n that a bootstrap interval of this confidence is computed of.

    Two conditions. The range of n seeds covers a median with confidence :math:`1 - 2^{1-n}`, and a bootstrap knows
    nothing beyond that range: a higher confidence needs more seeds, as it does for ``student`` without spread. And the
    tail beyond each end, of which an extreme resample (one seed n times) has :math:`n^{-n}`, must be so wide that 20 of
    at most 200,000 resamples lie in it; else the interval is the range of what was drawn.
    """
    n = 2
    while 2.0 ** (1 - n) > 1 - confidence or _tail(n, confidence) * MOST_RESAMPLES < BEYOND:
        n += 1
    return n


def _tail(n: int, confidence: float) -> float:
    """Level of each end of the expanded percentile interval."""
    from scipy.stats import norm, t

    return float(norm.cdf(-math.sqrt(n / (n - 1)) * t.ppf((1 + confidence) / 2, n - 1)))


def bootstrap_spearman(
    x: Sequence[Sequence[float]], y: Sequence[Sequence[float]], confidence: float = 0.95
) -> tuple[float, tuple[float, float] | None] | None:
    r"""Spearman's correlation over cells of their means over seeds, with a bootstrap interval over seeds.

    Each resample draws seeds with replacement, the same for all cells. The percentile interval is widened for few
    seeds: its level is :math:`2\Phi(-\sqrt{n/(n-1)} \; t_{n-1,\,(1+c)/2})`. The draws are always the same.

    Args:
        x: [cells][seeds].
        y: [cells][seeds], of the same runs.
        confidence: of the interval; there is none with fewer than ``fewest_seeds``.

    Returns:
        The correlation and its interval; None where one of the metrics is the same in all cells.

    Source: Hesterberg, What teachers should know about the bootstrap, 2015 (expanded percentiles).
    """
    values = np.array([x, y], dtype=float)  # [2, cells, seeds]
    n = values.shape[2]
    estimate = float(_pearson(_ranks(values.mean(axis=2, keepdims=True)))[0])
    if not math.isfinite(estimate):
        return None
    if n < fewest_seeds(confidence):
        return estimate, None
    tail = _tail(n, confidence)
    resamples = max(RESAMPLES, math.ceil(BEYOND / tail))
    draw = random.Random(0).random  # Python's own: its numbers are the same in every version
    counts = np.zeros((n, resamples))
    for resample in range(resamples):
        for _ in range(n):
            counts[int(draw() * n), resample] += 1
    drawn = _pearson(_ranks(values @ (counts / n)))  # [resamples]
    drawn = np.sort(drawn[np.isfinite(drawn)])
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return estimate, (float(low), float(high))


def _ranks(values: Any) -> Any:
    from scipy.stats import rankdata

    size = np.abs(values).max(axis=1, keepdims=True)
    return rankdata(np.round(values / np.where(size > 0, size, 1), DIGITS), axis=1)


def _pearson(values: Any) -> Any:
    """[2, cells, k] → [k]; NaN where a metric is constant."""
    centred = values - values.mean(axis=1, keepdims=True)
    size = np.sqrt((centred**2).sum(axis=1))  # [2, k]
    constant = size <= 1e-12 * np.sqrt((values**2).sum(axis=1))
    product = np.where(constant.any(axis=0), np.nan, size.prod(axis=0))
    return np.clip((centred[0] * centred[1]).sum(axis=0) / product, -1, 1)


def _fisher(r: float, variance: float, confidence: float) -> tuple[float, float] | None:
    if abs(r) > 1 - 1e-12:
        return None
    from scipy.stats import norm

    half = float(norm.ppf((1 + confidence) / 2)) * math.sqrt(variance)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
