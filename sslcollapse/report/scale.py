"""Places of the levels of a factor on an axis, and what colours, markers and dashes mean on a page."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from sslcollapse.ablation.values import Cell
from sslcollapse.core.texts import printable
from sslcollapse.rank.plots import shorten
from sslcollapse.report.labels import Factor
from sslcollapse.report.plot import COLOURS, DASHES, INK, MARKERS, WIDTH, fits, text_inches, wrap

LOG_FROM = 20.0
"""Ratio of the largest to the smallest number from which on an axis is logarithmic."""

ACROSS = WIDTH - 0.9
"""Inches that an axis across a plot is long, about."""

NAMES = 1.75
"""Inches that names of rows may take at the left; more is cut."""

_SIZE = 8.5
_LINES = 2


class Scale(NamedTuple):
    """Where levels stand, and what their ticks say.

    Attributes:
        places: one a level.
        logarithmic: whether places are decimal logarithms, zero standing apart at the left.
        apart: the place of zero on a logarithmic scale, else None.
        ordered: whether places are numbers, so that something lies between two of them.
    """

    places: list[float]
    labels: list[str]
    title: str
    logarithmic: bool = False
    apart: float | None = None
    ordered: bool = True

    @property
    def upright(self) -> bool:
        """Whether the axis goes down the plot, a row a level: where names have no room beside each other."""
        if self.ordered:
            return False
        slot = ACROSS / len(self.labels) - 0.1
        return not all(fits(label, slot, _SIZE, _LINES) for label in self.labels)

    @property
    def height(self) -> float:
        """Inches that the rows of an upright axis take beyond those of a plot of usual height."""
        return max(0.34 * len(self.labels) - 2.4, 0.0) if self.upright else 0.0

    def dress(self, axes: Any) -> None:
        """Ticks at the levels, as many labels as fit, a mark between zero and the rest."""
        low, high = min(self.places), max(self.places)
        span = (high - low) or 1.0
        suffix = ", logarithmic" if self.logarithmic else ""
        title = f"{shorten(printable(self.title), 50)}{suffix}"
        if self.upright:
            axes.set_yticks(self.places, ["\n".join(_lines(label, NAMES)) for label in self.labels])
            axes.set_ylim(high + 0.6, low - 0.6)
            axes.set_ylabel(title)
            return
        if not self.ordered:
            slot = ACROSS / len(self.labels) - 0.1
            axes.set_xticks(self.places, ["\n".join(_lines(label, slot)) for label in self.labels])
        else:
            shown = self._with_room(span)
            axes.set_xticks([self.places[k] for k in shown], [shorten(self.labels[k], 18) for k in shown])
            axes.set_xticks(self.places, minor=True)
        beside = 0.07 * span if self.ordered else 0.5
        axes.set_xlim(low - beside, high + beside)
        axes.set_xlabel(title)
        if self.apart is not None:
            gap = (self.apart + min(place for place in self.places if place != self.apart)) / 2
            axes.annotate(
                "//", (gap, 0), xycoords=("data", "axes fraction"), ha="center", va="center", annotation_clip=False
            )

    def _with_room(self, span: float) -> list[int]:
        """Levels whose labels, in the middle of their places, do not touch the one before."""
        inches = ACROSS / (1.14 * span)
        shown: list[int] = []
        end = -math.inf
        for k in in_order(self.places):
            half = _inches(shorten(self.labels[k], 18)) / 2
            if self.places[k] * inches - half > end + 0.06:
                shown.append(k)
                end = self.places[k] * inches + half
        return shown


def scale(factor: Factor) -> Scale:
    """The scale of a factor."""
    numbers, labels, title = factor.numbers, list(factor.labels), factor.words
    if numbers is None:
        return Scale([float(k) for k in range(len(labels))], labels, title, ordered=False)
    positive = [number for number in numbers if number > 0]
    if min(numbers) < 0 or not positive or max(positive) < LOG_FROM * min(positive):
        if len(positive) != 1 or min(numbers) < 0:
            return Scale([float(number) for number in numbers], labels, factor.title)
        return Scale([0.0 if number == 0 else 1.0 for number in numbers], labels, factor.title)
    places = {number: math.log10(number) for number in positive}
    span = max(places.values()) - min(places.values())
    zero = min(places.values()) - max(0.22 * span, 0.4)
    return Scale(
        [places.get(number, zero) for number in numbers],
        labels,
        factor.title,
        True,
        zero if 0.0 in numbers else None,
    )


def in_order(places: Sequence[float]) -> list[int]:
    """Indices from left to right."""
    return sorted(range(len(places)), key=places.__getitem__)


def _lines(label: str, inches: float) -> list[str]:
    return wrap(label, inches, _SIZE, _LINES)


def _inches(text: str) -> float:
    return text_inches(text, _SIZE)


class Key:
    """Value → colour and marker, the same wherever the value is drawn.

    Up to seven values have colours of their own, up to ten markers of their own, and the first seventy pairs of the two
    differ, since seven and ten have no common divisor.

    Args:
        values: everything that a line of the page may stand for, in the order in which colours are given away.
    """

    def __init__(self, values: Iterable[Hashable]) -> None:
        self.values = list(dict.fromkeys(values))
        self._place = {value: place for place, value in enumerate(self.values)}

    @classmethod
    def of_factors(cls, factors: Sequence[Factor]) -> Key:
        """The levels of every factor of an ablation, whether or not they have results."""
        return cls((factor.title, level) for factor in factors for level in range(len(factor.labels)))

    def line(self, *values: Hashable) -> dict[str, Any]:
        """Colour and dash of what stands for these values: the colour of the first, the dash of the second.

        What stands for no value in particular has the ink of the text.
        """
        if not values:
            return {"color": INK, "linestyle": "-"}
        first, *others = (self._place[value] for value in values)
        dash = others[0] if others else first // len(COLOURS)
        return {"color": COLOURS[first % len(COLOURS)], "linestyle": DASHES[dash % len(DASHES)]}

    def point(self, *values: Hashable) -> dict[str, Any]:
        """Colour and marker of what stands for these values: the colour of the first, the marker of the second."""
        if not values:
            return {"color": INK, "marker": "o"}
        first, *others = (self._place[value] for value in values)
        return {"color": COLOURS[first % len(COLOURS)], "marker": MARKERS[(others or [first])[0] % len(MARKERS)]}

    def both(self, *values: Hashable) -> dict[str, Any]:
        """Colour, dash and marker."""
        return self.line(*values) | self.point(*values)


def levels(cell: Cell, factors: Sequence[Factor]) -> list[Hashable]:
    """The values of a cell: its levels of these factors."""
    return [(factor.title, factor.level[cell.hash]) for factor in factors]


def hollow(look: dict[str, Any]) -> dict[str, Any]:
    """The same marker without a filling: what has no interval."""
    return {**look, "markerfacecolor": "none", "markeredgewidth": 1.1, "markersize": 6}
