"""Benchmarks that compare side by side in one run and print ratios."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from sslcollapse.core.errors import RecipeError, suggest

BENCHES = {
    "ablate": "sslcollapse.bench.ablate",
    "graph-step": "sslcollapse.bench.graph_step",
    "memory": "sslcollapse.bench.memory",
    "monitor": "sslcollapse.bench.monitor",
    "regularizers": "sslcollapse.bench.regularizers",
    "startup": "sslcollapse.bench.startup",
    "views": "sslcollapse.bench.views",
    "vision-step": "sslcollapse.bench.vision_step",
}
"""Name → module with ``main() -> dict`` (prints a table, returns the record)."""


def run(name: str, json_file: Path | None = None) -> int:
    """Run one benchmark and, if asked, write its record as JSON; returns an exit code."""
    if name not in BENCHES:
        raise RecipeError(f"unknown benchmark {name!r}{suggest(name, list(BENCHES))} (known: {', '.join(BENCHES)})")
    record = importlib.import_module(BENCHES[name]).main()
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0
