"""The command ``sslcollapse graph``: graphs of recipes written to disk, and checked there."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sslcollapse.core.errors import RecipeError


def add_graph_commands(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands to a parser.

    Args:
        commands: of the parser.
        command: adds a command of this name, which runs this function, with this summary.
    """
    summary = "write the graph of a recipe to disk, or check one that is there"
    graph = commands.add_parser("graph", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    within = graph.add_subparsers(title="commands", required=True, metavar="COMMAND")

    packing = command(within, "pack", _pack, "write the graph of a recipe to a folder that it can be trained from")
    packing.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe of the graph domain")
    packing.add_argument("folder", type=Path, metavar="DIR", help="a new folder, or one where this command was stopped")
    packing.add_argument("overrides", nargs="*", default=[], metavar="path=value", help="changes to the recipe")
    packing.add_argument(
        "--features",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="how features are stored; int8 with a scale for each node (default: float32)",
    )
    packing.add_argument(
        "--memory", type=_gigabytes, default=1.0, metavar="GB", help="what edges are sorted in (default: 1)"
    )

    checking = command(within, "verify", _verify, "compare all files of a stored graph with their checksums")
    checking.add_argument("folder", type=Path, metavar="DIR", help="of a stored graph")


def _pack(options: argparse.Namespace) -> int:
    from sslcollapse.core.texts import say
    from sslcollapse.recipe import load, resolve

    recipe = options.resolved = resolve(load(options.recipe), options.overrides)
    from sslcollapse.training.build import build_domain

    domain: Any = build_domain(recipe)
    if not hasattr(domain, "pack"):
        raise RecipeError(f"domain.type: {recipe['domain']['type']!r} has no graph that could be packed; use 'graph'")
    say(domain.describe())
    memory = int(options.memory * 1e9)
    written = domain.pack(options.folder, features=options.features, memory=memory, progress=say)
    size = sum(path.stat().st_size for path in options.folder.iterdir())
    say(
        f"{options.folder}: {'complete' if written else 'was complete already'}, {size / 1e9:.3g} GB "
        f"({shutil.disk_usage(options.folder).free / 1e9:.3g} GB are left there); train from it with "
        f'domain.dataset=\'{{"type": "stored", "path": "{options.folder.resolve()}"}}\''
    )
    return 0


def _verify(options: argparse.Namespace) -> int:
    from sslcollapse.core.registry import GRAPH_DATASETS
    from sslcollapse.core.texts import say

    stored = GRAPH_DATASETS.build({"type": "stored", "path": str(options.folder.resolve())}, Path())
    say(stored.describe())
    stored.verify(progress=say)
    say("all files are as they were packed")
    return 0


def _gigabytes(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.001 <= number < 1e6:
        raise argparse.ArgumentTypeError(f"expected gigabytes, 0.001 or more, got {text!r}")
    return number
