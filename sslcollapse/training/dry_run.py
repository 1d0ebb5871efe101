"""What ``train --dry-run`` shows: everything about a run that is known before data are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sslcollapse.core.console import PlainConsole, Table
from sslcollapse.core.texts import printable
from sslcollapse.regularizers.rank_floor import RankFloor
from sslcollapse.runs.export import check_exportable
from sslcollapse.training.build import build_domain, build_module
from sslcollapse.training.module import SSLModule
from sslcollapse.training.setup import check_trackers

COLOURED = 100_000
"""Letters of JSON up to which a dry run colours it; rich takes half a minute for a few million."""


def dry_run(recipe: Mapping[str, Any], hash_: str) -> None:
    """Print a resolved recipe, the layer table, parameter counts and the data that will be read.

    Args:
        recipe: resolved.
        hash_: its hash.
    """
    check_trackers(recipe["train"]["trackers"])
    console = PlainConsole(soft_wrap=True)
    text = json.dumps(recipe, indent=2, ensure_ascii=False)
    if console.is_terminal and len(text) < COLOURED:
        console.print_json(text)
    else:
        print(printable(text, keep="\n"))
    domain = build_domain(recipe)
    module = build_module(recipe, domain)
    check_exportable(module.plain_encoder(), recipe["encoder"], domain.in_shape)
    console.print(layer_table(module))
    counts = {
        name: sum(p.numel() for p in part.parameters())
        for name in ("encoder", "projector", "predictor", "decoder", "target")
        if (part := getattr(module, name)) is not None
    }
    console.print("parameters: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    console.print(f"data: {domain.describe()}")
    console.print(f"run directory: <out>/{recipe['name']}/{hash_}/seed{recipe['seed']}")


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


def _span(first: float | None, last: float | None) -> str:
    if first is None or last is None:
        return "–"
    return f"{first:g}" if first == last else f"{first:g} → {last:g}"


def _range(first: float | None, rule: RankFloor) -> str:
    return "–" if first is None else f"{first:g} in {rule.min:g} … {rule.max:g}"
