"""Plots of an ablation's records: metrics and their differences against every axis, rank against accuracy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.intervals import summarise
from sslcollapse.ablation.tables.columns import full_title
from sslcollapse.ablation.tables.page import Column
from sslcollapse.ablation.tables.page import effects as paired_effects
from sslcollapse.ablation.values import Cell
from sslcollapse.report.curves import AXIS_NAME, legend, legend_height
from sslcollapse.report.labels import BASE, Factor, Value, cell_name, shared_words, without_bars
from sslcollapse.report.plot import Plot, slug, wrap
from sslcollapse.report.scale import ACROSS, Key, Scale, hollow, in_order, levels, scale

MAX_LINES = 7
MAX_LABELS = 16


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
    """Cell → paired difference to its baseline with its corrected interval; baselines have 0 by definition."""
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


def effects(ablation: Ablation, records: Records, column: Column, factors: Sequence[Factor], key: Key) -> list[Plot]:
    """One metric, and its difference to the baseline, against every axis: a line for each level of the others."""
    baselines = set(ablation.baselines.values())
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
                key,
            )
            plots += _against(
                f"difference-{stem}",
                f"Difference in {name} to the baseline{suffix}",
                "Paired over equal seeds, with intervals that hold together at 95 %",
                f"difference in {name}",
                cells,
                factor,
                lines,
                gains(ablation, records, column),
                key,
                baselines,
            )
    return plots


def scatters(
    ablation: Ablation, records: Records, every: Sequence[Column], factors: Sequence[Factor], key: Key
) -> list[Plot]:
    """Rank against accuracy over cells, for every pair of the two."""
    metrics = [column for column in every if column.metric]
    ranks = [column for column in metrics if column.path.startswith("rank.")]
    scores = [column for column in metrics if column.percent]
    return [
        plot for score in scores for rank in ranks for plot in _scatters(ablation, records, score, rank, factors, key)
    ]


def _scatters(
    ablation: Ablation, records: Records, score: Column, rank: Column, factors: Sequence[Factor], key: Key
) -> list[Plot]:
    x, y = values(ablation, records, rank), values(ablation, records, score)
    path = next((factor for factor in reversed(factors) if factor.numbers), None)
    others = [factor for factor in factors if factor is not path]
    plots = []
    for where, members in _split(ablation.cells, others):
        cells = [cell for cell in members if cell.hash in x and cell.hash in y]
        if len(cells) > 1:
            varying = [other for other in others if len({other.level[cell.hash] for cell in cells}) > 1]
            plots.append(_scatter(where, score, rank, x, y, path, cells, varying, factors, key))
    return plots


def _scatter(
    where: str,
    score: Column,
    rank: Column,
    x: dict[str, Value],
    y: dict[str, Value],
    path: Factor | None,
    cells: Sequence[Cell],
    varying: Sequence[Factor],
    factors: Sequence[Factor],
    key: Key,
) -> Plot:
    groups = _groups(cells, varying)
    cells = [cell for members in groups.values() for cell in members]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for label, members in groups.items():
            look = key.point(*levels(members[0], varying))
            if path is not None:
                numbers = path.numbers or []
                members = sorted(members, key=lambda cell: numbers[path.level[cell.hash]])
                ends = [x[c.hash].mean for c in members], [y[c.hash].mean for c in members]
                axes.plot(*ends, color=look["color"], linewidth=0.8, alpha=0.5)
            for cell in members:
                bars = _bar(x[cell.hash]), _bar(y[cell.hash])
                axes.errorbar(
                    x[cell.hash].mean,
                    y[cell.hash].mean,
                    xerr=bars[0],
                    yerr=bars[1],
                    linestyle="none",
                    elinewidth=0.6,
                    label=label if cell is members[0] else None,
                    **(hollow(look) if bars == (None, None) else look),
                )
        if path is not None and len(cells) <= MAX_LABELS:
            _label(axes, [(x[cell.hash].mean, y[cell.hash].mean, path.label(cell)) for cell in cells])
        axes.margins(0.1)
        axes.set(xlabel=_two_lines(metric_name(rank), ACROSS), ylabel=_two_lines(metric_name(score), AXIS_NAME))
        axes.grid(True)
        if any(groups):
            legend(figure, axes)

    rows = [[cell_name(cell, factors), cell.hash, *x[cell.hash], *y[cell.hash]] for cell in cells]
    parts = ("mean", "low", "high", "n")
    heads = ["cell", "hash", *(f"{column.path}:{part}" for column in (rank, score) for part in parts)]
    bars = ", mean ± standard deviation over seeds" if any(y[cell.hash].high is not None for cell in cells) else ""
    along = f"Lines join cells in the order of {path.short}." if path is not None else ""
    alone = without_bars([cell for cell in cells if y[cell.hash].high is None], y, factors) if bars else ""
    stem = f"scatter-{score.path.replace('evaluation.', '', 1)}-{rank.path}"
    return Plot(
        slug(f"{stem}-{where}" if where else stem),
        f"{_sentence(metric_name(score))} against {metric_name(rank)}{f', {where}' if where else ''}",
        " ".join(filter(None, [f"One point a cell{bars}.", along, alone, shared_words(factors)])),
        draw,
        heads,
        rows,
        3.4 + (legend_height(list(groups)) if any(groups) else 0.0),
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
    key: Key,
    baselines: Collection[str] = (),
) -> list[Plot]:
    groups = _groups([cell for cell in cells if cell.hash in found], others)
    # no line of baselines alone, which is 0 by definition
    groups = {label: own for label, own in groups.items() if any(cell.hash not in baselines for cell in own)}
    cells = [cell for own in groups.values() for cell in own]
    if not cells:
        return []
    where = scale(factor)
    shift = _shifts(len(groups), where)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        turned = where.upright
        if baselines:
            zero = axes.axvline if turned else axes.axhline
            zero(0.0, linewidth=0.8, color=axes.xaxis.label.get_color(), alpha=0.6)
        for index, (label, members) in enumerate(groups.items()):
            places = [where.places[factor.level[cell.hash]] + shift[index] for cell in members]
            order = in_order(places)
            points = [found[members[k].hash] for k in order]
            places = [places[k] for k in order]
            look = key.both(*levels(members[0], others))
            if where.ordered:  # else nothing lies between two levels
                axes.plot(places, [p.mean for p in points], color=look["color"], linestyle=look["linestyle"])
            axes.plot([], [], label=label, **(look if where.ordered else {**look, "linestyle": "none"}))
            for member, place, point in zip((members[k] for k in order), places, points, strict=True):
                style = {**look, "linestyle": "none"}
                bare = point.low is None and member.hash not in baselines
                ends = [place, place], [point.low, point.high]
                if point.low is not None:
                    bar = reversed(ends) if turned else ends
                    axes.plot(*bar, color=look["color"], linewidth=1.2, alpha=0.75)
                at = (point.mean, place) if turned else (place, point.mean)
                axes.plot(*([coordinate] for coordinate in at), **(hollow(style) if bare else style))
        where.dress(axes)
        if turned:
            axes.set_xlabel(_two_lines(ylabel, ACROSS))
        else:
            axes.set_ylabel(_two_lines(ylabel, AXIS_NAME))
        axes.grid(True)
        if any(groups):
            legend(figure, axes)

    counts = sorted({point.n for cell in cells if (point := found[cell.hash])})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    bare = [cell for cell in cells if found[cell.hash].low is None and cell.hash not in baselines]
    caption = f"{what}, n = {n}." if counts != [1] else "One run each (n = 1): hollow, since there are no bars."
    alone = without_bars(bare, found, [factor, *others]) if counts != [1] else ""
    caption = " ".join(filter(None, [caption, alone, shared_words([factor, *others])]))
    heads = [factor.title, *(other.title for other in others), "hash", "mean", "low", "high", "n"]
    rows = [
        [factor.label(cell), *(other.label(cell) for other in others), cell.hash, *found[cell.hash]] for cell in cells
    ]
    height = 3.2 + where.height + (legend_height(list(groups)) if any(groups) else 0.0)
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


def _shifts(count: int, where: Scale) -> list[float]:
    """Small steps aside, so that the bars of several lines do not hide each other."""
    span = (max(where.places) - min(where.places)) or 1.0
    step = 0.012 * span if where.ordered else min(0.1, 0.6 / count)
    return [step * (k - (count - 1) / 2) for k in range(count)]


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


def _two_lines(text: str, inches: float) -> str:
    return "\n".join(wrap(text, inches, 9.5, 2))


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
