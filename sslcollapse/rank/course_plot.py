"""Pictures of the course of a training: rank by depth over time, and a spectrum's fan; of one run or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from sslcollapse.rank.drawing import (
    draw_spectrum,
    dress_spectra,
    layer_labels,
    relative,
    shorten,
    step_ticks,
    title_lines,
)

if TYPE_CHECKING:
    from sslcollapse.rank.record import LayerRank

PANEL = 3.7
"""Inches that a run's panel is wide."""

_LINES = 12
_TICKS = 6


def rank_heat_map(
    runs: Mapping[str, Sequence[LayerRank]],
    path: Path | str,
    *,
    kind: Literal["weight", "output"] = "output",
) -> None:
    """Write a heat map a run, side by side: layers by depth downwards, summaries to the right, colour the fraction.

    Args:
        runs: title → rows, such as a monitor's ``history``.
        path: of the picture; the ending says which format.
        kind: whose rank, that of outputs or of weights.

    Raises:
        ValueError: no run has a row of that kind.
    """
    most = max(len(_names(rows, kind)) for rows in runs.values())
    row = min(0.42, 10 / most)  # inches
    figure, axes = _panels(list(runs), height=max(1.3 + row * most, 2.4))
    image = None
    for axis, rows in zip(axes, runs.values(), strict=True):
        names, steps, cells = heat_map_cells(rows, kind)
        image = axis.imshow(cells, aspect="auto", cmap="magma", vmin=0, vmax=1, interpolation="nearest")
        labels, shared = layer_labels(names)
        axis.set(xlabel="step", yticks=range(len(names)))
        axis.set_yticklabels(labels, fontsize=min(8, 50 * row), parse_math=False)  # names may have dollar signs
        if axis is axes[0]:
            axis.set_ylabel(
                "layer, first to last" + (f"\n({shorten(shared, 40)}…)" if shared else ""), parse_math=False
            )
        shown = step_ticks(steps, PANEL - 0.4, _TICKS)
        axis.set_xticks(shown, [f"{steps[k]:,}" for k in shown])
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=max(20, 6 * row * most))
    bar.set_label(f"effective rank of {kind}s,\nof what is attainable", fontsize=9)
    bar.outline.set_visible(False)
    figure.savefig(path, dpi=110)


def heat_map_cells(
    rows: Sequence[LayerRank], kind: Literal["weight", "output"]
) -> tuple[list[str], list[int], np.ndarray]:
    """Names of layers by depth, steps, and the fraction [layers, steps]; NaN where there is no row.

    Raises:
        ValueError: there is no row of that kind.
    """
    names, steps = _names(rows, kind), sorted({row.step for row in rows if row.kind == kind})
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
        for step in drawn_steps(spectra):
            shares = relative(spectra[step].detach().cpu())
            if shares is not None:
                limit = limits.get(step, len(shares))
                draw_spectrum(axis, shares, limit, color=scale.to_rgba(np.array(step)), linewidth=1.4)
        dress_spectra(axis)
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
