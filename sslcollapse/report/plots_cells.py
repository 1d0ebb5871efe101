"""Plots with a row or column for every cell of an ablation: differences with intervals, ranks of all layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.intervals import summarise
from sslcollapse.ablation.tables.columns import in_unit
from sslcollapse.ablation.tables.page import Column
from sslcollapse.ablation.values import Cell
from sslcollapse.core.errors import RunError
from sslcollapse.report.curves import Line, course, heat
from sslcollapse.report.labels import BASE, Factor, cell_name, named, shared_words, split_names, without_bars
from sslcollapse.report.plot import INK, WIDTH, Plot, slug, text_inches, wrap
from sslcollapse.report.plots_ablation import gains, metric_name
from sslcollapse.report.plots_run import WORDS
from sslcollapse.report.runs import Run, is_run, read_run
from sslcollapse.report.scale import Key, hollow, levels
from sslcollapse.runs.quantities import PARTS, attainable, lookup

_BY_LAYER = "Effective rank after training over the attainable rank, mean over seeds; the first layer on top."
_FOREST = "Paired over equal seeds: mean, interval (all hold together at 95 %), n. Pale: the interval has zero in it."

MOST_DRAWN = 200
"""Cells that a plot with a place for each has at most; more are no picture, and take minutes to draw."""

PALE = 0.45
"""Of an interval that has zero in it. Colours have other meanings on the page, so the side of zero has none."""


def forest(ablation: Ablation, records: Records, column: Column, factors: Sequence[Factor]) -> list[Plot]:
    """A metric's difference to the baseline, a row a cell: mean, corrected interval and n."""
    found = gains(ablation, records, column)
    cells = [cell for cell in ablation.cells if cell.hash in ablation.baselines and cell.hash in found]
    if not cells:
        return []
    pitch = 0.40
    rows = [[cell_name(cell, factors), cell.hash, *found[cell.hash]] for cell in cells]
    of_most = {cell.hash for cell in sorted(cells, key=lambda cell: -abs(found[cell.hash].mean))[:MOST_DRAWN]}
    fewer = (
        f"Of {len(cells):,} cells the {MOST_DRAWN} that differ most; the table has all." if cells[MOST_DRAWN:] else ""
    )
    cells = [cell for cell in cells if cell.hash in of_most]
    varying, common = split_names(cells, factors)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for row, cell in enumerate(cells):
            value = found[cell.hash]
            look: dict[str, Any] = {"color": INK, "marker": "o"}
            look["alpha"] = 1.0 if value.low is None or value.low * (value.high or 0.0) > 0 else PALE
            axes.plot([0, 0], [row - 0.17, row + 0.17], color=INK, linewidth=0.9)
            if value.low is not None:
                axes.plot([value.low, value.high], [row, row], color=INK, alpha=look["alpha"], linewidth=2.2)
            axes.plot([value.mean], [row], **(hollow(look) if value.low is None else look))
            across = axes.get_yaxis_transform()
            words = _words(value, column)
            name = _fitting(cell_name(cell, varying), WIDTH - 0.45 - text_inches(words, 8))
            axes.text(0.0, row - 0.2, name, transform=across, va="bottom", fontsize=8)
            axes.text(1.0, row - 0.2, words, transform=across, va="bottom", ha="right", fontsize=8)
        axes.set(ylim=(len(cells) - 0.6, -0.85), xlabel=f"difference in {metric_name(column)}", yticks=[])
        axes.spines["left"].set_visible(False)

    alone = without_bars([cell for cell in cells if found[cell.hash].low is None], found, varying)
    bases = {cell.base for cell in cells}  # another base may have other probes
    lost = [c for c in ablation.cells if c.hash in ablation.baselines and c.hash not in found and c.base in bases]
    missing = f"Without a record, so not drawn: {named(cell_name(cell, factors) for cell in lost)}." if lost else ""
    return [
        Plot(
            slug(f"forest-{column.path.replace('evaluation.', '', 1)}"),
            f"Difference in {metric_name(column)} to the baseline",
            " ".join(filter(None, [_FOREST, fewer, common, alone, missing, shared_words(factors)])),
            draw,
            ["cell", "hash", "mean", "low", "high", "n"],
            rows,
            0.75 + pitch * len(cells),
        )
    ]


def layer_ranks(ablation: Ablation, records: Records, factors: Sequence[Factor]) -> list[Plot]:
    """Layers × cells, coloured by the final rank over what is attainable; one plot for each base recipe."""
    plots = []
    bases = list(dict.fromkeys(cell.base for cell in ablation.cells))
    inner = [factor for factor in factors if factor.title != BASE]
    for base in bases:
        every = [cell for cell in ablation.cells if cell.base == base]
        cells = every[:MOST_DRAWN]
        fewer = f"The first {MOST_DRAWN} of {len(every):,} cells." if every[MOST_DRAWN:] else ""
        varying, common = split_names(cells, inner)
        for part in PARTS:
            table = _fractions(ablation, records, cells, part)
            if not table or not any(value is not None for row in table.values() for value in row):
                continue
            whose = f", {base}" if len(bases) > 1 else ""
            plots.append(
                heat(
                    slug(f"layers-{part}{f'-{base}' if len(bases) > 1 else ''}"),
                    f"Rank of {WORDS[part]} by depth and cell{whose}",
                    " ".join(filter(None, [_BY_LAYER, fewer, common, shared_words(inner)])),
                    list(table),
                    [" · ".join(factor.label(cell) for factor in varying) or base for cell in cells],
                    list(table.values()),
                    "fraction of attainable",
                    " · ".join(factor.words for factor in varying),
                )
            )
    return plots


