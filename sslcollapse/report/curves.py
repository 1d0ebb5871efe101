"""Plots that several pages share: lines over steps, and a heat map of layers over steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sslcollapse.rank.plots import draw_heat_map, layer_labels
from sslcollapse.report.plot import WIDTH, Plot, depth_map, fits, text_inches, wrap
from sslcollapse.report.scale import Key

MANY = 7
"""Up to so many lines have colours of their own; more are coloured by their order."""

MAX_COLUMNS = 60
MAX_LABELS = 26

AXIS_NAME = 2.1
"""Inches that the name of an upright axis may take; a longer one has two lines."""

NAMES_UPRIGHT = 1.2
"""Inches that names below columns may take where they stand upright; more is cut."""

_MARKS = 8
_LEGEND, _TICK = 8.5, 8.5
"""Points; those of the style."""


class Line(NamedTuple):
    """One line: its label; step → value, or step → (mean, standard deviation or None); colour, dash and marker."""

    label: str
    points: Mapping[int, Any]
    look: Mapping[str, Any] = Key(()).line()


def course(
    name: str, title: str, caption: str, ylabel: str, lines: Sequence[Line], *, ordered: bool = False
) -> Plot | None:
    """Lines over steps; None where no line has a finite value.

    ``ordered=True`` says that the lines have an order (depth); where they are many they are coloured by it.
    """
    lines = [line for line in lines if any(math.isfinite(_mean(value)) for value in line.points.values())]
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
            style = dict(line.look)
            if by_order:
                style = {"color": depth_map()(index / (len(lines) - 1)), "linewidth": 1.1}
            places = sorted(line.points)
            means = [_mean(line.points[step]) for step in places]
            if len(places) < 3:
                style.setdefault("marker", "o")
            style["markevery"] = max(len(places) // _MARKS, 1)
            axes.plot(places, means, label=line.label, **style)
            stds = [_std(line.points[step]) for step in places]
            if any(stds):
                below, above = ([m + sign * s for m, s in zip(means, stds, strict=True)] for sign in (-1, 1))
                axes.fill_between(places, below, above, color=style["color"], alpha=0.18, linewidth=0)
        axes.set(xlabel="step", ylabel="\n".join(wrap(ylabel, AXIS_NAME, 9.5, 2)))
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
    chosen = thin(range(len(columns)), MAX_COLUMNS)
    named = every(chosen, MAX_LABELS)
    names = [str(columns[k]) for k in named]
    labels, shared = layer_labels(rows)
    slot = (WIDTH - 0.9 - max(text_inches(text, _TICK) for text in labels)) / len(names) - 0.06
    upright = not numeric and not all(fits(text, slot, _TICK, 2) for text in names)
    names = ["\n".join(wrap(text, NAMES_UPRIGHT if upright else slot, _TICK, 1 if upright else 2)) for text in names]
    slim = min(max(14.0, 3.0 * len(rows)), 40.0)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        places = [columns[k] for k in chosen] if numeric else chosen
        mesh = draw_heat_map(axes, cells[:, chosen], "viridis", _edges(places, between=numeric))
        shown = every(range(len(rows)), MAX_LABELS)
        axes.set_yticks([k + 0.5 for k in shown], [labels[k] for k in shown])
        axes.set_xlabel(xlabel)
        if numeric:
            whole_steps(axes)
        else:
            axes.set_xticks(named, names, rotation=90 if upright else 0)
        axes.tick_params(length=2)
        figure.colorbar(mesh, ax=axes, label=label, fraction=0.06, pad=0.02, aspect=slim)

    below = max(text_inches(text, _TICK) for text in names) if upright else 0.15
    height = min(0.85 + max(0.26 * len(rows), 1.3) + below, 7.0)
    table = [[row, *line] for row, line in zip(rows, values, strict=True)]
    caption = f"{caption} Names without {shared} at their beginning." if shared else caption
    return Plot(name, title, caption, draw, ["layer", *(str(column) for column in columns)], table, height)


def thin(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]


def every(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, from the first on, at equal distances."""
    return list(items[:: math.ceil(len(items) / most)])


def legend(figure: Any, axes: Any) -> None:
    """A legend below the axes, over no data, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        ["\n".join(lines) for lines in map(_legend_lines, labels)],
        loc="outside lower center",
        ncols=_columns(labels),
        handlelength=2.2,
        columnspacing=1.2,
    )


def legend_height(labels: Sequence[str]) -> float:
    """Inches that a legend of these labels takes."""
    columns = _columns(labels)
    lines = [len(_legend_lines(label)) for label in labels]
    down = math.ceil(len(labels) / columns)  # columns are filled one after the other
    return max(0.155 * sum(lines[k : k + down]) + 0.045 * down for k in range(0, len(labels), down))


def whole_steps(axes: Any) -> None:
    """Few ticks, all at whole steps."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _columns(labels: Sequence[str]) -> int:
    widest = max(max(text_inches(line, _LEGEND) for line in _legend_lines(label)) for label in labels)
    room = max(1, min(len(labels), int((WIDTH - 0.1) / (widest + 0.55))))
    return math.ceil(len(labels) / math.ceil(len(labels) / room))


def _legend_lines(label: str) -> list[str]:
    return wrap(label, WIDTH - 0.8, _LEGEND, 2)


def _order_bar(figure: Any, axes: Any, lines: Sequence[Line]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(0, len(lines) - 1), depth_map()), ax=axes, fraction=0.06, pad=0.02)
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
