"""The picture of a diagnosis: a fan of spectra, coloured by depth, beside rank by depth."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sslcollapse.core.files import write_atomic
from sslcollapse.core.texts import printable
from sslcollapse.rank.diagnose.diagnosis import Diagnosis, LayerReport, OutputReport, WeightReport
from sslcollapse.rank.diagnose.verdict import COLLAPSED, COLLAPSED_BELOW, DEGRADING, DEGRADING_BELOW, HEALTHY
from sslcollapse.rank.drawing import draw_spectrum, dress_spectra, layer_labels, relative, shorten

COLOURS = {HEALTHY: "#2a7f62", DEGRADING: "#e0a100", COLLAPSED: "#c8321f"}
_MARKED = 3


def draw(diagnosis: Diagnosis, path: Path) -> None:
    """Write the picture: weights in the first row, outputs in a second one where there were data.

    Left, σ_k/σ₁ against k over the attainable rank: a healthy layer reaches the dashed mark, a collapsed one drops
    off a cliff before it. Right, effective rank over its reference by depth, with the thresholds.

    Raises:
        OSError, ValueError: a file that cannot be written, a suffix that is no picture's.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows: list[tuple[str, str, list[tuple[str, int, Any]]]] = [
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.removeprefix(".") or "png", dpi=120)
    write_atomic(path, buffer.getvalue())


def _outputs(layers: Sequence[LayerReport], representation: OutputReport) -> list[tuple[str, int, OutputReport]]:
    entries = [(layer.name, layer.depth, layer.output) for layer in layers if layer.output is not None]
    last = max((layer.depth for layer in layers), default=-1)
    return [*entries, ("representation", last + 1, representation)]


def _fan(axis: Any, word: str, entries: Sequence[tuple[str, int, Any]], colours: Any) -> None:
    for _, depth, part in entries:
        shares = None if part.sigma is None else relative(part.sigma)
        if shares is not None:
            style = {"color": colours.to_rgba(np.array(depth)), "linewidth": 1.1, "alpha": 0.85}
            draw_spectrum(axis, shares, part.attainable, **style)
    dress_spectra(axis)
    axis.set_title(f"spectra of the {word}")


def _ranks(
    axis: Any, word: str, reference: str, entries: Sequence[tuple[str, int, WeightReport | OutputReport]]
) -> None:
    from matplotlib.ticker import MaxNLocator

    shares = [0.0 if not part.effective_rank else part.effective_rank / (part.reference or 1.0) for *_, part in entries]
    for verdict, colour in COLOURS.items():
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
        axis.axhline(threshold, color=COLOURS[verdict], linewidth=1, linestyle="--")
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
