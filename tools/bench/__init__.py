"""Benchmarks that compare side by side in one run and print ratios."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from sslcollapse.core.errors import RecipeError, suggest

BENCHES = {
    "ablate": "tools.bench.ablate",
    "gpu": "tools.bench.gpu",
    "graph-scale": "tools.bench.graph_scale",
    "graph-step": "tools.bench.graph_step",
    "large-graph": "tools.bench.large_graph",
    "memory": "tools.bench.memory",
    "monitor": "tools.bench.monitor",
    "probes": "tools.bench.probes",
    "regularizers": "tools.bench.regularizers",
    "sampler": "tools.bench.sampler",
    "speedrun": "tools.bench.speedrun",
    "startup": "tools.bench.startup",
    "views": "tools.bench.views",
    "vision-step": "tools.bench.vision_step",
}
"""Name → module with ``main() -> dict`` (prints a table, returns the record)."""

OPTIONS = {
    "minutes": ("gpu",),
    "out": ("gpu",),
    "smoke": ("gpu", "vision-step"),
    "runs": ("speedrun",),
    "nodes": ("graph-scale",),
    "folder": ("graph-scale",),
    "batch": ("graph-scale",),
}
"""Option that ``main`` of some benchmarks takes → which."""


def parser() -> argparse.ArgumentParser:
    """The command line of ``tools/bench.py``."""
    summary = "Measure speed or memory, side by side with a reference."
    parser = argparse.ArgumentParser(prog="bench.py", description=summary)
    parser.add_argument("name", metavar="NAME", help=f"which benchmark: {', '.join(BENCHES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the record here")
    gpu = parser.add_argument_group("of the benchmark gpu")
    gpu.add_argument("--minutes", type=float, metavar="N", help="when no further part is started (default: 9)")
    gpu.add_argument("--out", type=Path, metavar="DIR", help="where its parts write (default: gpu)")
    gpu.add_argument("--smoke", action="store_true", help="a small scale, also on a processor; of vision-step too")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="of the benchmark speedrun: runs for its board")
    scale = parser.add_argument_group("of the benchmark graph-scale")
    scale.add_argument("--nodes", type=_sizes, metavar="N,N,...", help="sizes (default: 10 thousand to 10 million)")
    scale.add_argument("--folder", type=Path, metavar="DIR", help="for its graphs (default: a temporary folder)")
    scale.add_argument("--batch", type=int, metavar="B", help="roots a step (default: 256)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=_run)
    return parser


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(sorted(int(each) for each in text.split(",")))
    except ValueError:
        sizes = ()
    if not sizes or sizes[0] < 500:
        raise argparse.ArgumentTypeError(f"expected numbers of nodes, 500 or more, with commas between, got {text!r}")
    return sizes


def _run(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in OPTIONS if getattr(options, name)}
    if stranger := next((name for name in given if options.name not in OPTIONS[name]), None):
        whose = " and ".join(map(repr, OPTIONS[stranger]))
        raise RecipeError(f"--{stranger} is an option of the benchmark {whose}, not of {options.name!r}")
    if options.minutes is not None and not options.minutes > 0:
        raise RecipeError(f"--minutes must be > 0, got {options.minutes:g}")
    return run(options.name, options.json, **given)


def run(name: str, json_file: Path | None = None, **options: Any) -> int:
    """Run one benchmark and, if asked, write its record as JSON; returns an exit code."""
    if name not in BENCHES:
        raise RecipeError(f"unknown benchmark {name!r}{suggest(name, list(BENCHES))} (known: {', '.join(BENCHES)})")
    record = importlib.import_module(BENCHES[name]).main(**options)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0
