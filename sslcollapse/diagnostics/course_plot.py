"""Pictures of the course of a training: rank by depth over time, and a spectrum's fan; of one run or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from sslcollapse.diagnostics.layer_rank import LayerRank

_FLOOR = 1e-4
_LINES = 12
_TICKS = 6


def rank_heat_map(
    runs: Mapping[str, Sequence[LayerRank]], path: Path | str, *, kind: Literal["weight", "output"] = "output"
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
    figure, axes = _panels(len(runs), height=1.3 + row * most)
    image = None
    for axis, (title, rows) in zip(axes, runs.items(), strict=True):
        names, steps, cells = heat_map_cells(rows, kind)
        image = axis.imshow(cells, aspect="auto", cmap="magma", vmin=0, vmax=1, interpolation="nearest")
        axis.set(title=title, xlabel="step", yticks=range(len(names)))
        axis.set_yticklabels(names, fontsize=min(8, 50 * row))
        shown = np.unique(np.linspace(0, len(steps) - 1, min(_TICKS, len(steps))).round().astype(int))
        axis.set_xticks(shown, [f"{steps[k]:,}" for k in shown])
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel("layer, first to last")
    bar = figure.colorbar(image, ax=axes, pad=0.02)
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


def spectrum_fan(runs: Mapping[str, Mapping[int, Tensor]], path: Path | str) -> None:
    """Write a fan a run, side by side: σ_k/σ₁ against k, a line a step (at most twelve), coloured by step.

    Args:
        runs: title → step → singular values, descending, such as ``monitor.spectra_over_time("output/encoder.0")``.
        path: of the picture; the ending says which format.

    Raises:
        ValueError: a run without a spectrum.
    """
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    for title, spectra in runs.items():
        if not spectra:
            raise ValueError(f"{title!r} has no spectrum to draw")
    figure, axes = _panels(len(runs), height=3.4)
    steps = [step for spectra in runs.values() for step in spectra]
    scale = matplotlib.cm.ScalarMappable(
        matplotlib.colors.Normalize(min(steps), max(max(steps), min(steps) + 1)), matplotlib.colormaps["viridis_r"]
    )
    for axis, (title, spectra) in zip(axes, runs.items(), strict=True):
        ordered = sorted(spectra)
        for k in np.unique(np.linspace(0, len(ordered) - 1, min(_LINES, len(ordered))).round().astype(int)):
            sigma = spectra[ordered[k]].double().numpy()
            if not len(sigma) or not sigma[0] > 0:
                continue
            place, colour = np.arange(1, len(sigma) + 1), scale.to_rgba(ordered[k])
            axis.plot(place, np.maximum(sigma / sigma[0], _FLOOR / 10), color=colour, linewidth=1.4)
        axis.set(title=title, xlabel="k", yscale="log", ylim=(_FLOOR, 1.5))
        axis.xaxis.set_major_locator(MaxNLocator(_TICKS, integer=True))
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("singular value σ$_k$ / σ$_1$")
    bar = figure.colorbar(scale, ax=axes, pad=0.02)
    bar.ax.yaxis.set_major_locator(MaxNLocator(_TICKS, integer=True))
    bar.set_label("step", fontsize=9)
    bar.outline.set_visible(False)
    figure.savefig(path, dpi=110)


def _names(rows: Sequence[LayerRank], kind: str) -> list[str]:
    names = list(dict.fromkeys(row.layer for row in sorted(rows, key=lambda row: row.depth) if row.kind == kind))
    if not names:
        raise ValueError(f"there is no row of kind {kind!r} to draw")
    return names


def _panels(count: int, height: float) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure  # not pyplot: the caller's figures and backend stay as they are

    figure = Figure(figsize=(1.6 + 3.7 * count, height), layout="constrained")
    return figure, list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
