"""Plots of runs: losses, ranks, coefficients and penalties over steps, and spectrum fans."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sslcollapse.rank.plots import draw_fan, relative
from sslcollapse.report.curves import Line, course, heat, legend, legend_height, thin
from sslcollapse.report.plot import Plot, course_map, slug
from sslcollapse.report.runs import Run
from sslcollapse.report.scale import Key
from sslcollapse.runs.quantities import PARTS

FEATURES = ("representation", "embedding", "prediction")
_PLACED = re.compile(r"(?P<group>regularizer/[^/]+|gradient)/(?P<place>.+)/(?P<what>[^/]+)")
WORDS = {"weight": "weights", "output": "activations"}


class NamedRun(NamedTuple):
    """A run and its label on the page."""

    label: str
    run: Run


def key_of(runs: Sequence[NamedRun]) -> Key:
    """Colours of a page: of several runs a colour a run; of one run a colour for each thing that has a line."""
    if len(runs) > 1:
        return Key(label for label, _ in runs)
    places = [place for group in _regularizers(runs).values() for place in group.values()]
    return Key([*_losses(runs).values(), *FEATURES, *places])


def learning(runs: Sequence[NamedRun], key: Key) -> list[Plot]:
    """The loss and its parts, the learning rate."""
    parts = _losses(runs)
    plots = _together(runs, key, "loss", "Loss and its parts", "loss", parts) if len(runs) == 1 else []
    if len(runs) > 1:
        plots = [plot for path, title in parts.items() for plot in _overlaid(runs, key, path, _capital(title), title)]
    return [*plots, *_overlaid(runs, key, "lr", "Learning rate", "learning rate")]


def feature_ranks(runs: Sequence[NamedRun], key: Key) -> list[Plot]:
    """Effective rank of representation, embedding and prediction."""
    keys = {
        f"rank/{name}/effective_rank": name
        for name in FEATURES
        if name != "embedding" or any(_has_embedding(run) for _, run in runs)
    }
    keys = {path: name for path, name in keys.items() if any(run.series(path) for _, run in runs)}
    if len(runs) == 1:
        return _together(runs, key, "rank", "Effective rank of the features", "effective rank", keys)
    return [
        plot
        for path, name in keys.items()
        for plot in _overlaid(runs, key, path, f"Effective rank of the {name}", "effective rank")
    ]


def rank_by_depth(runs: Sequence[NamedRun]) -> list[Plot]:
    """For each run a heat map of weights and one of activations: layers × steps."""
    plots = []
    for label, run in runs:
        for part in PARTS:
            table = {layer: run.fractions(layer, part) for layer in run.layers}
            plots += _by_depth(
                runs,
                label,
                table,
                f"rank_by_depth-{part}",
                f"Rank of {WORDS[part]} by depth",
                "Effective rank as a fraction of the attainable rank; the first layer on top.",
                "fraction of attainable",
            )
    return plots


DEPTH = {
    ("output", "dirichlet_ratio"): (
        "Dirichlet ratio",
        "Mean squared distance of neighbours over that of all pairs of nodes: 0 is constant on connected parts.",
    ),
    ("output", "mad"): ("Mean average distance", "Mean of 1 − cosine over all pairs of nodes: 0 is one direction."),
    ("weight", "overlap"): (
        "Overlap with the layer before",
        "Mean squared cosine of the first right singular vectors with the first left ones of the layer before.",
    ),
}
"""What a monitor may measure beside ranks → its title and a caption."""


def beside_ranks_by_depth(runs: Sequence[NamedRun]) -> list[Plot]:
    """For each run a heat map of what its monitor measured beside ranks: layers × steps."""
    plots = []
    for label, run in runs:
        for (part, measure), (title, caption) in DEPTH.items():
            table = {layer: run.series(f"rank/layers/{layer}/{part}/{measure}") for layer in run.layers}
            plots += _by_depth(runs, label, table, f"{measure}_by_depth", f"{title} by depth", caption, measure)
    return plots


def _by_depth(
    runs: Sequence[NamedRun],
    label: str,
    table: dict[str, dict[int, float]],
    name: str,
    title: str,
    caption: str,
    what: str,
) -> list[Plot]:
    """A heat map of layer → step → value, of the run with that label; none without values."""
    table = {layer: values for layer, values in table.items() if values}
    steps = sorted({step for values in table.values() for step in values})
    if not steps:
        return []
    if len(runs) > 1:
        name, title = f"{name}-{label}", f"{title}, {label}"
    cells = [[values.get(step) for step in steps] for values in table.values()]
    return [heat(slug(name), title, caption, list(table), steps, cells, what.replace("_", " "), "step")]


def regularization(runs: Sequence[NamedRun], key: Key) -> list[Plot]:
    """Coefficients and penalties of every regularizer, and their gradients beside the objective's."""
    found = _regularizers(runs)
    order = ["coefficient", "penalty", "weighted", "norm_ratio", "cosine"]
    ranked = sorted(found, key=lambda item: order.index(item[1]) if item[1] in order else len(order))
    plots = []
    for group, what in ranked:
        regularizer = group.removeprefix("regularizer/")
        title, ylabel = _regularizer_title(regularizer, what)
        name = slug(f"{regularizer}-{what}")
        if len(runs) == 1:
            plots += _together(runs, key, name, title, ylabel, found[group, what], ordered=True)
            continue
        for path, place in found[group, what].items():
            plots += _overlaid(runs, key, path, f"{title}, {place}", ylabel, f"{name}-{slug(place)}")
    return plots


