"""Curves of runs over their steps: losses, learning rate, ranks, coefficients, penalties. One run or several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sslcollapse.quantities import PARTS
from sslcollapse.report.curves import Line, course, heat
from sslcollapse.report.plot import Plot, slug
from sslcollapse.report.runs import Run

FEATURES = ("representation", "embedding", "prediction")
_PLACED = re.compile(r"(?P<group>regularizer/[^/]+|gradient)/(?P<place>.+)/(?P<what>[^/]+)")
WORDS = {"weight": "weights", "output": "activations"}


class Named(NamedTuple):
    """A run and its label on the page."""

    label: str
    run: Run


def learning(runs: Sequence[Named]) -> list[Plot]:
    """The loss and its parts, the learning rate."""
    parts = _ordered(key for _, run in runs for key in run.keys if key == "loss" or key.startswith("objective/"))
    titles = {key: key.removeprefix("objective/") for key in parts}
    plots = _together(runs, "loss", "Loss and its parts", "loss", titles) if len(runs) == 1 else []
    if len(runs) > 1:
        plots = [plot for key in parts for plot in _overlaid(runs, key, titles[key].capitalize(), titles[key])]
    return [*plots, *_overlaid(runs, "lr", "Learning rate", "learning rate")]


def feature_ranks(runs: Sequence[Named]) -> list[Plot]:
    """Effective rank of representation, embedding and prediction."""
    keys = {
        f"rank/{name}/effective_rank": name
        for name in FEATURES
        if name != "embedding" or any(_has_embedding(run) for _, run in runs)
    }
    keys = {key: name for key, name in keys.items() if any(run.series(key) for _, run in runs)}
    if len(runs) == 1:
        return _together(runs, "rank", "Effective rank of the features", "effective rank", keys)
    return [
        plot
        for key, name in keys.items()
        for plot in _overlaid(runs, key, f"Effective rank of the {name}", "effective rank")
    ]


def rank_by_depth(runs: Sequence[Named]) -> list[Plot]:
    """For each run a heat map of weights and one of activations: layers × steps."""
    plots = []
    for label, run in runs:
        for part in PARTS:
            table = {layer: run.fractions(layer, part) for layer in run.layers}
            table = {layer: fractions for layer, fractions in table.items() if fractions}
            steps = sorted({step for fractions in table.values() for step in fractions})
            if not steps:
                continue
            whose = "" if len(runs) == 1 else f", {label}"
            plots.append(
                heat(
                    slug(f"rank_by_depth-{part}{'' if len(runs) == 1 else f'-{label}'}"),
                    f"Rank of {WORDS[part]} by depth{whose}",
                    "Effective rank as a fraction of the attainable rank; the first layer on top.",
                    list(table),
                    steps,
                    [[fractions.get(step) for step in steps] for fractions in table.values()],
                    "fraction of attainable",
                    "step",
                )
            )
    return plots


def regularization(runs: Sequence[Named]) -> list[Plot]:
    """Coefficients and penalties of every regularizer, and their gradients beside the objective's."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for key in _ordered(key for _, run in runs for key in run.keys):
        if match := _PLACED.fullmatch(key):
            found.setdefault((match["group"], match["what"]), {})[key] = match["place"]
    order = ["coefficient", "penalty", "weighted", "norm_ratio", "cosine"]
    ranked = sorted(found, key=lambda item: order.index(item[1]) if item[1] in order else len(order))
    plots = []
    for group, what in ranked:
        regularizer = group.removeprefix("regularizer/")
        title, ylabel = _regularizer_title(regularizer, what)
        name = slug(f"{regularizer}-{what}")
        if len(runs) == 1:
            plots += _together(runs, name, title, ylabel, found[group, what], ordered=True)
            continue
        for key, place in found[group, what].items():
            plots += _overlaid(runs, key, f"{title}, {place}", ylabel, f"{name}-{slug(place)}")
    return plots


def others(runs: Sequence[Named]) -> list[Plot]:
    """Every metric that no other section shows, a plot each."""
    shown = ("loss", "lr", "objective/", "rank/", "regularizer/", "gradient/")
    keys = _ordered(key for _, run in runs for key in run.keys if not key.startswith(shown))
    return [plot for key in keys for plot in _overlaid(runs, key, key, key.rpartition("/")[2].replace("_", " "))]


def _together(
    runs: Sequence[Named], name: str, title: str, ylabel: str, keys: dict[str, str], ordered: bool = False
) -> list[Plot]:
    """Several metrics of one run in one plot."""
    (_, run) = runs[0]
    plot = course(name, title, "", ylabel, [Line(label, run.series(k)) for k, label in keys.items()], ordered=ordered)
    return [] if plot is None else [plot]


def _overlaid(runs: Sequence[Named], key: str, title: str, ylabel: str, name: str | None = None) -> list[Plot]:
    """One metric of every run in one plot."""
    lines = [Line(label if len(runs) > 1 else ylabel, run.series(key)) for label, run in runs]
    plot = course(slug(name or key), title, "", ylabel, lines)
    return [] if plot is None else [plot]


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
