"""Sentences of captions: which cells have no interval, and what labels leave out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sslcollapse.ablation.values import Cell
from sslcollapse.report.factors import Factor, cell_name

MAX_NAMED = 6
"""So many cells are named in a caption."""

MAX_SHARED = 140
"""Letters of what captions say that labels leave out; more is said once at the top of the page."""


class Value(NamedTuple):
    """A mean with the ends of its bar (None of one value) and n."""

    mean: float
    low: float | None
    high: float | None
    n: int


def without_bars(cells: Sequence[Cell], found: Mapping[str, Value], factors: Sequence[Factor]) -> str:
    """A sentence that names cells whose marker is hollow, with their n; "" of none."""
    names = [f"{cell_name(cell, factors)} (n = {found[cell.hash].n})" for cell in cells]
    return f"Hollow, since there is no interval: {named(names)}." if names else ""


def split_names(cells: Sequence[Cell], factors: Sequence[Factor]) -> tuple[list[Factor], str]:
    """Factors at which these cells differ, for their names; and a sentence with what they have in common."""
    varying = [factor for factor in factors if len({factor.level[cell.hash] for cell in cells}) > 1]
    same = [factor for factor in factors if factor not in varying]
    if not varying or not same:
        return list(factors), ""
    return varying, f"All have {' · '.join(factor.named(cells[0]) for factor in same)}."


def named(names: Iterable[str]) -> str:
    """Names one after the other, the first few of many."""
    every = list(names)
    more = f" and {len(every) - MAX_NAMED} more" if len(every) > MAX_NAMED else ""
    return f"{', '.join(every[:MAX_NAMED])}{more}"


def shared_words(factors: Sequence[Factor]) -> str:
    """A sentence for a caption with what the labels of factors leave out; "" of nothing, and of much."""
    text = left_out(factors)
    return text if len(text) <= MAX_SHARED else ""


def shared_note(factors: Sequence[Factor]) -> list[str]:
    """The same for the top of a page, where it is too long for every caption."""
    text = left_out(factors)
    return [text] if len(text) > MAX_SHARED else []


def left_out(factors: Sequence[Factor]) -> str:
    """What no label says, since it is the same wherever it is."""
    parts = [factor.shared for factor in factors if factor.shared]
    return f"In labels of plots, {'; '.join(parts)}." if parts else ""
