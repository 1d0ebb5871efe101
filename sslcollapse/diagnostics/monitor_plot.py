"""The picture of a monitor's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from sslcollapse.diagnostics.layer_rank import LayerRank


def plot_record(rows: Sequence[LayerRank], spectra: Mapping[str, Tensor], path: Path) -> None:
    """Three panels: fraction of the attainable rank by depth at the last summary (the first one in grey), the outputs'
    over the summaries, and singular values over the largest, a line a layer, coloured by depth.
    """
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot: the caller's figures and backend stay as they are
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(15, 4.5), layout="constrained")
    by_depth, over_time, fan = figure.subplots(1, 3)
    colours = matplotlib.colormaps["viridis"]
    deepest = max(row.depth for row in rows) or 1
    steps = sorted({row.step for row in rows})

    for kind, marker in (("weight", "s"), ("output", "o")):
        for step, style in (
            (steps[0], dict(color="0.75")),
            (steps[-1], dict(color="C0" if kind == "weight" else "C1")),
        ):
            chosen = [row for row in rows if row.kind == kind and row.step == step]
            by_depth.plot(
                [row.depth for row in chosen],
                [row.fraction for row in chosen],
                marker,
                linestyle="-",
                label=f"{kind}, step {step}",
                **style,
            )
    by_depth.set(xlabel="depth of the layer", ylabel="effective rank / attainable", title="Rank by depth")
    by_depth.xaxis.set_major_locator(MaxNLocator(integer=True))
    by_depth.legend(fontsize="small")

    for layer, depth in {row.layer: row.depth for row in rows}.items():
        course = [row for row in rows if row.layer == layer and row.kind == "output"]
        colour = colours(depth / deepest)
        over_time.plot([row.step for row in course], [row.fraction for row in course], ".-", color=colour)
        _fan_line(fan, spectra.get(f"output/{layer}"), colour, "-")
        _fan_line(fan, spectra.get(f"weight/{layer}"), colour, ":")
    over_time.set(xlabel="step", ylabel="effective rank / attainable", title="Rank of outputs over time")
    over_time.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (by_depth, over_time):
        axes.set_ylim(0, max(1.05, axes.get_ylim()[1]))
        axes.axhline(1.0, color="0.5", linewidth=0.5)
    fan.set(
        xlabel="position in the spectrum",
        ylabel="σ / σ₁",
        yscale="log",
        ylim=(1e-4, 1.5),
        title="Spectra: outputs solid, weights dotted",
    )
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, deepest), colours)
    figure.colorbar(scale, ax=fan, label="depth")
    figure.savefig(path, dpi=120)


def _fan_line(axes: Any, sigma: Tensor | None, colour: Any, style: str) -> None:
    if sigma is None or not len(sigma) or not sigma[0] > 0:
        return
    axes.plot([(k + 0.5) / len(sigma) for k in range(len(sigma))], (sigma / sigma[0]).numpy(), style, color=colour)
