"""Differences of an ablation's cells to their baselines, paired over seeds and corrected over all that are planned."""

from __future__ import annotations

from typing import NamedTuple

from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.intervals import (
    Difference,
    PairingError,
    bonferroni,
    paired_difference,
    shared_confidence,
)
from sslcollapse.ablation.tables.columns import Column
from sslcollapse.ablation.values import Cell


class Effect(NamedTuple):
    """A cell's difference to its baseline; interval and p-value corrected alike over all differences of the metric."""

    difference: Difference
    corrected: float | None


def effects(ablation: Ablation, records: Records, column: Column) -> dict[str, Effect]:
    """Hash of a cell → its difference to its baseline, where both have records that can be paired.

    The intervals hold together at 95 %, whatever has been run, and a corrected p-value is below 0.05 just where 0 is
    outside its interval: Bonferroni over ``planned_differences``.
    """
    return records.once(ablation, ("effects", column), lambda: _effects(ablation, records, column))


def _effects(ablation: Ablation, records: Records, column: Column) -> dict[str, Effect]:
    found: dict[str, Effect] = {}
    tests = planned_differences(ablation, records, column)
    for hash_ in ablation.baselines:
        try:
            difference = paired_difference(*_paired(ablation, records, column, hash_), shared_confidence(tests))
        except PairingError:
            continue
        if difference is not None:
            found[hash_] = Effect(difference, bonferroni(difference.p, tests))
    return found


def planned_differences(ablation: Ablation, records: Records, column: Column) -> int:
    """Cells with a baseline, but for those whose records show that they do not have the metric."""

    def lacks(cell: Cell) -> bool:
        own = records.of([cell], ablation.seeds)
        return bool(own) and not column.by_seed(own)

    return sum(not any(map(lacks, _pair(ablation, hash_))) for hash_ in ablation.baselines)


def unpaired(ablation: Ablation, records: Records, column: Column) -> dict[str, str]:
    """Hash of a cell → why its values cannot be paired with its baseline's."""
    found = {}
    for hash_ in ablation.baselines:
        try:
            own, other = _paired(ablation, records, column, hash_)
            if not own.keys() & other.keys() and _sizes(ablation, records, column, hash_) > 1:
                found[hash_] = "ranks measured on different numbers of samples"
        except PairingError as error:
            found[hash_] = str(error)
    return found


def _paired(
    ablation: Ablation, records: Records, column: Column, hash_: str
) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    """The values of a cell and of its baseline."""
    return column.paired(*(records.of([cell], ablation.seeds) for cell in _pair(ablation, hash_)))


def _sizes(ablation: Ablation, records: Records, column: Column, hash_: str) -> int:
    """How many numbers of samples a cell and its baseline were measured on."""
    return len({column.measured_at(record) for record in records.of(_pair(ablation, hash_), ablation.seeds)})


def _pair(ablation: Ablation, hash_: str) -> list[Cell]:
    return [ablation.by_hash[hash_], ablation.by_hash[ablation.baselines[hash_]]]
