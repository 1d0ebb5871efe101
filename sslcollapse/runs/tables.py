"""Tables of a result for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sslcollapse.core.console import Table
from sslcollapse.runs.quantities import PARTS, TRAINED, TURNED_OVER, attainable, encoder_title, encoders


def accuracy_table(result: Mapping[str, Any]) -> Table:
    """Test metrics of every probe: a row for each baseline, the untrained encoder, and the trained one."""
    table = Table(title="evaluation (test)")
    table.add_column("encoder")
    keys = {name: next(key for key in probe if key.startswith("test_")) for name, probe in result["evaluation"].items()}
    for name, key in keys.items():
        solver = result["evaluation"][name]["solver"]
        table.add_column(f"{name} {key.removeprefix('test_').replace('_', ' ')}\n{solver}", justify="right")
    ranks = {TRAINED: result.get("rank", {}), **result.get("baseline_ranks", {})}
    if any(ranks.values()):
        table.add_column("effective\nrank", justify="right")
    for encoder, probes in encoders(result).items():
        scores = [_score(probes[name][key]) if key in probes.get(name, {}) else "" for name, key in keys.items()]
        rank = ranks.get(encoder, {}).get("representation")
        shown = [_rank(rank, rank["attainable"]) if rank else ""] if any(ranks.values()) else []
        table.add_row(encoder_title(encoder), *scores, *shown)
    return table


def target_line(result: Mapping[str, Any]) -> str:
    """What a reader should know of a target that has not turned over; "" of another one, and without one."""
    left = result.get("target", {}).get("initialization_left", 0.0)
    if left <= TURNED_OVER:
        return ""
    return (
        f"the target has {100 * left:.2g} % of its initialisation left, so it has not turned over "
        f"({100 * TURNED_OVER:g} % or less); a lower objective.momentum, or more steps, let it"
    )


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
