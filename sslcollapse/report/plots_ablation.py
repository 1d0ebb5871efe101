"""Plots of an ablation's records: metrics and their differences against every axis, rank against accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any, NamedTuple

from sslcollapse.ablation.grid import Ablation, Cell
from sslcollapse.ablation.notation import full_title
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics import summarise
from sslcollapse.ablation.table import Column
from sslcollapse.ablation.table import effects as paired_effects
from sslcollapse.report.curves import legend, legend_height
from sslcollapse.report.factors import BASE, Factor, cell_name
from sslcollapse.report.plot import Plot, slug
from sslcollapse.report.scale import in_order, scale
from sslcollapse.report.style import COLOURS, MARKERS, line_style

MAX_LINES = 7
MAX_LABELS = 16


class Value(NamedTuple):
    """A mean with the ends of its bar (None of one value) and n."""

    mean: float
    low: float | None
    high: float | None
    n: int


def values(ablation: Ablation, records: Records, column: Column) -> dict[str, Value]:
    """Cell → mean ± standard deviation over seeds; times 100 of an evaluation."""
    found = {}
    for cell in ablation.cells:
        own = [_scaled(column, value) for value in column.by_seed(records.of([cell], ablation.seeds)).values()]
        summary = summarise(own)
        if summary is not None:
            mean, std, n = summary
            found[cell.hash] = Value(mean, None, None, n) if std is None else Value(mean, mean - std, mean + std, n)
    return found


def gains(ablation: Ablation, records: Records, column: Column) -> dict[str, Value]:
    """Cell → paired difference to its baseline with its 95 % interval; baselines have 0 by definition."""
    found: dict[str, Value] = {}
    cells = {cell.hash: cell for cell in ablation.cells}
    for name, effect in paired_effects(ablation, records, column).items():
        mean, interval, n = effect.difference.mean, effect.difference.interval, effect.difference.n
        low, high = (_scaled(column, end) for end in interval) if interval else (None, None)
        found[name] = Value(_scaled(column, mean), low, high, n)
    for name in set(ablation.baselines.values()):
        n = len(column.by_seed(records.of([cells[name]], ablation.seeds)))
        if n and found:
            found[name] = Value(0.0, None, None, n)
    return found


def effects(ablation: Ablation, records: Records, column: Column, factors: Sequence[Factor]) -> list[Plot]:
    """One metric, and its difference to the baseline, against every axis: a line for each level of the others."""
    plots = []
    axes = [factor for factor in factors if factor.title != BASE] or list(factors)
    for factor in axes:
        others = [other for other in factors if other is not factor]
        for where, cells in _split(ablation.cells, others):
            lines = [other for other in others if len({other.level[cell.hash] for cell in cells}) > 1]
            suffix = f", {where}" if where else ""
            stem = slug(f"{column.path.replace('evaluation.', '', 1)}-by-{factor.short}{f'-{where}' if where else ''}")
            name = metric_name(column)
            plots += _against(
                stem,
                f"{_sentence(name)} against {factor.short}{suffix}",
                "Mean ± standard deviation over seeds",
                name,
                cells,
                factor,
                lines,
                values(ablation, records, column),
            )
            plots += _against(
                f"difference-{stem}",
                f"Difference in {name} to the baseline{suffix}",
                "Paired over equal seeds, with 95 % confidence interval",
                f"difference in {name}",
                cells,
                factor,
                lines,
                gains(ablation, records, column),
                zero=True,
            )
    return plots


def scatters(ablation: Ablation, records: Records, every: Sequence[Column], factors: Sequence[Factor]) -> list[Plot]:
    """Rank against accuracy over cells, for every pair of the two."""
    metrics = [column for column in every if column.metric]
    ranks = [column for column in metrics if column.path.startswith("rank.")]
    scores = [column for column in metrics if column.percent]
    return [plot for score in scores for rank in ranks for plot in _scatters(ablation, records, score, rank, factors)]


def _scatters(
    ablation: Ablation, records: Records, score: Column, rank: Column, factors: Sequence[Factor]
) -> list[Plot]:
    x, y = values(ablation, records, rank), values(ablation, records, score)
    path = next((factor for factor in reversed(factors) if factor.numbers), None)
    others = [factor for factor in factors if factor is not path]
    plots = []
    for where, members in _split(ablation.cells, others):
        cells = [cell for cell in members if cell.hash in x and cell.hash in y]
        if len(cells) > 1:
            varying = [other for other in others if len({other.level[cell.hash] for cell in cells}) > 1]
            plots.append(_scatter(where, score, rank, x, y, path, _groups(cells, varying), factors))
    return plots


def _scatter(
    where: str,
    score: Column,
    rank: Column,
    x: dict[str, Value],
    y: dict[str, Value],
    path: Factor | None,
    groups: dict[str, list[Cell]],
    factors: Sequence[Factor],
) -> Plot:
    cells = [cell for members in groups.values() for cell in members]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for index, (label, members) in enumerate(groups.items()):
            colour = line_style(index)["color"]
            if path is not None:
                numbers = path.numbers or []
                members = sorted(members, key=lambda cell: numbers[path.level[cell.hash]])
                ends = [x[c.hash].mean for c in members], [y[c.hash].mean for c in members]
                axes.plot(*ends, color=colour, linewidth=0.8, alpha=0.5)
            for cell in members:
                axes.errorbar(
                    x[cell.hash].mean,
                    y[cell.hash].mean,
                    xerr=_bar(x[cell.hash]),
                    yerr=_bar(y[cell.hash]),
                    fmt=MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
                    color=colour,
                    elinewidth=0.6,
                    label=label if cell is members[0] else None,
                )
        if path is not None and len(cells) <= MAX_LABELS:
            _label(axes, [(x[cell.hash].mean, y[cell.hash].mean, path.label(cell)) for cell in cells])
        axes.margins(0.1)
        axes.set(xlabel=metric_name(rank), ylabel=fill(metric_name(score), 30))
        axes.grid(True)
        if len(groups) > 1:
            legend(figure, axes)

    rows = [[cell_name(cell, factors), cell.hash, *x[cell.hash], *y[cell.hash]] for cell in cells]
    parts = ("mean", "low", "high", "n")
    heads = ["cell", "hash", *(f"{column.path}:{part}" for column in (rank, score) for part in parts)]
    bars = ", mean ± standard deviation over seeds" if any(y[cell.hash].high is not None for cell in cells) else ""
    along = f" Lines join cells in the order of {path.short}." if path is not None else ""
    stem = f"scatter-{score.path.replace('evaluation.', '', 1)}-{rank.path}"
    return Plot(
        slug(f"{stem}-{where}" if where else stem),
        f"{_sentence(metric_name(score))} against {metric_name(rank)}{f', {where}' if where else ''}",
        f"One point a cell{bars}.{along}",
        draw,
        heads,
        rows,
        3.4 + (legend_height(list(groups)) if len(groups) > 1 else 0.0),
    )


def _against(
    stem: str,
    title: str,
    what: str,
    ylabel: str,
    cells: Sequence[Cell],
    factor: Factor,
    others: Sequence[Factor],
    found: dict[str, Value],
    zero: bool = False,
) -> list[Plot]:
    groups = _groups([cell for cell in cells if cell.hash in found], others)
    if zero:  # no line of baselines only, which is 0
        groups = {label: own for label, own in groups.items() if any(found[cell.hash].low is not None for cell in own)}
    cells = [cell for own in groups.values() for cell in own]
    if not cells:
        return []
    where = scale(factor)
    shift = _shifts(len(groups), where.places)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        if zero:
            axes.axhline(0.0, linewidth=0.8, color=axes.xaxis.label.get_color(), alpha=0.6)
        for index, (label, members) in enumerate(groups.items()):
            places = [where.places[factor.level[cell.hash]] + shift[index] for cell in members]
            order = in_order(places)
            points = [found[members[k].hash] for k in order]
            places = [places[k] for k in order]
            style = line_style(index)
            if factor.numbers is None:
                style["linestyle"] = ":"  # nothing lies between two levels
            axes.plot(places, [p.mean for p in points], marker=MARKERS[index % len(MARKERS)], label=label, **style)
            bars = [(place, point) for place, point in zip(places, points, strict=True) if point.low is not None]
            for place, point in bars:
                axes.plot([place, place], [point.low, point.high], color=style["color"], linewidth=1.2, alpha=0.75)
        where.dress(axes)
        axes.set_ylabel(fill(ylabel, 30))
        axes.grid(True)
        if len(groups) > 1:
            legend(figure, axes)

    counts = sorted({point.n for cell in cells if (point := found[cell.hash])})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    caption = f"{what}, n = {n}." if counts != [1] else "One run each (n = 1), so there are no bars."
    heads = [factor.title, *(other.title for other in others), "hash", "mean", "low", "high", "n"]
    rows = [
        [factor.label(cell), *(other.label(cell) for other in others), cell.hash, *found[cell.hash]] for cell in cells
    ]
    height = 3.2 + (legend_height(list(groups)) if len(groups) > 1 else 0.0)
    return [Plot(stem, title, caption, draw, heads, rows, height)]


def _split(cells: Sequence[Cell], others: Sequence[Factor]) -> list[tuple[str, list[Cell]]]:
    """Cells in groups, a plot each: one group, or for too many lines one for each level of the longest factor.

    Base recipes are of different scales, so with another factor beside them each has a plot of its own.
    """
    base = next((other for other in others if other.title == BASE), None)
    if len(others) < 2 or (base is None and len(_groups(cells, others)) <= MAX_LINES):
        return [("", list(cells))]
    by = base or max(others, key=lambda other: len({other.level[cell.hash] for cell in cells}))
    rest = [other for other in others if other is not by]
    found = []
    for label, members in _groups(cells, [by]).items():
        found += [(f"{label}, {inner}" if inner else label, part) for inner, part in _split(members, rest)]
    return found


def _groups(cells: Sequence[Cell], by: Sequence[Factor]) -> dict[str, list[Cell]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell_name(cell, by) if by else "", []).append(cell)
    return groups


def _shifts(count: int, places: Sequence[float]) -> list[float]:
    """Small steps aside, so that the bars of several lines do not hide each other."""
    span = (max(places) - min(places)) or 1.0
    return [0.012 * span * (k - (count - 1) / 2) for k in range(count)]


def _label(axes: Any, points: Sequence[tuple[float, float, str]]) -> None:
    """Labels beside points, each on the first of four sides where it hides no point and no other label."""
    spans = [(max(values) - min(values)) or 1.0 for values in list(zip(*points, strict=True))[:2]]
    taken = [(x / spans[0], y / spans[1], 0.02) for x, y, _ in points]
    for x, y, text in points:
        width = 0.019 * len(text)
        for side, rise in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
            middle = (x / spans[0] + side * (0.025 + width / 2), y / spans[1] + 0.045 * rise)
            if all(abs(middle[0] - a) > (width + other) / 2 or abs(middle[1] - b) > 0.05 for a, b, other in taken):
                taken.append((*middle, width))
                axes.annotate(
                    text,
                    (x, y),
                    xytext=(5 * side, 5 if rise > 0 else -5),
                    textcoords="offset points",
                    ha="left" if side > 0 else "right",
                    va="bottom" if rise > 0 else "top",
                    fontsize=7.5,
                )
                break


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _bar(value: Value) -> float | None:
    return None if value.high is None else value.high - value.mean


def _scaled(column: Column, value: float) -> float:
    return 100 * value if column.percent else value


def metric_name(column: Column) -> str:
    """The metric in words, with its unit."""
    if column.percent:
        return f"{column.title} [%]"
    return full_title(column)
