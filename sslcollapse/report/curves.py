"""Plots that several pages share: lines over steps, and a heat map of layers over steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sslcollapse.report.plot import Plot
from sslcollapse.report.style import course_map, line_style

MANY = 7
"""Up to so many lines have colours of their own; more are coloured by their order."""

MAX_COLUMNS = 60
MAX_LABELS = 26


class Line(NamedTuple):
    """One line: its label, and step → value, or step → (mean, standard deviation or None)."""

    label: str
    points: Mapping[int, Any]


def course(
    name: str, title: str, caption: str, ylabel: str, lines: Sequence[Line], *, ordered: bool = False
) -> Plot | None:
    """Lines over steps, each with the colour of its place among all; None where no line has a finite value.

    ``ordered=True`` says that the lines have an order (depth) and may be coloured by it.
    """
    drawn = [any(math.isfinite(_mean(value)) for value in line.points.values()) for line in lines]
    styles = list(itertools.compress(map(line_style, itertools.count()), drawn))
    lines = list(itertools.compress(lines, drawn))
    if not lines:
        return None
    steps = sorted({step for line in lines for step in line.points})
    spread = any(isinstance(value, tuple) for line in lines for value in line.points.values())
    heads = ["step"]
    for line in lines:
        heads += [f"{line.label}:mean", f"{line.label}:std"] if spread else [line.label]
    rows = []
    for step in steps:
        row: list[Any] = [step]
        for line in lines:
            value = line.points.get(step)
            row += ([None, None] if value is None else list(value)) if spread else [value]
        rows.append(row)

    finite = [mean for line in lines for mean in map(_mean, line.points.values()) if math.isfinite(mean)]
    low, high = min(finite), max(finite)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        by_order = ordered and len(lines) > MANY
        for index, line in enumerate(lines):
            style = styles[index]
            if by_order:
                style = {"color": course_map()(index / (len(lines) - 1)), "linewidth": 1.1}
            places = sorted(line.points)
            means = [_mean(line.points[step]) for step in places]
            marker = "o" if len(places) < 3 else None
            axes.plot(places, means, label=line.label, marker=marker, **style)
            stds = [_std(line.points[step]) for step in places]
            if any(stds):
                below, above = ([m + sign * s for m, s in zip(means, stds, strict=True)] for sign in (-1, 1))
                axes.fill_between(places, below, above, color=style["color"], alpha=0.18, linewidth=0)
        axes.set(xlabel="step", ylabel=ylabel)
        axes.grid(True)
        whole_steps(axes)
        if low == high > 0:
            axes.set_ylim(0, 1.3 * high)  # a constant has no scale of its own
        if by_order:
            _order_bar(figure, axes, lines)
        elif len(lines) > 1 or lines[0].label != ylabel:
            legend(figure, axes)

    extra = 0.0 if ordered and len(lines) > MANY else legend_height([line.label for line in lines])
    return Plot(name, title, caption, draw, heads, rows, 3.2 + extra)


def heat(
    name: str,
    title: str,
    caption: str,
    rows: Sequence[str],
    columns: Sequence[Any],
    values: Sequence[Sequence[float | None]],
    label: str,
    xlabel: str,
) -> Plot:
    """Rows (layers, the first on top) × columns (steps or cells), coloured from 0 to 1; None is left blank."""
    import numpy as np

    cells = np.array([[math.nan if value is None else value for value in row] for row in values], dtype=float)
    numeric = all(isinstance(column, int) for column in columns)
    longest = max(len(shorten(str(column), 30)) for column in columns)
    upright = not numeric and longest * len(columns) > 40
    slim = min(max(14.0, 3.0 * len(rows)), 40.0)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        chosen = thin(range(len(columns)), MAX_COLUMNS)
        places = [columns[k] for k in chosen] if numeric else chosen
        mesh = axes.pcolormesh(
            _edges(places, between=numeric),
            np.arange(len(rows) + 1),
            cells[:, chosen],
            vmin=0,
            vmax=1,
            cmap="viridis",
            linewidth=0.5,
        )
        mesh.set_edgecolor("face")  # no light seams between cells
        shown = every(range(len(rows)), MAX_LABELS)
        axes.set_yticks([k + 0.5 for k in shown], [shorten(rows[k], 26) for k in shown])
        axes.invert_yaxis()
        axes.set_xlabel(xlabel)
        if numeric:
            whole_steps(axes)
        else:
            shown = every(chosen, MAX_LABELS)
            axes.set_xticks(shown, [shorten(str(columns[k]), 30) for k in shown], rotation=90 if upright else 0)
        axes.tick_params(length=2)
        for side in axes.spines.values():
            side.set_visible(False)
        figure.colorbar(mesh, ax=axes, label=label, fraction=0.06, pad=0.02, aspect=slim)

    height = min(1.5 + 0.26 * len(rows) + (0.065 * longest if upright else 0.0), 7.0)
    table = [[row, *line] for row, line in zip(rows, values, strict=True)]
    return Plot(name, title, caption, draw, ["layer", *(str(column) for column in columns)], table, height)


def thin(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]


def every(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, from the first on, at equal distances."""
    return list(items[:: math.ceil(len(items) / most)])


def shorten(text: str, most: int) -> str:
    """Text cut in its middle, where two long names are mostly alike."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[len(text) - most // 2 :]}"


def legend(figure: Any, axes: Any, most: int = 58) -> None:
    """A legend below the axes, over no data, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        [shorten(label, most) for label in labels],
        loc="outside lower center",
        ncols=_columns(labels, most),
        handlelength=2.2,
        columnspacing=1.2,
    )


def legend_height(labels: Sequence[str], most: int = 58) -> float:
    """Inches that a legend of these labels takes."""
    return 0.19 * math.ceil(len(labels) / _columns(labels, most))


def whole_steps(axes: Any) -> None:
    """Few ticks, all at whole steps."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _columns(labels: Sequence[str], most: int) -> int:
    longest = max(min(len(label), most) for label in labels)
    return max(1, min(len(labels), 66 // (longest + 6)))


def _order_bar(figure: Any, axes: Any, lines: Sequence[Line]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(0, len(lines) - 1), course_map()), ax=axes, fraction=0.06, pad=0.02)
    bar.set_ticks([])
    bar.set_label("from the first to the last layer")


def _edges(places: Sequence[float], *, between: bool) -> list[float]:
    """Borders of cells around places, none of them outside the first and the last if ``between``."""
    if len(places) == 1:
        return [places[0] - 0.5, places[0] + 0.5]
    inner = [(a + b) / 2 for a, b in itertools.pairwise(places)]
    ends = (places[0], places[-1]) if between else (2 * places[0] - inner[0], 2 * places[-1] - inner[-1])
    return [ends[0], *inner, ends[1]]


def _mean(value: Any) -> float:
    return float(value[0] if isinstance(value, tuple) else value)


def _std(value: Any) -> float:
    return float(value[1] or 0.0) if isinstance(value, tuple) else 0.0
