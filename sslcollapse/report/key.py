"""What colours, markers and dashes mean: one assignment for all plots of a page."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from sslcollapse.ablation.values import Cell
from sslcollapse.report.factors import Factor
from sslcollapse.report.style import COLOURS, DASHES, INK, MARKERS


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
