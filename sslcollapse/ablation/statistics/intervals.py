"""Means over seeds, differences and slopes of paired runs, corrections for several tests, correlations.

The unit of inference is the seed. Values that are not finite count as missing, and ``n`` says how many were there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
    """

    mean: float
    interval: tuple[float, float] | None
    n: int
    p: float | None = None
    splits: int = 1


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
        return Difference(mean, (mean, mean) if 1 - sign >= confidence else None, n, sign if mean else 1.0)
    from scipy.stats import t  # takes a while, so mistakes in a grid are reported before it

    error = widening * std / math.sqrt(n)
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * error
    return Difference(mean, (mean - half, mean + half), n, 2 * float(t.sf(abs(mean) / error, n - 1)))


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