def _fractions(ablation: Ablation, records: Records, cells: Sequence[Cell], part: str) -> dict[str, list[float | None]]:
    own = {cell.hash: records.of([cell], ablation.seeds) for cell in cells}
    layers = dict.fromkeys(
        layer for records_ in own.values() for record in records_ for layer in record["rank"].get("layers", {})
    )
    return {layer: [_mean_fraction(own[cell.hash], layer, part) for cell in cells] for layer in layers}


def _mean_fraction(records: Sequence[Any], layer: str, part: str) -> float | None:
    found = []
    for record in records:
        parts = lookup(record, f"rank.layers.{layer}") or {}
        if part in parts and math.isfinite(parts[part]["effective_rank"]):
            found.append(parts[part]["effective_rank"] / attainable(parts, part))
    summary = summarise(found)
    return None if summary is None else summary.mean


def _fitting(text: str, inches: float) -> str:
    return wrap(text, inches, 8, 1)[0]


def _words(value: Any, column: Column) -> str:
    mean, *ends = (in_unit(part, column, "+") for part in (value.mean, value.low, value.high) if part is not None)
    interval = f" [{', '.join(ends)}]" if ends else ""
    return f"{mean}{interval}, n = {value.n}".replace("-", "−")


MAX_CELLS = 14
METRICS = {
    "loss": ("Loss", "loss"),
    "rank/representation/effective_rank": ("Effective rank of the representation", "effective rank"),
}


def find_runs(ablation: Ablation, folder: Path) -> dict[str, list[Run]]:
    """Hash of a cell → its runs below a folder of run directories, by seed; damaged ones are left out."""
    found: dict[str, list[Run]] = {}
    names = sorted(folder.iterdir()) if folder.is_dir() else []  # listed once, not for every run
    for cell in ablation.cells:
        there = [name / cell.hash for name in names if (name / cell.hash).is_dir()]
        for seed in range(ablation.seeds):
            for path in (known / f"seed{seed}" for known in there):
                if is_run(path):
                    try:
                        found.setdefault(cell.hash, []).append(read_run(path))
                    except RunError:
                        continue  # its record, if there is one, is on the page all the same
    return found


def over_time(ablation: Ablation, runs: Mapping[str, Sequence[Run]], factors: Sequence[Factor], key: Key) -> list[Plot]:
    """Loss, rank of the representation and coefficients of every cell over steps; rank by depth of each cell."""
    cells = [cell for cell in ablation.cells if cell.hash in runs]
    caption = "Mean ± standard deviation over the seeds whose run directories are there."
    caption = " ".join(filter(None, [caption, shared_words(factors)]))
    plots = []
    paths = {**METRICS, **{path: (path, path.rpartition("/")[2]) for path in _coefficients(runs)}}
    for number, start in enumerate(range(0, len(cells), MAX_CELLS)):
        part = cells[start : start + MAX_CELLS]
        more = f" ({number + 1})" if len(cells) > MAX_CELLS else ""
        for path, (title, ylabel) in paths.items():
            lines = [
                Line(cell_name(cell, factors), _mean_course(runs[cell.hash], path), key.both(*levels(cell, factors)))
                for cell in part
            ]
            plot = course(slug(f"time-{path}{more}"), f"{title}{more}", caption, ylabel, lines)
            plots += [] if plot is None else [plot]
    for cell in cells:
        plots += _by_depth(cell_name(cell, factors), runs[cell.hash])
    return plots


def _by_depth(label: str, runs: Sequence[Run]) -> list[Plot]:
    plots = []
    for part in PARTS:
        table = {layer: _mean([run.fractions(layer, part) for run in runs]) for layer in runs[0].layers}
        steps = sorted({step for course_ in table.values() for step in course_})
        if not steps:
            continue
        values = [[course_[step][0] if step in course_ else None for step in steps] for course_ in table.values()]
        caption = "Effective rank as a fraction of the attainable rank, mean over seeds; the first layer on top."
        title = f"Rank of {WORDS[part]} by depth, {label}"
        name = slug(f"rank_by_depth-{part}-{label}")
        plots.append(heat(name, title, caption, list(table), steps, values, "fraction of attainable", "step"))
    return plots


def _coefficients(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """Coefficients that change during some run."""
    every = dict.fromkeys(
        key for found in runs.values() for run in found for key in run.keys if key.endswith("/coefficient")
    )
    return [
        key for key in every if any(len(set(run.series(key).values())) > 1 for found in runs.values() for run in found)
    ]


def _mean_course(runs: Sequence[Run], key: str) -> dict[int, tuple[float, float | None]]:
    return _mean([run.series(key) for run in runs])


def _mean(courses: Sequence[Mapping[int, float]]) -> dict[int, tuple[float, float | None]]:
    steps = sorted({step for course_ in courses for step in course_})
    found = {}
    for step in steps:
        summary = summarise([course_[step] for course_ in courses if step in course_])
        if summary is not None:
            found[step] = (summary.mean, summary.std)
    return found
