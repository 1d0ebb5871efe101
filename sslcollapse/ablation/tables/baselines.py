"""Rows of what the cells' encoders are held against: untrained and random ones, and the data without an encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.intervals import summarise
from sslcollapse.ablation.tables.columns import Column, columns, shown_summary
from sslcollapse.ablation.values import Cell, labelled, plain
from sslcollapse.runs.quantities import TRAINED, encoder_title, encoders

ANY = "any"
"""What stands under an axis on which a baseline does not depend."""

ENCODER = "encoder"
"""Title of the column that tells baselines from cells."""


class BaselineRow(NamedTuple):
    """One baseline in those cells in which it is the same.

    Attributes:
        name: ``untrained``, ``same_spectrum``, or a baseline of the domain.
        cells: in which it is the same.
        axes: paths on whose values it depends.
        records: of one seed each.
    """

    name: str
    cells: Sequence[Cell]
    axes: Sequence[str]
    records: Sequence[Mapping[str, Any]]

    @property
    def title(self) -> str:
        """As shown."""
        return encoder_title(self.name)

    def labels(self, paths: Iterable[str], shown: Callable[[str, Any], str] = labelled) -> list[str]:
        """The values under these axes."""
        return [shown(path, self.cells[0].at(path)) if path in self.axes else ANY for path in paths]

    def shown(self, column: Column) -> str:
        """The cell of a table under a column."""
        own = of_baseline(column, self.name)
        if own is None:
            return "–"
        if own.is_text:
            values = {str(value) for record in self.records if (value := own.of(record)) is not None}
            return ", ".join(sorted(values)) or "–"
        return shown_summary(summarise(list(own.by_seed(self.records).values())), column)

    def numbers(self, column: Column) -> tuple[float | str, float | str | None]:
        """Mean and standard deviation over seeds; "" where there are none."""
        own = of_baseline(column, self.name)
        summary = None if own is None else summarise(list(own.by_seed(self.records).values()))
        return ("", "") if summary is None else (summary.mean, summary.std)


def of_baseline(column: Column, name: str) -> Column | None:
    """The column that has of a baseline what another one has of the trained encoder; None where there is none."""
    root, _, rest = column.path.partition(".")
    if root == "evaluation":
        return replace(column, path=f"untrained.{rest}" if name == "untrained" else f"baselines.{name}.{rest}")
    if root == "rank" and rest.startswith("representation."):
        return replace(column, path=f"baseline_ranks.{name}.{rest}")
    return None


def baseline_rows(ablation: Ablation, records: Records, every: Sequence[Column]) -> list[BaselineRow]:
    """A row for each baseline, and for each set of cells in which it is the same; none of records without baselines.

    What is the same is seen from the numbers: an axis counts for a baseline if, without it, cells would come together
    in which the baseline has other values at an equal seed.
    """
    own = {cell.hash: records.of([cell], ablation.seeds) for cell in ablation.cells}
    shown = [record for each in own.values() for record in each if record.get("baselines")]
    names = dict.fromkeys(name for record in shown for name in encoders(record) if name != TRAINED)
    paths = ["base", *(path for axis in ablation.axes for path in axis)]
    rows = []
    for name in names:
        measured = [made for column in every if (made := of_baseline(column, name)) and not made.is_text]
        values = {hash_: _values(measured, each) for hash_, each in own.items()}
        cells = [cell for cell in ablation.cells if values[cell.hash]]
        axes = _needed(cells, paths, values)
        for group in _groups(cells, axes):
            by_seed: dict[int, Mapping[str, Any]] = {}
            for cell in group:
                for record in own[cell.hash]:
                    if record["seed"] in values[cell.hash]:
                        by_seed.setdefault(record["seed"], record)
            rows.append(BaselineRow(name, group, axes, [by_seed[seed] for seed in sorted(by_seed)]))
    return rows


def rows_with(ablation: Ablation, records: Records, chosen: Sequence[Column]) -> list[BaselineRow]:
    """The rows of ``baseline_rows`` that have a value in some of these columns."""
    every = columns(ablation, records.of(ablation.cells, ablation.seeds))
    rows = baseline_rows(ablation, records, every)
    return [row for row in rows if any(row.shown(column) != "–" for column in chosen)]


Values = Mapping[int, tuple[float | None, ...]]


def _values(columns: Sequence[Column], records: Sequence[Mapping[str, Any]]) -> Values:
    """Seed → the number in each column, of records that have one."""
    found = {record["seed"]: tuple(_number(column.of(record)) for column in columns) for record in records}
    return {seed: values for seed, values in found.items() if any(value is not None for value in values)}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _needed(cells: Sequence[Cell], paths: Sequence[str], values: Mapping[str, Values]) -> list[str]:
    """Axes without one of which cells would come together that differ."""
    axes = list(paths)
    for path in paths:
        fewer = [each for each in axes if each != path]
        if all(_alike([values[cell.hash] for cell in group]) for group in _groups(cells, fewer)):
            axes = fewer
    return axes


def _alike(several: Sequence[Values]) -> bool:
    """Whether what is known at one seed is everywhere the same; of cells without a seed in common nobody can know."""
    there = [values for values in several if values]
    if any(not any(values.keys() & other.keys() for other in there if other is not values) for values in there[1:]):
        return False
    known: dict[tuple[int, int], float] = {}
    for values in several:
        for seed, row in values.items():
            for k, value in enumerate(row):
                if value is not None and not math.isclose(known.setdefault((seed, k), value), value, rel_tol=1e-9):
                    return False
    return True


def _groups(cells: Sequence[Cell], axes: Sequence[str]) -> list[list[Cell]]:
    """Cells with equal values on these axes, in the order of their first."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(plain(cell.at(path)) for path in axes), []).append(cell)
    return list(groups.values())
