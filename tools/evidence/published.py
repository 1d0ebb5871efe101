"""Accuracy in the records of this repository beside published tables; where there is nothing a cell is empty."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcollapse.ablation.files import read_plan
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.intervals import summarise
from sslcollapse.ablation.tables.columns import Column, markdown
from sslcollapse.ablation.values import plain
from sslcollapse.core.errors import RunError
from tools.evidence import paragraph, write_text

PAGE, FIGURES = "published.md", "published.json"
EMPTY = "–"


def write_published(results: Path) -> Path:
    """Write the page from ``published.json`` and the records; returns its path.

    Raises:
        RunError: there is no ``published.json``, or it is damaged.
    """
    path = results / FIGURES
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        text = page(made, results)
    except FileNotFoundError as error:
        raise RunError(f"{path}: not there; it has the published figures") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise RunError(f"{path}: damaged ({type(error).__name__}: {error})") from error
    return write_text(results / PAGE, text)


def page(made: Mapping[str, Any], results: Path) -> str:
    """The Markdown page."""
    lines = ["# Beside published tables", "", "    python tools/evidence.py published", ""]
    lines += paragraph(
        "Published figures are copied from the sources below, those of this repository are computed from its records. "
        "Mean ± standard deviation over trainings, or over splits where n says so. An empty cell is marked with "
        f"{EMPTY}: of ours it means that nothing has been run. Settings, widths and budgets differ between sources, so "
        "that a difference of a point between two of them says little."
    )
    for table in made["tables"]:
        data = table["data"]
        rows = [_published(row, data) for row in table["published"]]
        rows += [_ours(row, data, results) for row in table["ours"]]
        lines += [f"## {table['title']}", "", *paragraph(table["protocol"])]
        lines += [*markdown(["method", "from", *data, "n", "budget"], rows), ""]
    lines += ["## Sources", ""]
    lines += [f"* {name}: [{title}]({link})" for name, (title, link) in made["sources"].items()]
    lines += ["", "What would fill our empty cells is in the [command for a GPU](../gpu.md)."]
    return "\n".join(lines)


def _published(row: Mapping[str, Any], data: Sequence[str]) -> list[str]:
    figures = [str(row["figures"].get(name, EMPTY)) for name in data]
    return [row["method"], row["source"], *figures, str(row.get("n", EMPTY)), row.get("budget", EMPTY)]


def _ours(row: Mapping[str, Any], data: Sequence[str], results: Path) -> list[str]:
    found = [_cell(row["from"].get(name), row["metric"], results) for name in data]
    return [row["method"], "ours", *(each[0] for each in found), *(_joined(found, k) for k in (1, 2))]


def _joined(found: Sequence[tuple[str, str, str]], k: int) -> str:
    """One text where all cells with figures have it, else one a data set."""
    known = list(dict.fromkeys(each[k] for each in found if each[0] != EMPTY))
    return known[0] if len(known) == 1 else " / ".join(each[k] for each in found) if known else EMPTY


def _cell(place: Mapping[str, Any] | None, metric: str, results: Path) -> tuple[str, str, str]:
    """Mean ± deviation, n and budget of the cell of a grid; empty where nothing is recorded.

    Raises:
        KeyError: the grid has no such cell, or several.
    """
    folder = results / place["folder"] if place else results
    plan = read_plan(folder) if place else None
    if place is None or plan is None:
        return EMPTY, EMPTY, EMPTY
    ablation, _ = plan
    wanted = {**place.get("values", {}), **({"base": place["base"]} if "base" in place else {})}
    cells = [c for c in ablation.cells if all(plain(c.at(path)) == plain(value) for path, value in wanted.items())]
    if len(cells) != 1:
        raise KeyError(f"{len(cells)} cells of {place['folder']} have {wanted}")
    column = Column(place.get("metric", metric), "", "")
    splits = column.splits_by_seed(Records(folder / "runs.jsonl").of(cells, ablation.seeds))
    means = [sum(values) / len(values) for values in splits.values()]
    one = next(iter(splits.values()), [])
    summary = summarise(means if len(means) > 1 else one)
    if summary is None:
        return EMPTY, EMPTY, EMPTY
    shown = f"{100 * summary.mean:.2f}" + (f" ± {100 * summary.std:.2f}" if summary.std is not None else "")
    count = f"{len(means)}" if len(means) > 1 else f"1, {len(one)} splits"
    return shown, count, f"{cells[0].recipe['train']['steps']:,} steps"