def others(runs: Sequence[NamedRun], key: Key) -> list[Plot]:
    """Every metric that no other section shows, a plot each."""
    shown = ("loss", "lr", "objective/", "rank/", "regularizer/", "gradient/")
    paths = _ordered(path for _, run in runs for path in run.keys if not path.startswith(shown))
    return [p for path in paths for p in _overlaid(runs, key, path, path, path.rpartition("/")[2].replace("_", " "))]


def _losses(runs: Sequence[NamedRun]) -> dict[str, str]:
    """Metric → its name, of the loss and its parts."""
    paths = _ordered(path for _, run in runs for path in run.keys if path == "loss" or path.startswith("objective/"))
    return {path: path.removeprefix("objective/") for path in paths}


def _regularizers(runs: Sequence[NamedRun]) -> dict[tuple[str, str], dict[str, str]]:
    """Regularizer (or ``gradient``) and what of it → metric → the layer or feature it is of."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for path in _ordered(path for _, run in runs for path in run.keys):
        if match := _PLACED.fullmatch(path):
            found.setdefault((match["group"], match["what"]), {})[path] = match["place"]
    return found


def _together(
    runs: Sequence[NamedRun], key: Key, name: str, title: str, ylabel: str, paths: dict[str, str], ordered: bool = False
) -> list[Plot]:
    """Several metrics of one run in one plot."""
    (_, run) = runs[0]
    lines = [Line(label, run.series(path), key.line(label)) for path, label in paths.items()]
    plot = course(name, title, "", ylabel, lines, ordered=ordered)
    return [] if plot is None else [plot]


def _overlaid(
    runs: Sequence[NamedRun], key: Key, path: str, title: str, ylabel: str, name: str | None = None
) -> list[Plot]:
    """One metric of every run in one plot."""
    several = len(runs) > 1
    lines = [
        Line(label if several else ylabel, run.series(path), key.line(*([label] if several else [])))
        for label, run in runs
    ]
    plot = course(slug(name or path), title, "", ylabel, lines)
    return [] if plot is None else [plot]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _regularizer_title(regularizer: str, what: str) -> tuple[str, str]:
    titles = {
        "coefficient": (f"Coefficient of {regularizer}", "coefficient"),
        "penalty": (f"Penalty of {regularizer}", "penalty, unweighted"),
        "weighted": (f"Coefficient × penalty of {regularizer}", "coefficient × penalty"),
        "norm_ratio": ("Gradient of the penalties over the objective's", "ratio of norms"),
        "cosine": ("Direction of the penalties' gradient against the objective's", "cosine"),
    }
    return titles.get(what, (f"{what.replace('_', ' ').capitalize()} of {regularizer}", what.replace("_", " ")))


def _has_embedding(run: Run) -> bool:
    """Whether there is a projector, so that the embedding is not the representation."""
    own, whole = (run.series(f"rank/{name}/effective_rank") for name in ("embedding", "representation"))
    return bool(own) and own != whole


def _ordered(keys: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(keys))


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
