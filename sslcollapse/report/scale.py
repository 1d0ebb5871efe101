"""Places of the levels of a factor on an axis: linear, logarithmic with a place for zero, or one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from sslcollapse.report.curves import shorten
from sslcollapse.report.factors import Factor

LOG_FROM = 20.0
"""Ratio of the largest to the smallest number from which on an axis is logarithmic."""


class Scale(NamedTuple):
    """Where levels stand, and what their ticks say.

    Attributes:
        places: one a level.
        logarithmic: whether places are decimal logarithms, zero standing apart at the left.
        apart: the place of zero on a logarithmic scale, else None.
    """

    places: list[float]
    labels: list[str]
    title: str
    logarithmic: bool = False
    apart: float | None = None

    def dress(self, axes: Any) -> None:
        """Ticks at the levels, as many labels as fit, a mark between zero and the rest."""
        low, high = min(self.places), max(self.places)
        span = (high - low) or 1.0
        shown, last = [], -math.inf
        for place, label in sorted(zip(self.places, self.labels, strict=True)):
            width = (0.0195 * len(shorten(label, 18)) + 0.014) * span
            if place - last >= width:
                shown.append((place, shorten(label, 18)))
                last = place
        crowded = len(shown) < len(self.places) and not self.numeric
        if crowded:
            axes.set_xticks(self.places, [shorten(label, 24) for label in self.labels], rotation=90)
        else:
            axes.set_xticks(*zip(*shown, strict=True))
            axes.set_xticks(self.places, minor=True)
        axes.set_xlim(low - 0.07 * span, high + 0.07 * span)
        suffix = ", logarithmic" if self.logarithmic else ""
        axes.set_xlabel(f"{shorten(self.title, 50)}{suffix}")
        if self.apart is not None:
            gap = (self.apart + min(place for place in self.places if place != self.apart)) / 2
            axes.annotate(
                "//", (gap, 0), xycoords=("data", "axes fraction"), ha="center", va="center", annotation_clip=False
            )

    @property
    def numeric(self) -> bool:
        """Whether labels are numbers."""
        return all(label.replace(".", "").replace("-", "").replace("e", "").isdigit() for label in self.labels)


def scale(factor: Factor) -> Scale:
    """The scale of a factor."""
    numbers = factor.numbers
    if numbers is None:
        return Scale([float(k) for k in range(len(factor.labels))], list(factor.labels), factor.title)
    positive = [number for number in numbers if number > 0]
    if min(numbers) < 0 or not positive or max(positive) < LOG_FROM * min(positive):
        if len(positive) != 1 or min(numbers) < 0:
            return Scale([float(number) for number in numbers], list(factor.labels), factor.title)
        return Scale([0.0 if number == 0 else 1.0 for number in numbers], list(factor.labels), factor.title)
    places = {number: math.log10(number) for number in positive}
    span = max(places.values()) - min(places.values())
    zero = min(places.values()) - max(0.22 * span, 0.4)
    return Scale(
        [places.get(number, zero) for number in numbers],
        list(factor.labels),
        factor.title,
        True,
        zero if 0.0 in numbers else None,
    )


def in_order(places: Sequence[float]) -> list[int]:
    """Indices from left to right."""
    return sorted(range(len(places)), key=places.__getitem__)
