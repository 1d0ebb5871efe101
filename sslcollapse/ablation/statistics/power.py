"""How many seeds a test needs, and how a sequence of looks at it shares out its error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from sslcollapse.core.errors import RecipeError

FEWEST_SEEDS = 5
"""Of fewer no test is decided: that so few differences are normal is not to be seen in them."""
WANTED = 0.8
"""Chance of being decided that a number of seeds is computed for."""
UNSURE = 0.8
"""Confidence of the upper limit of a standard deviation that few seeds have given."""
MOST_PLANNED = 10_000
"""Seeds beyond which none are counted."""
POINTS = 2_000
"""Quantiles of the sample's spread over which power is averaged."""

Region = tuple[float, float]
"""An interval decides a test if it lies wholly within one."""


def regions(expect: str, margin: float) -> tuple[Region, list[Region]]:
    """Where an interval supports an expectation, and where it contradicts it."""
    endless = math.inf
    if expect in ("none", "equivalent"):
        return (-margin, margin), [(margin, endless), (-endless, -margin)]
    if expect == "positive":
        return (margin, endless), [(-endless, margin)]
    if expect == "negative":
        return (-endless, -margin), [(-margin, endless)]
    if expect == "not positive":
        return (-endless, margin), [(margin, endless)]
    return (-margin, endless), [(-endless, -margin)]


def power(n: int, std: float, effect: float, within: Sequence[Region], confidence: float) -> float:
    r"""Chance that Student's interval over n seeds lies wholly within one of these regions.

    .. math:: \sum_{(a, b)} E_s \left[ \Phi\left(\frac{b - \delta}{\sigma/\sqrt n} - t s\right)
        - \Phi\left(\frac{a - \delta}{\sigma/\sqrt n} + t s\right) \right]_+

    Here s is the sample's standard deviation over :math:`\sigma`. Of one region without an end this is the noncentral
    t distribution's value; of two ends, the power of two one-sided tests.

    Args:
        n: seeds, at least 2.
        std: :math:`\sigma`, of the differences over seeds.
        effect: :math:`\delta`, the true one.
        within: regions that do not overlap.
        confidence: of the interval.
    """
    if std == 0:  # then the interval is that of the order statistics
        inside = any(low < effect < high for low, high in within)
        return float(inside and 1 - 2.0 ** (1 - n) >= confidence)
    from scipy.stats import chi2, norm, t

    error = std / math.sqrt(n)
    half = t.ppf((1 + confidence) / 2, n - 1) * np.sqrt(chi2.ppf(_quantiles(), n - 1) / (n - 1))
    chance = 0.0
    for low, high in within:
        both = norm.cdf((high - effect) / error - half) - norm.cdf((low - effect) / error + half)
        chance += float(np.maximum(both, 0).mean())
    return chance


@cache
def _quantiles() -> Any:
    return (np.arange(POINTS) + 0.5) / POINTS


def seeds_needed(std: float, effect: float, within: Sequence[Region], confidence: float) -> int | None:
    """The fewest seeds, of at least 5, that decide a test with a chance of 80 %; None above ``MOST_PLANNED``."""

    def enough(n: int) -> bool:
        return power(n, std, effect, within, confidence) >= WANTED

    if not any(low < effect < high for low, high in within):
        return None  # on a limit or beyond all regions more seeds do not help
    high = FEWEST_SEEDS
    while not enough(high):
        high *= 2
        if high > MOST_PLANNED:
            return None
    low = high // 2
    while high - low > 1 and high > FEWEST_SEEDS:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def upper_std(std: float, n: int) -> float:
    """The limit that a standard deviation measured over n seeds is below at 80 % confidence, for normal noise."""
    from scipy.stats import chi2

    return std * math.sqrt((n - 1) / chi2.ppf(1 - UNSURE, n - 1))


MOST_LOOKS = 5
"""At more looks the error of each is too small to be of use."""
LEAST_SHARE = 1e-9
"""Level of a look that comes so early that it has less of its own."""
NODES = 301
"""Points of the quadrature between two boundaries."""
DRAWN = 400_000
"""Sequences that the levels are corrected by."""
LEAST_DRAWN = 0.002
"""Level below which too few of them are beyond it; the correction of this level then serves."""


