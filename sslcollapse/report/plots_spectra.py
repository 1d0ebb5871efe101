"""Spectrum fans: σ_k/σ_1 of a weight or of activations, a line a measured step, or a line a run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sslcollapse.rank.plots import draw_fan, relative
from sslcollapse.report.curves import legend, legend_height, thin
from sslcollapse.report.key import Key
from sslcollapse.report.plot import Plot, slug
from sslcollapse.report.plots_run import WORDS, NamedRun
from sslcollapse.report.runs import Run
from sslcollapse.report.style import course_map

MAX_LINES = 24


class Spectrum(NamedTuple):
    """σ_k/σ_1, descending, and the largest rank that its origin allows."""

    shares: np.ndarray
    attainable: int


def fans(run: Run) -> list[Plot]:
    """A fan for every spectrum that was stored, weights first, then activations and features, by depth."""
    found: dict[str, dict[int, Spectrum]] = {}
    for step, arrays in run.spectra():
        for name, spectrum in _spectra(arrays).items():
            found.setdefault(name, {})[step] = spectrum
    return [_fan(name, found[name]) for name in _by_kind(found)]


def last_spectra(runs: Sequence[NamedRun], key: Key) -> list[Plot]:
    """The spectra of the last measured step, a plot a layer, a line a run."""
    found: dict[str, dict[str, Spectrum]] = {}
    for label, run in runs:
        for _, arrays in itertools.islice(run.spectra(newest_first=True), 1):
            for name, spectrum in _spectra(arrays).items():
                found.setdefault(name, {})[label] = spectrum
    return [_comparison(name, found[name], key) for name in _by_kind(found)]


def _spectra(arrays: Mapping[str, Any]) -> dict[str, Spectrum]:
    """Every spectrum of one file, each with what it can attain.

    No spectrum can have more than N directions. An output has no more than its weight has: a map from 64 dimensions to
    256 has 64.
    """
    rows = np.asarray(arrays.get("n", ()))
    n = int(rows) if rows.ndim == 0 and rows.dtype.kind in "iu" else None
    found = {}
    for name, sigma in arrays.items():
        shares = relative(sigma)
        if shares is None:
            continue
        kind, _, layer = name.partition("/")
        limits = [len(shares)]
        if kind != "weight" and n:
            limits.append(n)
        if kind == "output" and np.ndim(weight := arrays.get(f"weight/{layer}", 0.0)) == 1:
            limits.append(len(weight))
        found[name] = Spectrum(shares, max(min(limits), 1))
    return found


def _by_kind(found: Mapping[str, Any]) -> list[str]:
    kinds = ("weight", "output")
    return sorted(found, key=lambda name: kinds.index(kind) if (kind := name.partition("/")[0]) in kinds else 2)


def _fan(name: str, lines: Mapping[int, Spectrum]) -> Plot:
    steps = sorted(lines)
    drawn = thin(steps, MAX_LINES)
    colours = course_map()

    def draw(figure: Any) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        axes = figure.subplots()
        scale = ScalarMappable(Normalize(steps[0], max(steps[-1], steps[0] + 1)), colours)
        looks = {step: {"color": scale.to_rgba(np.array(step)), "linewidth": 1.1} for step in drawn}
        draw_fan(axes, ((*lines[step], look) for step, look in looks.items()))
        bar = figure.colorbar(scale, ax=axes, label="step", fraction=0.06, pad=0.02)
        bar.outline.set_visible(False)

    caption = "" if drawn == steps else f"{len(drawn)} of {len(steps)} measured steps are drawn; the CSV has all."
    return _plot("fan", name, caption, draw, {str(step): lines[step] for step in steps}, 3.2)


def _comparison(name: str, lines: Mapping[str, Spectrum], key: Key) -> Plot:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        draw_fan(axes, ((*line, {"label": label, **key.line(label)}) for label, line in lines.items()))
        legend(figure, axes)

    return _plot("spectrum", name, "", draw, lines, 3.2 + legend_height(list(lines)))


def _plot(stem: str, name: str, caption: str, draw: Any, lines: Mapping[str, Spectrum], height: float) -> Plot:
    kind, _, layer = name.partition("/")
    title = f"{WORDS.get(kind, kind).capitalize()} of {layer}" if layer else kind.capitalize()
    longest = max(len(line.shares) for line in lines.values())
    rows = [
        [k + 1, *(float(line.shares[k]) if k < len(line.shares) else None for line in lines.values())]
        for k in range(longest)
    ]
    caption = " ".join(filter(None, [_limits(list(lines.values())), caption]))
    return Plot(slug(f"{stem}-{name}"), title, caption, draw, ["k", *lines], rows, height)


def _limits(lines: Sequence[Spectrum]) -> str:
    """What can be attained, where that is less than there are singular values."""
    pairs = dict.fromkeys((line.attainable, len(line.shares)) for line in lines)
    return "".join(f"{limit} of {count} can be attained. " for limit, count in pairs if limit < count).strip()
