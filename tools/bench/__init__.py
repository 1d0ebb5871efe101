"""Benchmarks that compare side by side in one run and print ratios."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

from sslcollapse.core.errors import RecipeError, suggest

BENCHES = {
    "ablate": "tools.bench.ablate",
    "graph-step": "tools.bench.graph_step",
    "memory": "tools.bench.memory",
    "monitor": "tools.bench.monitor",
    "regularizers": "tools.bench.regularizers",
    "startup": "tools.bench.startup",
    "views": "tools.bench.views",
    "vision-step": "tools.bench.vision_step",
}
"""Name → module with ``main() -> dict`` (prints a table, returns the record)."""


def parser() -> argparse.ArgumentParser:
    """The command line of ``tools/bench.py``."""
    summary = "Measure speed or memory, side by side with a reference."
    parser = argparse.ArgumentParser(prog="bench.py", description=summary)
    parser.add_argument("name", metavar="NAME", help=f"which benchmark: {', '.join(BENCHES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the record here")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=lambda options: run(options.name, options.json))
    return parser


def run(name: str, json_file: Path | None = None) -> int:
    """Run one benchmark and, if asked, write its record as JSON; returns an exit code."""
    if name not in BENCHES:
        raise RecipeError(f"unknown benchmark {name!r}{suggest(name, list(BENCHES))} (known: {', '.join(BENCHES)})")
    record = importlib.import_module(BENCHES[name]).main()
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0