def planned_looks(first: int, most: int) -> list[int]:
    """Numbers of seeds at which a sequence is looked at: 5, evenly from the first to the last.

    >>> planned_looks(10, 40)
    [10, 18, 25, 32, 40]

    Raises:
        RecipeError: the last is not above the first.
    """
    first = max(first, FEWEST_SEEDS)
    if most <= first:
        raise RecipeError(f"--until-decided must be above the {first} seeds of the first look, got {most}")
    step = (most - first) / (MOST_LOOKS - 1)
    return sorted({first + round(look * step) for look in range(MOST_LOOKS)})


@cache
def look_levels(looks: tuple[int, ...], level: float) -> tuple[float, ...]:
    r"""The two-sided level of each look at a growing sample, by which the error of all together is ``level``.

    After the share t of the last look's seeds the error that may have been spent is
    :math:`\alpha(t) = 4 - 4\Phi(z_{1-\alpha/4} / \sqrt t)`, half of it at each end, which is close to O'Brien and
    Fleming's boundary: little at first, nearly all at the last look. A look's level follows from its part by
    integration over normal sums that no earlier look has stopped. Student's intervals of few seeds are not quite as
    normal sums, and looks one or a few seeds apart would make too many errors. So all levels are then multiplied by one
    factor, at most 1, that gives the stated error in drawn sequences; ``docs/statistics.md`` tries it on others.

    Args:
        looks: growing numbers of seeds.
        level: of the whole sequence.

    Source: Lan and DeMets, Discrete sequential boundaries for clinical trials, 1983; the integration is that of
    Armitage, McPherson and Rowe, Repeated significance tests on accumulating data, 1969.
    """
    if len(looks) == 1:
        return (level,)
    factor = min(1.0, _factor(looks, max(level, LEAST_DRAWN)))
    return tuple(factor * own for own in _normal_levels(looks, level))


@cache
def _factor(looks: tuple[int, ...], level: float) -> float:
    """By which levels for normal sums are multiplied, so that a share ``level`` of drawn sequences makes an error."""
    from scipy.stats import t

    draw = np.random.RandomState(0)  # frozen, so that its numbers are the same in every version
    total, squares, before = np.zeros(DRAWN), np.zeros(DRAWN), 0
    smallest = np.full(DRAWN, np.inf)
    for look, own in zip(looks, _normal_levels(looks, level), strict=True):
        new = look - before
        part = draw.standard_normal(DRAWN) * math.sqrt(new)
        total += part
        squares += part**2 / new + (draw.chisquare(new - 1, DRAWN) if new > 1 else 0.0)
        spread = np.sqrt((squares - total**2 / look) / (look - 1))
        p = 2 * t.sf(np.abs(total) / math.sqrt(look) / spread, look - 1)
        smallest, before = np.minimum(smallest, p / own), look
    unsure = 2 / math.sqrt(level * DRAWN)  # two standard errors of the share, so that the error is not above the stated
    return float(np.quantile(smallest, level * (1 - unsure)))


def _normal_levels(looks: tuple[int, ...], level: float) -> tuple[float, ...]:
    """Levels of looks at normal sums of known variance."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    nodes, mass = np.zeros(1), np.ones(1)  # of the sums that go on, which begin at 0
    unit, weights = np.polynomial.legendre.leggauss(NODES)
    found: list[float] = []
    spent, before = 0.0, 0
    for look in looks:
        may = 4 * float(norm.sf(norm.isf(level / 4) / math.sqrt(look / looks[-1])))
        part = max(may - spent, LEAST_SHARE * level)
        step = math.sqrt(look - before)

        def stopped(bound: float, step: float = step, nodes: Any = nodes, mass: Any = mass) -> float:
            return float((mass * (norm.cdf((-bound - nodes) / step) + norm.sf((bound - nodes) / step))).sum())

        bound = brentq(lambda b, part=part, stopped=stopped: stopped(b) - part, 0.0, 40 * math.sqrt(look), xtol=1e-10)
        found.append(2 * float(norm.sf(bound / math.sqrt(look))))
        new = bound * unit
        density = (norm.pdf((new[:, None] - nodes) / step) / step) @ mass
        nodes, mass, spent, before = new, density * bound * weights, spent + part, look
    return tuple(found)
