"""Training curves of an ablation's cells, means over seeds, where run directories are still there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.statistics.intervals import summarise
from sslcollapse.core.errors import RunError
from sslcollapse.report.captions import shared_words
from sslcollapse.report.curves import Line, course, heat
from sslcollapse.report.factors import Factor, cell_name
from sslcollapse.report.key import Key, levels
from sslcollapse.report.plot import Plot, slug
from sslcollapse.report.plots_run import WORDS
from sslcollapse.report.runs import Run, is_run, read_run
from sslcollapse.runs.quantities import PARTS

MAX_CELLS = 14
METRICS = {
    "loss": ("Loss", "loss"),
    "rank/representation/effective_rank": ("Effective rank of the representation", "effective rank"),
}


def find_runs(ablation: Ablation, folder: Path) -> dict[str, list[Run]]:
    """Hash of a cell → its runs below a folder of run directories, by seed; damaged ones are left out."""
    found: dict[str, list[Run]] = {}
    for cell in ablation.cells:
        for seed in range(ablation.seeds):
            for path in sorted(folder.glob(f"*/{cell.hash}/seed{seed}")):
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
