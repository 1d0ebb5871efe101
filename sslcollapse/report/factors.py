"""The axes of an ablation as factors of a plot: levels in order, and numbers where there are any to be read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.values import Cell
from sslcollapse.report.labels import Labels, several, without_beginning

BASE = "base"
_OFF = "coefficient"


@dataclass(frozen=True)
class Factor:
    """One axis with two levels or more, or the base recipe.

    Attributes:
        title: what varies: a recipe path, down to the number where just one number varies.
        labels: one a level, in the grid's order.
        numbers: one a level; None where levels are no numbers.
        level: hash of a cell → its level.
        shared: what no label says, since it is the same in all that have it.
    """

    title: str
    labels: Sequence[str]
    numbers: Sequence[float] | None
    level: Mapping[str, int]
    shared: str = ""

    @property
    def short(self) -> str:
        """The last word of the title."""
        return self.title.rpartition(".")[2]

    @property
    def words(self) -> str:
        """The last word of each path of the title."""
        return ", ".join(path.rpartition(".")[2] for path in self.title.split(", "))

    def label(self, cell: Cell) -> str:
        """The level of a cell."""
        return self.labels[self.level[cell.hash]]

    def named(self, cell: Cell) -> str:
        """The level of a cell, with what it is the level of where that is no text of its own."""
        label = self.label(cell)
        bare = label in ("none", "True", "False") or not any(map(str.isalpha, label.replace("e-", "")))
        return f"{self.short} {label}" if bare and "," not in self.title else label


def factors(ablation: Ablation) -> list[Factor]:
    """Base recipe and axes of an ablation that have two levels or more."""
    cells = ablation.cells
    found = [_factor((BASE,), {cell.hash: (cell.base,) for cell in cells})]
    for axis in ablation.axes:
        found.append(_factor(axis, {cell.hash: tuple(cell.values.get(path) for path in axis) for cell in cells}))
    return [factor for factor in found if len(factor.labels) > 1]


def cell_name(cell: Cell, chosen: Sequence[Factor]) -> str:
    """A cell by its levels: ``GRACE, Cora · coefficient 0.01``."""
    return " · ".join(factor.named(cell) for factor in chosen) or cell.base


def _factor(paths: Sequence[str], values: Mapping[str, tuple[Any, ...]]) -> Factor:
    plain = {name: json.dumps(value, sort_keys=True, default=str) for name, value in values.items()}
    order = list(dict.fromkeys(plain.values()))
    levels = [values[next(name for name in values if plain[name] == text)] for text in order]
    place = {name: order.index(text) for name, text in plain.items()}
    found = _number(paths, levels)
    if found is not None:
        title, numbers = found
        return Factor(title, [f"{number:g}" for number in numbers], numbers, place)
    labels = _labels(paths, levels)
    return Factor(_title(paths), labels.texts, None, place, "; ".join(dict.fromkeys(labels.shared)))


def _number(paths: Sequence[str], levels: Sequence[tuple[Any, ...]]) -> tuple[str, list[float]] | None:
    """The one number by which all levels differ, with its path; a part that is left out has the coefficient 0."""
    leaves = [dict(_leaves(dict(zip(paths, level, strict=True)), "")) for level in levels]
    for path in dict.fromkeys(path for level in leaves for path in level):
        last = path.rpartition(".")[2]
        values = [level.get(path, 0 if last == _OFF else None) for level in leaves]
        numbers = [float(value) for value in values if _is_number(value)]
        if len(set(numbers)) < len(values):
            continue
        others = [
            {name: value for name, value in level.items() if name != path and not _is_name(name, value)}
            for level in leaves
        ]
        present = [other for other, level in zip(others, leaves, strict=True) if path in level]
        absent = [other for other, level in zip(others, leaves, strict=True) if path not in level]
        if all(other == present[0] for other in present) and not any(map(_says_something, absent)):
            return path, numbers
    return None


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _says_something(leaves: Mapping[str, Any]) -> bool:
    return any(value is not None for value in leaves.values())


def _is_name(path: str, value: Any) -> bool:
    """A recipe's name, which moves together with what it stands for."""
    return path == "name" and isinstance(value, str)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _title(paths: Sequence[str]) -> str:
    return ", ".join(path for path in paths if path != "name" or len(paths) == 1)


def _labels(paths: Sequence[str], levels: Sequence[tuple[Any, ...]]) -> Labels:
    if all(isinstance(level[0], str) for level in levels) and len({level[0] for level in levels}) == len(levels):
        return without_beginning([level[0] for level in levels])  # a base or a name says it all
    return several(paths, levels)
