"""The picture of a diagnosis: a fan of spectra, coloured by depth, beside rank by depth."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sslcollapse.checkpoint import write_atomic
from sslcollapse.diagnose.diagnosis import Diagnosis, LayerReport, OutputReport, WeightReport
from sslcollapse.diagnose.verdict import COLLAPSED, COLLAPSED_BELOW, DEGRADING, DEGRADING_BELOW, HEALTHY
from sslcollapse.texts import printable

COLOURS = {HEALTHY: "#2a7f62", DEGRADING: "#e0a100", COLLAPSED: "#c8321f"}
_FLOOR = 1e-4
_MARKED = 3


def draw(diagnosis: Diagnosis, path: Path) -> None:
    """Write the picture: weights in the first row, outputs in a second one where there were data.

    Left, σ_k/σ₁ against k over the attainable rank: a healthy layer reaches the right edge, a collapsed one drops
    off a cliff. Right, effective rank over its reference by depth, with the thresholds.

    Raises:
        OSError, ValueError: a file that cannot be written, a suffix that is no picture's.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
    for (word, reference, entries), (left, right) in zip(rows, axes, strict=True):
        colours = _fan(figure, left, word, entries)
        _ranks(right, word, reference, entries)
        figure.colorbar(colours, ax=left, label="depth")
    figure.suptitle(printable(diagnosis.title), fontsize=10, parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.removeprefix(".") or "png", dpi=120)
    write_atomic(path, buffer.getvalue())


def _outputs(layers: Sequence[LayerReport], representation: OutputReport) -> list[tuple[str, int, OutputReport]]:
    entries = [(layer.name, layer.depth, layer.output) for layer in layers if layer.output is not None]
    last = max((layer.depth for layer in layers), default=-1)
    return [*entries, ("representation", last + 1, representation)]


def _fan(figure: Any, axis: Any, word: str, entries: Sequence[tuple[str, int, Any]]) -> Any:
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    deepest = max(depth for _, depth, _ in entries)
    colours = ScalarMappable(Normalize(0, max(deepest, 1)), matplotlib.colormaps["viridis"])
    for _, depth, part in entries:
        if part.sigma is None or not part.sigma[0]:
            continue
        sigma = np.maximum(part.sigma[: part.attainable] / part.sigma[0], _FLOOR / 10)
        place = np.arange(1, len(sigma) + 1) / part.attainable
        marker = "." if len(sigma) <= 2 else None
        axis.plot(place, sigma, color=colours.to_rgba(np.array(depth)), linewidth=1.1, alpha=0.85, marker=marker)
    axis.set(yscale="log", ylim=(_FLOOR, 1.3), xlim=(0, 1), title=f"spectra of the {word}")
    axis.set(xlabel="k / attainable rank", ylabel="σ$_k$ / σ$_1$")
    axis.grid(alpha=0.25)
    return colours


def _ranks(
    axis: Any, word: str, reference: str, entries: Sequence[tuple[str, int, WeightReport | OutputReport]]
) -> None:
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
    deepest = max(depth for _, depth, _ in entries)
    for k in worst[:_MARKED]:
        name, depth, _ = entries[k]
        beyond = depth > 0.6 * deepest
        axis.annotate(
            printable(name),
            (depth, shares[k]),
            parse_math=False,  # names may have dollar signs
            xytext=(-6 if beyond else 6, 5),
            textcoords="offset points",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
            ha="right" if beyond else "left",
        )
    axis.set(ylim=(0, max(1.15, 1.05 * max(shares))), title=f"rank of the {word} by depth")
    axis.set(xlabel="depth", ylabel=f"effective rank / that\n{reference}")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
