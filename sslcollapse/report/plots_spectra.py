"""Spectrum fans: σ_k/σ_1 of a weight or of activations, a line a measured step, or a line a run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sslcollapse.report.curves import legend, legend_height, thin
from sslcollapse.report.plot import Plot, slug
from sslcollapse.report.plots_run import WORDS, Named
from sslcollapse.report.runs import Run
from sslcollapse.report.style import course_map, line_style

FLOOR = 1e-4
"""What is smaller is drawn at the lower edge: it carries less than 1e-8 of the energy."""

MAX_LINES = 24


def fans(run: Run) -> list[Plot]:
    """A fan for every spectrum that was stored, weights first, then activations and features, by depth."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for step, arrays in run.spectra():
        for name, sigma in arrays.items():
            if (shares := relative(sigma)) is not None:
                found.setdefault(name, {})[step] = shares
    return [_fan(name, found[name]) for name in _by_kind(found)]


def last_spectra(runs: Sequence[Named]) -> list[Plot]:
    """The spectra of the last measured step, a plot a layer, a line a run."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for label, run in runs:
        for _, arrays in itertools.islice(run.spectra(newest_first=True), 1):
            for name, sigma in arrays.items():
                if (shares := relative(sigma)) is not None:
                    found.setdefault(name, {})[label] = shares
    return [_comparison(name, found[name], [label for label, _ in runs]) for name in _by_kind(found)]


def relative(sigma: np.ndarray) -> np.ndarray | None:
    """σ_k/σ_1, descending; None of what is no spectrum, of zeros, and of what is not finite."""
    if (
        sigma.ndim != 1
        or not len(sigma)
        or sigma.dtype.kind not in "fiu"
        or not np.isfinite(sigma).all()
        or not sigma.max() > 0
    ):
        return None
    descending = np.sort(sigma.astype(np.float64))[::-1]
    return descending / descending[0]


def _by_kind(found: Mapping[str, Any]) -> list[str]:
    kinds = ("weight", "output")
    return sorted(found, key=lambda name: kinds.index(kind) if (kind := name.partition("/")[0]) in kinds else 2)


def _fan(name: str, lines: Mapping[int, np.ndarray]) -> Plot:
    steps = sorted(lines)
    drawn = thin(steps, MAX_LINES)
    colours = course_map()

    def draw(figure: Any) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        axes = figure.subplots()
        scale = ScalarMappable(Normalize(steps[0], max(steps[-1], steps[0] + 1)), colours)
        for step in drawn:
            _line(axes, lines[step], color=scale.to_rgba(np.array(step)), linewidth=1.1)
        _dress(axes)
        bar = figure.colorbar(scale, ax=axes, label="step", fraction=0.06, pad=0.02)
        bar.outline.set_visible(False)

    caption = "" if drawn == steps else f"{len(drawn)} of {len(steps)} measured steps are drawn; the CSV has all."
    return _plot("fan", name, caption, draw, {str(step): lines[step] for step in steps}, 3.2)


def _comparison(name: str, lines: Mapping[str, np.ndarray], labels: Sequence[str]) -> Plot:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for index, label in enumerate(labels):
            if label in lines:
                _line(axes, lines[label], label=label, **line_style(index))
        _dress(axes)
        legend(figure, axes)

    return _plot("spectrum", name, "", draw, lines, 3.2 + legend_height(list(lines)))


def _plot(stem: str, name: str, caption: str, draw: Any, lines: Mapping[str, np.ndarray], height: float) -> Plot:
    kind, _, layer = name.partition("/")
    title = f"{WORDS.get(kind, kind).capitalize()} of {layer}" if layer else kind.capitalize()
    longest = max(map(len, lines.values()))
    rows = [[k + 1, *(float(line[k]) if k < len(line) else None for line in lines.values())] for k in range(longest)]
    return Plot(slug(f"{stem}-{name}"), title, caption, draw, ["k", *lines], rows, height)


def _line(axes: Any, shares: np.ndarray, **style: Any) -> None:
    marker = "." if len(shares) < 3 else None
    axes.plot(np.arange(1, len(shares) + 1), np.maximum(shares, FLOOR / 10), marker=marker, **style)


def _dress(axes: Any) -> None:
    axes.set(yscale="log", ylim=(FLOOR, 1.3), xlabel="k", ylabel="σₖ / σ₁")
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(True)
