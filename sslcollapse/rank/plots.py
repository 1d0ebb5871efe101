"""Every picture of ranks: spectra against what they can attain, and ranks of layers over time, drawn in one way.

``draw_fan`` and ``draw_heat_map`` draw on anyone's axes; pages of a report and the picture of a diagnosis use them too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sslcollapse.core.texts import printable

if TYPE_CHECKING:
    from torch import Tensor

    from sslcollapse.rank.record import LayerRank

FLOOR = 1e-4
"""What is smaller is drawn at the lower edge: it carries less than 1e-8 of the energy."""

BEYOND = 1.06
"""So far past what is attainable a spectrum is drawn. A bias can have a direction there."""

LAYER_LETTERS = 26
"""Longer names of layers are cut in their middle."""

PANEL = 3.7
"""Inches that a run's panel is wide."""

_LINES = 12
_TICKS = 6
_MARKERS = {"weight": "s", "output": "o"}


def relative(sigma: Any) -> np.ndarray | None:
    """σ_k/σ_1, descending; None of what is no spectrum, of zeros, and of what is not finite."""
    values = np.asarray(sigma.detach().cpu() if hasattr(sigma, "detach") else sigma)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "fiu":
        return None
    if not np.isfinite(values).all() or not values.max() > 0:
        return None
    descending = np.sort(values.astype(np.float64))[::-1]
    return descending / descending[0]


def attainable_over_time(rows: Sequence[LayerRank], key: str) -> dict[int, int]:
    """Step → the rank that a monitor's spectrum ``output/<layer>`` or ``weight/<layer>`` can attain.

    That of an output is its weight's where that is smaller: a map from 64 dimensions to 256 has 64.
    """
    return {row.step: row.reachable for row in rows if row.point.key == key}


def draw_fan(axes: Any, lines: Iterable[tuple[Any, int | None, Mapping[str, Any]]]) -> None:
    """σ_k/σ_1 against k over the attainable rank, a line a spectrum, and a dashed mark where the attainable rank ends.

    Args:
        axes: matplotlib's.
        lines: singular values (or shares of the largest), the largest rank that their origin allows (by default as many
            as there are), and colour, width and the like; what is no spectrum has no line.
    """
    for sigma, attainable, style in lines:
        shares = relative(sigma)
        if shares is not None:
            _draw_spectrum(axes, shares, attainable or len(shares), **style)
    axes.set(yscale="log", ylim=(FLOOR, 1.3), xlim=(0, BEYOND), xlabel="k / attainable rank", ylabel="σₖ / σ₁")
    axes.axvline(1.0, color=axes.xaxis.label.get_color(), linestyle="--", linewidth=0.9, alpha=0.6)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(True, alpha=0.25, linewidth=0.6)


def draw_heat_map(axes: Any, cells: np.ndarray, colours: str, borders: Sequence[float] | None = None) -> Any:
    """Fractions [rows, columns] as colours from 0 to 1, the first row on top; NaN is left blank; → what a bar is of.

    Row k lies between k and k + 1.

    Args:
        axes: matplotlib's.
        cells: the fractions.
        colours: name of the colour map.
        borders: of the columns, one more than there are; by default column k lies between k and k + 1.
    """
    rows, columns = cells.shape
    borders = range(columns + 1) if borders is None else borders
    mesh = axes.pcolormesh(borders, np.arange(rows + 1), cells, vmin=0, vmax=1, cmap=colours, linewidth=0.5)
    mesh.set_edgecolor("face")  # no light seams between cells
    axes.set_ylim(rows, 0)
    axes.spines[:].set_visible(False)
    return mesh


