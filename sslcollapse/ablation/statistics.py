"""Means over seeds, and differences of runs with equal seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Summary(NamedTuple):
    """Mean and standard deviation (ddof 1, None for one value) of n values."""

    mean: float
    std: float | None
    n: int


class Difference(NamedTuple):
    """Mean difference of n pairs and its 95 % confidence interval (None for one pair)."""

    mean: float
    interval: tuple[float, float] | None
    n: int


def summarise(values: Sequence[float]) -> Summary | None:
    """Mean and sample standard deviation; None of nothing."""
    n = len(values)
    if not n:
        return None
    mean = math.fsum(values) / n
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
    return Summary(mean, std, n)


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float], confidence: float = 0.95
) -> Difference | None:
    r"""Mean of d_s = values[s] − baseline[s] over the seeds s that both have, with Student's interval.

    .. math:: \bar d \pm t_{n-1,\,(1+c)/2} \; s_d / \sqrt{n}
    """
    summary = summarise([values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())])
    if summary is None or summary.std is None:
        return None if summary is None else Difference(summary.mean, None, summary.n)
    from scipy.stats import t  # takes a while, so mistakes in a grid are reported before it

    half = float(t.ppf((1 + confidence) / 2, summary.n - 1)) * summary.std / math.sqrt(summary.n)
    return Difference(summary.mean, (summary.mean - half, summary.mean + half), summary.n)
