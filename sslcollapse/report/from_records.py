"""An ablation rebuilt from its records alone: cells, axes, and a baseline where one can be seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.values import Cell, plain, show

OFF = ("null", "0", "{}", "[]")
"""What the value of an axis looks like where what it names is left out."""


def ablation_of(name: str, records: Sequence[Mapping[str, Any]]) -> tuple[Ablation, list[str]]:
    """The ablation that these records are of, and what a reader should know of how it was rebuilt.

    Only records that were made with the settings of the last one count. A cell whose base and overrides come again
    with another hash was changed later: the last hash counts. Paths whose values change together are one axis. The
    baseline has None, 0 or nothing on an axis where some cells have it.
    """
    settings, every = list(records[-1].get("settings", [])), records
    records = [record for record in every if list(record.get("settings", [])) == settings]
    places: dict[str, Mapping[str, Any]] = {}
    for record in records:
        places[json.dumps([_base(record), record.get("overrides", {})], sort_keys=True)] = record
    current = {record["hash"]: record for record in places.values()}
    paths = dict.fromkeys(path for record in current.values() for path in record.get("overrides", {}))
    cells = [
        Cell(
            _base(record),
            Path(),
            {path: record.get("overrides", {}).get(path) for path in paths},
            recipe if isinstance(recipe := record.get("recipe"), Mapping) else {},
            record["hash"],
            record.get("streams"),
        )
        for record in current.values()
    ]
    axes = _axes(cells)
    seeds = 1 + max(record["seed"] for record in records if record["hash"] in current)
    baselines, described = _baselines(cells, axes)
    notes = ["Rebuilt from its records alone: cells without a record are not shown."]
    if others := len(every) - len(records):
        notes.append(f"Records that were made with other settings are left out: {others}.")
    older = {record["hash"] for record in records} - set(current)
    if older:
        notes.append(
            f"Earlier records of the same cells with another recipe are left out ({', '.join(sorted(older))})."
        )
    if baselines:
        notes.append(f"Compared with the cells that have {described}.")
    else:
        notes.append("No cell can be seen to be the baseline; give the ablation's file to have differences.")
    return Ablation(name, cells, axes, seeds, baselines, [], settings), notes


def _base(record: Mapping[str, Any]) -> str:
    """Label of the base recipe; that of its run where a record does not say."""
    return record.get("base", str(record.get("name", "recipe")))


def _axes(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """Paths in groups that divide the cells in the same way."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for path in dict.fromkeys(path for cell in cells for path in cell.values):
        shown = [plain(cell.values.get(path)) for cell in cells]
        order = {value: place for place, value in enumerate(dict.fromkeys(shown))}
        groups.setdefault(tuple(order[value] for value in shown), []).append(path)
    return [tuple(paths) for paths in groups.values()]


def _baselines(cells: Sequence[Cell], axes: Sequence[tuple[str, ...]]) -> tuple[dict[str, str], str]:
    for axis in axes:
        off = [cell for cell in cells if any(plain(cell.values.get(path)) in OFF for path in axis)]
        if not 0 < len(off) < len(cells):
            continue
        rest = [path for other in axes if other is not axis for path in other]
        place = {_place(cell, rest): cell.hash for cell in off}
        if len(place) == len(off):
            found = {cell.hash: place[_place(cell, rest)] for cell in cells if _place(cell, rest) in place}
            described = ", ".join(f"{path}={show(off[0].values.get(path))}" for path in axis)
            return {own: other for own, other in found.items() if own not in place.values()}, described
    return {}, ""


def _place(cell: Cell, paths: Sequence[str]) -> tuple[str, ...]:
    return (cell.base, *(plain(cell.values.get(path)) for path in paths))
