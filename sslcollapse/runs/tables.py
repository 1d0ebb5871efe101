"""Tables for the terminal: the layers before a run, the result after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from sslcollapse.regularizers.rank_floor import RankFloor
from sslcollapse.runs.quantities import PARTS, attainable
from sslcollapse.training.module import SSLModule


def layer_table(module: SSLModule) -> Table:
    """Name, shape, attainable rank and coefficients (at the first and the last step) of every layer.

    Of a coefficient that follows what is measured: at the first step, and the range that it may move in. The constraint
    of each layer is named where there are any.
    """
    table, constraint = Table(title="layers"), module.constrained.of
    for title in ("layer", "shape [out, in]", "attainable rank", *module.regularizers):
        whole = title == "layer" or title in module.regularizers  # the other titles may take two lines
        table.add_column(title, justify="left" if title == "layer" else "right", no_wrap=whole)
    if constraint:
        table.add_column("constraint")
    first, last = module.coefficients(0), module.coefficients(module.total_steps - 1)
    for name, layer in module.layers.items():
        cells = [
            _range(first[key].get(name), module.controllers[key].rule)
            if key in module.controllers
            else _span(first[key].get(name), last[key].get(name))
            for key in module.regularizers
        ]
        if constraint:
            cells.append(constraint.get(name, "–"))
        table.add_row(name, f"{layer.shape[0]} × {layer.shape[1]}", str(min(layer.shape)), *cells)
    return table


def accuracy_table(result: Mapping[str, Any]) -> Table:
    """Each probe's test metric, untrained encoder against trained."""
    table = Table(title="evaluation (test)")
    for title in ("probe", "solver", "untrained", "trained"):
        table.add_column(title, justify="left" if title in ("probe", "solver") else "right")
    for name, probe in result["evaluation"].items():
        key = next(key for key in probe if key.startswith("test_"))
        label = f"{name} {key.removeprefix('test_').replace('_', ' ')}"
        table.add_row(label, probe["solver"], _score(result["untrained"][name][key]), _score(probe[key]))
    return table


def rank_table(result: Mapping[str, Any]) -> Table:
    """Effective rank (un-centred) over attainable rank, of the features and of every layer."""
    ranks = result["rank"]
    table = Table(title="effective rank / attainable")
    table.add_column("layer")
    table.add_column("weight", justify="right")
    table.add_column("output", justify="right")
    for name, layer in ranks["layers"].items():
        table.add_row(name, *(_rank(layer[part], attainable(layer, part)) if part in layer else "" for part in PARTS))
    for name in ("representation", "embedding", "prediction"):
        same = name == "embedding" and ranks[name] == ranks["representation"]  # no projector
        if ranks.get(name) and not same:
            table.add_row(name, "", _rank(ranks[name], ranks[name]["attainable"]))
    table.caption = f"N = {ranks['representation']['n']} samples, un-augmented, eval mode"
    return table


def _span(first: float | None, last: float | None) -> str:
    if first is None or last is None:
        return "–"
    return f"{first:g}" if first == last else f"{first:g} → {last:g}"


def _range(first: float | None, rule: RankFloor) -> str:
    return "–" if first is None else f"{first:g} in {rule.min:g} … {rule.max:g}"


def _score(metric: Mapping[str, Any]) -> str:
    text = f"{100 * metric['mean']:.2f}"
    return text if metric["std"] is None else f"{text} ± {100 * metric['std']:.2f}"


def _rank(entry: Mapping[str, Any], limit: int) -> str:
    return f"{entry['effective_rank']:.1f} / {limit}"
