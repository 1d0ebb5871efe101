"""The picture of a monitor's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sslcollapse.rank.drawing import attainable_over_time, draw_spectrum, dress_spectra, relative

if TYPE_CHECKING:
    from sslcollapse.rank.record import LayerRank

_MARKERS = {"weight": "s", "output": "o"}


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

    for layer, depth in {row.layer: row.depth for row in rows}.items():
        course = [row for row in rows if row.layer == layer and row.kind == "output"]
        colour = colours(depth / deepest)
        over_time.plot([row.step for row in course], [row.fraction for row in course], ".-", color=colour)
        for kind, style in (("output", "-"), ("weight", ":")):
            _fan_line(fan, rows, spectra, f"{kind}/{layer}", color=colour, linestyle=style)
    over_time.set(xlabel="step", ylabel="effective rank / attainable", title="Rank of outputs over time")
    over_time.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes in (by_depth, over_time):
        axes.set_ylim(0, max(1.05, axes.get_ylim()[1]))
        axes.axhline(1.0, color="0.5", linewidth=0.5)
    dress_spectra(fan)
    fan.set_title("Spectra: outputs solid, weights dotted")
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, deepest), colours)
    figure.colorbar(scale, ax=fan, label="depth").ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.savefig(path, dpi=120)


def _fan_line(axes: Any, rows: Sequence[LayerRank], spectra: Mapping[str, Tensor], key: str, **style: Any) -> None:
    shares = relative(spectra[key].detach().cpu()) if key in spectra else None
    limits = attainable_over_time(rows, key)
    if shares is not None and limits:
        draw_spectrum(axes, shares, limits[max(limits)], **style)
