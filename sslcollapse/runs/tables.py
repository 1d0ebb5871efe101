"""Tables of a result for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sslcollapse.core.console import Table
from sslcollapse.runs.quantities import PARTS, attainable


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


def _score(metric: Mapping[str, Any]) -> str:
    text = f"{100 * metric['mean']:.2f}"
    return text if metric["std"] is None else f"{text} ± {100 * metric['std']:.2f}"


def _rank(entry: Mapping[str, Any], limit: int) -> str:
    return f"{entry['effective_rank']:.1f} / {limit}"
