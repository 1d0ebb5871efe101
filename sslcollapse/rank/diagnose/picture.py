"""Pictures of a diagnosis, of a comparison and of a series."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sslcollapse.core.files import write_atomic
from sslcollapse.core.texts import printable
from sslcollapse.rank.diagnose.diagnosis import Diagnosis, LayerReport
from sslcollapse.rank.diagnose.verdicts import (
    COLLAPSED,
    COLLAPSED_BELOW,
    DEGRADING,
    DEGRADING_BELOW,
    HEALTHY,
    Judged,
)
from sslcollapse.rank.plots import draw_fan, draw_heat_map, layer_labels, shorten, step_ticks

if TYPE_CHECKING:
    from sslcollapse.rank.diagnose.series import Series

_COLOURS = {HEALTHY: "#2a7f62", DEGRADING: "#e0a100", COLLAPSED: "#c8321f"}
_MARKED = 3


def draw(diagnosis: Diagnosis, path: Path) -> Any:
    """Write the picture (``figure_of``), and return it.

    Raises:
        OSError, ValueError: a file that cannot be written, a suffix that is no picture's.
    """
    return write_figure(figure_of(diagnosis), path)


def write_figure(figure: Any, path: Path) -> Any:
    """Write a matplotlib figure, and return it; the suffix says in which format."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.removeprefix(".") or "png", dpi=120)
    write_atomic(path, buffer.getvalue())
    return figure


def figure_of(diagnosis: Diagnosis) -> Any:
    """The picture: weights in the first row, outputs in a second one where there were data.

    Left, σ_k/σ₁ against k over the attainable rank: a healthy layer reaches the dashed mark, a collapsed one drops
    off a cliff before it. Right, effective rank over its reference by depth, with the thresholds.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows: list[tuple[str, str, list[tuple[str, int, Judged]]]] = [
        (
            "weights",
            "of a random matrix of its shape",
            [(layer.name, layer.depth, layer.weight) for layer in diagnosis.layers],
        )
    ]
    if diagnosis.representation is not None:
        rows.append(("outputs", "of the untrained network", _outputs(diagnosis.layers, diagnosis.representation)))
    figure = Figure(figsize=(11, 4.2 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), 2, squeeze=False)
    deepest = max(depth for *_, entries in rows for _, depth, _ in entries)
    colours = ScalarMappable(Normalize(0, max(deepest, 1)), matplotlib.colormaps["viridis"])
    for (word, reference, entries), (left, right) in zip(rows, axes, strict=True):
        _fan(left, word, entries, colours)
        _ranks(right, word, reference, entries)
        figure.colorbar(colours, ax=left, label="depth").ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    title = shorten(printable(diagnosis.title), 120)
    figure.suptitle(title, fontsize=10, parse_math=False)  # names may have dollar signs
    return figure


def _outputs(layers: Sequence[LayerReport], representation: Judged) -> list[tuple[str, int, Judged]]:
    entries = [(layer.name, layer.depth, layer.output) for layer in layers if layer.output is not None]
    last = max((layer.depth for layer in layers), default=-1)
    return [*entries, ("representation", last + 1, representation)]


def _fan(axis: Any, word: str, entries: Sequence[tuple[str, int, Judged]], colours: Any) -> None:
    draw_fan(
        axis,
        (
            (
                part.sigma,
                part.rank.reachable,
                {"color": colours.to_rgba(np.array(depth)), "linewidth": 1.1, "alpha": 0.85},
            )
            for _, depth, part in entries
            if part.sigma is not None
        ),
    )
    axis.set_title(f"spectra of the {word}")


def _ranks(axis: Any, word: str, reference: str, entries: Sequence[tuple[str, int, Judged]]) -> None:
    from matplotlib.ticker import MaxNLocator

    shares = [part.share for *_, part in entries]
    for verdict, colour in _COLOURS.items():
        chosen = [k for k, (*_, part) in enumerate(entries) if part.verdict == verdict]
        axis.scatter(
            [entries[k][1] for k in chosen],
            [shares[k] for k in chosen],
            color=colour,
            s=26,
            label=f"{verdict} ({len(chosen)})",
            zorder=3,
        )
    for threshold, verdict in ((DEGRADING_BELOW, DEGRADING), (COLLAPSED_BELOW, COLLAPSED)):
        axis.axhline(threshold, color=_COLOURS[verdict], linewidth=1, linestyle="--")
    worst = sorted((k for k, (*_, part) in enumerate(entries) if part.verdict != HEALTHY), key=shares.__getitem__)
    names, _ = layer_labels([name for name, *_ in entries])
    top = max(1.15, 1.05 * max(shares)) * (1.25 if worst else 1.0)  # room for names, above all points
    if worst:
        lines = [f"{names[k]}: {shares[k]:.2f} at depth {entries[k][1]}" for k in worst[:_MARKED]]
        lowest = "\n".join(["lowest:", *lines])
        axis.text(0.98, 0.97, lowest, transform=axis.transAxes, ha="right", va="top", fontsize=8, parse_math=False)
    axis.set(ylim=(0, top), title=f"rank of the {word} by depth")
    axis.set(xlabel="depth", ylabel=f"effective rank / that\n{reference}")
    axis.grid(alpha=0.25)
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False)


def series_figure(series: Series) -> Any:
    """Heat maps of the share of the reference rank: layers downwards, steps to the right; a map for each part."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    courses, steps = series.courses, sorted(series.diagnoses)
    parts = [part for part in ("weight", "output") if any(own == part for _, own in courses)]
    names = {part: [layer for layer, own in courses if own == part] for part in parts}
    most = max(len(own) for own in names.values())
    figure = Figure(figsize=(1.8 + 4.2 * len(parts), max(2.6, 1.3 + min(0.42, 10 / most) * most)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, len(parts), squeeze=False)[0])
    image: Any = None
    for axis, part in zip(axes, parts, strict=True):
        cells = np.full((len(names[part]), len(steps)), np.nan)
        for row, layer in enumerate(names[part]):
            for step, share, _ in courses[layer, part]:
                cells[row, steps.index(step)] = min(share, 1.0)
        image = draw_heat_map(axis, cells, "magma")
        labels, _ = layer_labels(names[part])
        axis.set(xlabel="step", yticks=[k + 0.5 for k in range(len(labels))], title=f"{part}s")
        axis.set_yticklabels(labels, fontsize=min(8, 300 / most), parse_math=False)
        shown = step_ticks(steps, 3.6)
        axis.set_xticks([k + 0.5 for k in shown], [f"{steps[k]:,}" for k in shown])
    figure.colorbar(image, ax=axes, pad=0.02).set_label("effective rank / reference", fontsize=9)
    return figure
