"""Means over seeds, differences and slopes of paired runs, corrections for several tests, correlations.

The unit of inference is the seed. Values that are not finite count as missing, and ``n`` says how many were there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sslcollapse.ablation.claims.schema import LEAST_CELLS
from sslcollapse.core.errors import SSLCollapseError

ROUNDING = 1e-12
"""Spread below this share of the values is rounding, not spread."""

SIGNIFICANT = 10
"""Digits of what is computed by special functions, whose last ones depend on the library's version."""

LEVEL = 0.05
"""Chance that any interval of a family misses, shared out over its tests."""

Values = Mapping[int, float | Sequence[float]]
"""Seed → a number, or one number a split, in the order of the splits."""


class PairingError(SSLCollapseError, ValueError):
    """Values that should be paired are not of equal number."""


class Summary(NamedTuple):
    """Mean and standard deviation (ddof 1, None for one value) of n values."""

    mean: float
    std: float | None
    n: int


class Difference(NamedTuple):
    """A mean over n seeds with its confidence interval and two-sided p-value.

    Attributes:
        interval: None where the seeds are too few to give one at this confidence.
        p: of a mean of 0; None for one seed.
        splits: pairs of splits within each seed, the fewest of any.
        std: sample standard deviation over the seeds, not widened; None for one seed and for correlations.
    """

    mean: float
    interval: tuple[float, float] | None
    n: int
    p: float | None = None
    splits: int = 1
    std: float | None = None


def summarise(values: Sequence[float]) -> Summary | None:
    """Mean and sample standard deviation; None of nothing."""
    values = list(filter(math.isfinite, values))
    n = len(values)
    if not n:
        return None
    mean = math.fsum(values) / n
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
    return Summary(mean, std, n)


def paired_difference(
    values: Values, baseline: Values, confidence: float = 0.95, widening: float = 1.0
) -> Difference | None:
    r"""Mean of d_s = values[s] − baseline[s] over the seeds s that both have, with Student's interval.

    Over several splits, d_s is the mean of the differences of equal splits.

    .. math:: \bar d \pm t_{n-1,\,(1+c)/2} \; s_d / \sqrt{n}

    Raises:
        PairingError: one side has more splits than the other.
    """
    differences = paired_by_seed(values, baseline)
    numbers = [number for by_seed in (values, baseline) for entry in by_seed.values() for number in _splits(entry)]
    scale = max(map(abs, filter(math.isfinite, numbers)), default=0)
    found = student(list(differences.values()), confidence, scale=scale, widening=widening)
    splits = [len(_splits(values[seed])) for seed in differences]
    return found and found._replace(splits=min(splits))


def paired_by_seed(values: Values, baseline: Values) -> dict[int, float]:
    """Seed → mean difference of equal splits, for the seeds that both have.

    Raises:
        PairingError: one side has more splits than the other.
    """
    found = {}
    for seed in sorted(values.keys() & baseline.keys()):
        own, other = _splits(values[seed]), _splits(baseline[seed])
        if len(own) != len(other):
            raise PairingError(f"seed {seed}: {len(own)} values cannot be paired with {len(other)}; give both as many")
        pairs = zip(own, other, strict=True)  # split k is the same in both
        differences = [value - base for value, base in pairs if math.isfinite(value - base)]
        if differences:
            found[seed] = math.fsum(differences) / len(differences)
    return found


def student(
    values: Sequence[float], confidence: float = 0.95, *, scale: float = 0.0, widening: float = 1.0
) -> Difference | None:
    """Mean, Student's interval and the p-value of a mean of 0; None of nothing.

    Equal values leave Student's interval without a width, which says nothing of their accuracy. Then the interval
    is that of the order statistics, [min, max], if its confidence, 1 − 2^(1−n), suffices; else there is none. The
    p-value is then the sign test's, 2^(1−n), and 1 where all are 0.

    Args:
        values: one a seed.
        confidence: of the interval.
        scale: size of the numbers that the values are differences of, against which rounding is judged.
        widening: of the standard error, for values that are not independent.
    """
    summary = summarise(values)
    if summary is None:
        return None
    mean, std, n = summary
    if std is None:
        return Difference(mean, None, n)
    rounding = ROUNDING * max(scale, *map(abs, filter(math.isfinite, values)))
    if std <= rounding:
        sign = 2.0 ** (1 - n)
        mean = 0.0 if abs(mean) <= rounding else mean
        interval = (mean, mean) if 1 - sign >= confidence else None
        return Difference(mean, interval, n, sign if mean else 1.0, std=0.0)
    from scipy.stats import t  # takes a while, so mistakes in a grid are reported before it

    error = widening * std / math.sqrt(n)
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * error
    return Difference(mean, (mean - half, mean + half), n, 2 * float(t.sf(abs(mean) / error, n - 1)), std=std)


def bonferroni(p: float | None, tests: int) -> float | None:
    """A p-value corrected for so many tests: below 0.05 where the interval at ``shared_confidence`` leaves 0 out."""
    return None if p is None else min(1.0, tests * p)


def shared_confidence(tests: int) -> float:
    """The confidence of each of so many intervals that all hold together at 95 %, whatever their dependence."""
    return 1 - LEVEL / max(tests, 1)


def slope(positions: Sequence[float], values: Sequence[float]) -> float:
    """The least-squares slope of values against positions."""
    middle = math.fsum(positions) / len(positions)
    moments = [(position - middle) * value for position, value in zip(positions, values, strict=True)]
    return math.fsum(moments) / math.fsum((position - middle) ** 2 for position in positions)


def rounded(value: float) -> float:
    """With as many digits as are the same everywhere."""
    return float(f"{value:.{SIGNIFICANT}g}")


def _splits(entry: float | Sequence[float]) -> Sequence[float]:
    return [entry] if isinstance(entry, (int, float)) else entry


RESAMPLES = 10_000
MOST_RESAMPLES = 200_000
MOST_SEEDS = 1_000
"""That a bootstrap interval may need."""
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


def fewest_seeds(confidence: float) -> int | None:
    r"""The fewest seeds n that a bootstrap interval of this confidence is computed of; None where no number suffices.

    Two conditions. The range of n seeds covers a median with confidence :math:`1 - 2^{1-n}`, and a bootstrap knows
    nothing beyond that range: a higher confidence needs more seeds, as it does for ``student`` without spread. And the
    tail beyond each end, of which an extreme resample (one seed n times) has :math:`n^{-n}`, must be so wide that 20 of
    at most 200,000 resamples lie in it; else the interval is the range of what was drawn.
    """
    if (1 - confidence) / 2 * MOST_RESAMPLES <= BEYOND:  # of any number of seeds the tail is narrower still
        return None
    enough = (n for n in range(2, MOST_SEEDS) if 2.0 ** (1 - n) <= 1 - confidence)
    return next((n for n in enough if expanded_tail(n, confidence) * MOST_RESAMPLES >= BEYOND), None)


def expanded_tail(n: int, confidence: float) -> float:
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
    fewest = fewest_seeds(confidence)
    if fewest is None or n < fewest:
        return estimate, None
    tail = expanded_tail(n, confidence)
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