def shorten(text: str, most: int) -> str:
    """Text cut in its middle, where two long names are mostly alike."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[len(text) - most // 2 :]}"


def layer_labels(names: Sequence[str], most: int = LAYER_LETTERS) -> tuple[list[str], str]:
    """Names of layers without what all begin with, cut to a length; and what they begin with, "" of nothing.

    The part that is dropped ends at a dot: ``backbone.0`` and ``backbone.1`` are ``0`` and ``1`` of ``backbone.``.
    """
    names = [printable(name) for name in names]
    if len(names) < 2 or max(map(len, names)) <= most:
        return [shorten(name, most) for name in names], ""
    parts = zip(*(name.split(".")[:-1] for name in names), strict=False)
    same = [part[0] for part in itertools.takewhile(lambda part: len(set(part)) == 1, parts)]
    shared = "".join(f"{part}." for part in same)
    return [shorten(name[len(shared) :], most) for name in names], shared


def step_ticks(steps: Sequence[int], inches: float, most: int = 6) -> list[int]:
    """Indices of those steps whose labels have room beside each other: the first and the last, evenly between."""
    widest = max(len(f"{step:,}") for step in steps) * 0.085 + 0.12
    count = max(min(most, len(steps), int(inches / widest)), 1)
    return [] if not len(steps) else sorted({round(k) for k in np.linspace(0, len(steps) - 1, count)})


def title_lines(text: str, inches: float, size: float = 12.0) -> str:
    """A title in lines that are no wider than its panel, cut after the third."""
    from textwrap import wrap

    lines = wrap(text, max(int(inches * 72 / (0.6 * size)), 8)) or [""]
    return "\n".join(
        [*lines[:2], shorten(" ".join(lines[2:]), int(inches * 72 / (0.6 * size)))] if lines[2:] else lines
    )


def rank_heat_map(
    runs: Mapping[str, Sequence[LayerRank]],
    path: Path | str,
    *,
    kind: Literal["weight", "output"] = "output",
) -> None:
    """Write a heat map a run, side by side: layers by depth downwards, summaries to the right, colour the fraction.

    A row is one layer in all of them, blank where a run has no such layer.

    Args:
        runs: title → rows, such as a monitor's ``history``.
        path: of the picture; the ending says which format.
        kind: whose rank, that of outputs or of weights.

    Raises:
        ValueError: no run has a row of that kind.
    """
    layers = list(dict.fromkeys(name for rows in runs.values() for name in _names(rows, kind)))
    labels, shared = layer_labels(layers)
    most = len(layers)
    row = min(0.42, 10 / most)  # inches
    figure, axes = _panels(list(runs), height=max(1.3 + row * most, 2.4))
    image = None
    for axis, rows in zip(axes, runs.values(), strict=True):
        _, steps, cells = heat_map_cells(rows, kind, layers)
        image = draw_heat_map(axis, cells, "magma")
        axis.set(xlabel="step", yticks=[k + 0.5 for k in range(most)])
        axis.set_yticklabels(labels, fontsize=min(8, 50 * row), parse_math=False)  # names may have dollar signs
        if axis is axes[0]:
            axis.set_ylabel(
                "layer, first to last" + (f"\n({shorten(shared, 40)}…)" if shared else ""), parse_math=False
            )
        shown = step_ticks(steps, PANEL - 0.4, _TICKS)
        axis.set_xticks([k + 0.5 for k in shown], [f"{steps[k]:,}" for k in shown])
        axis.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=max(20, 6 * row * most))
    bar.set_label(f"effective rank of {kind}s,\nof what is attainable", fontsize=9)
    bar.outline.set_visible(False)
    figure.savefig(path, dpi=110)


def heat_map_cells(
    rows: Sequence[LayerRank], kind: Literal["weight", "output"], layers: Sequence[str] = ()
) -> tuple[list[str], list[int], np.ndarray]:
    """Names of layers by depth, or those given, steps, and the fraction [layers, steps]; NaN where there is no row.

    Raises:
        ValueError: there is no row of that kind.
    """
    names, steps = list(layers) or _names(rows, kind), sorted({row.step for row in rows if row.kind == kind})
    cells = np.full((len(names), len(steps)), np.nan)
    for row in rows:
        if row.kind == kind:
            cells[names.index(row.layer), steps.index(row.step)] = row.fraction
    return names, steps, cells


def spectrum_fan(
    runs: Mapping[str, Mapping[int, Tensor]],
    path: Path | str,
    *,
    attainable: Mapping[str, Mapping[int, int]] | None = None,
) -> None:
    """Write a fan a run, side by side: σ_k/σ₁ against k over the attainable rank, a line a step (at most twelve).

    Args:
        runs: title → step → singular values, descending, such as ``monitor.spectra_over_time("output/encoder.0")``.
        path: of the picture; the ending says which format.
        attainable: title → step → the largest rank that the layer allows, such as
            ``attainable_over_time(monitor.history, "output/encoder.0")``; by default the number of singular values,
            which is too much for the outputs of a layer that widens.

    Raises:
        ValueError: a run without a spectrum.
    """
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    for title, spectra in runs.items():
        if not spectra:
            raise ValueError(f"{title!r} has no spectrum to draw")
    figure, axes = _panels(list(runs), height=3.4)
    steps = [step for spectra in runs.values() for step in spectra]
    scale = matplotlib.cm.ScalarMappable(
        matplotlib.colors.Normalize(min(steps), max(max(steps), min(steps) + 1)), matplotlib.colormaps["viridis_r"]
    )
    for axis, (title, spectra) in zip(axes, runs.items(), strict=True):
        limits = (attainable or {}).get(title, {})
        looks = {step: {"color": scale.to_rgba(np.array(step)), "linewidth": 1.4} for step in drawn_steps(spectra)}
        draw_fan(axis, ((spectra[step], limits.get(step), look) for step, look in looks.items()))
        axis.spines[["top", "right"]].set_visible(False)
        if axis is not axes[0]:
            axis.set_ylabel("")
    bar = figure.colorbar(scale, ax=axes, pad=0.02)
    bar.ax.yaxis.set_major_locator(MaxNLocator(_TICKS, integer=True))
    bar.set_label("step", fontsize=9)
    bar.outline.set_visible(False)
    figure.savefig(path, dpi=110)


def drawn_steps(spectra: Mapping[int, Tensor]) -> list[int]:
    """Those steps of a fan that have a line: the first and the last, and at most ten evenly between."""
    ordered = sorted(spectra)
    places = np.unique(np.linspace(0, len(ordered) - 1, min(_LINES, len(ordered))).round().astype(int))
    return [ordered[k] for k in places]


def plot_record(rows: Sequence[LayerRank], spectra: Mapping[str, Tensor], path: Path) -> None:
    """Three panels: fraction of the attainable rank by depth at the last summary (the first one in grey), the outputs'
    over the summaries, and singular values over the largest against k over the attainable rank, a line a layer.

    A colour is a depth, in the last two panels alike. Weights are squares and dotted lines, outputs circles and solid.
    """
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot: the caller's figures and backend stay as they are
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(15, 4.5), layout="constrained")
    by_depth, over_time, fan = figure.subplots(1, 3)
    colours = matplotlib.colormaps["viridis"]
    deepest = max(row.depth for row in rows) or 1
    steps = sorted({row.step for row in rows})

    for kind, marker in _MARKERS.items():
        for step in dict.fromkeys((steps[0], steps[-1])):
            chosen = [row for row in rows if row.kind == kind and row.step == step]
            by_depth.plot(
                [row.depth for row in chosen],
                [row.fraction for row in chosen],
                marker,
                linestyle=":" if kind == "weight" else "-",
                color="black" if step == steps[-1] else "0.7",
                label=f"{kind}, step {step:,}",
            )
    by_depth.set(xlabel="depth of the layer", ylabel="effective rank / attainable", title="Rank by depth")
    by_depth.xaxis.set_major_locator(MaxNLocator(integer=True))
    by_depth.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)

    lines: list[tuple[Any, int | None, Mapping[str, Any]]] = []
    for layer, depth in {row.layer: row.depth for row in rows}.items():
        course = [row for row in rows if row.layer == layer and row.kind == "output"]
        colour = colours(depth / deepest)
        over_time.plot([row.step for row in course], [row.fraction for row in course], ".-", color=colour)
        for kind, style in (("output", "-"), ("weight", ":")):
            limits = attainable_over_time(rows, key := f"{kind}/{layer}")
            if limits and key in spectra:
                lines.append((spectra[key], limits[max(limits)], {"color": colour, "linestyle": style}))
    over_time.set(xlabel="step", ylabel="effective rank / attainable", title="Rank of outputs over time")
    over_time.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes in (by_depth, over_time):
        axes.set_ylim(0, max(1.05, axes.get_ylim()[1]))
        axes.axhline(1.0, color="0.5", linewidth=0.5)
    draw_fan(fan, lines)
    fan.set_title("Spectra: outputs solid, weights dotted")
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, deepest), colours)
    figure.colorbar(scale, ax=fan, label="depth").ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.savefig(path, dpi=120)


def _draw_spectrum(axes: Any, shares: np.ndarray, attainable: int, **style: Any) -> None:
    shown = shares[: max(int(BEYOND * attainable), 1)]
    if len(shown) < 3:
        style.setdefault("marker", ".")
    places = np.arange(1, len(shown) + 1) / attainable
    axes.plot(places, np.maximum(shown, FLOOR / 10), **style)


def _names(rows: Sequence[LayerRank], kind: str) -> list[str]:
    names = list(dict.fromkeys(row.layer for row in sorted(rows, key=lambda row: row.depth) if row.kind == kind))
    if not names:
        raise ValueError(f"there is no row of kind {kind!r} to draw")
    return names


def _panels(titles: Sequence[str], height: float) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure  # not pyplot: the caller's figures and backend stay as they are

    figure = Figure(figsize=(1.6 + PANEL * len(titles), height), layout="constrained")
    axes = list(figure.subplots(1, len(titles), sharey=True, squeeze=False)[0])
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title_lines(title, PANEL - 0.3), parse_math=False)
    return figure, axes
