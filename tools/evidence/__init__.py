"""Pages on the records of several grids, and on the statistics that all of them are judged by."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

RESULTS = Path("docs/results")


def parser() -> argparse.ArgumentParser:
    """The command line of ``tools/evidence.py``."""
    summary = "Pages on the records of several grids, and on the statistics that all of them are judged by."
    parser = argparse.ArgumentParser(prog="evidence.py", description=summary)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    mechanism = commands.add_parser("mechanism", help="the gain in accuracy beside the gain in rank, over all grids")
    mechanism.set_defaults(run=_mechanism)

    simulate = commands.add_parser("simulate", help="coverage and false positives of the statistics, simulated")
    simulate.add_argument("--trials", type=int, default=2000, metavar="N", help="of each setting (default: 2000)")
    simulate.add_argument("--seed", type=int, default=0, metavar="N", help="of the random numbers (default: 0)")
    simulate.set_defaults(run=_simulate)

    compare = commands.add_parser("reproducibility", help="how far records move, and which runs several claims share")
    compare.add_argument(
        "sides", nargs="*", type=Path, metavar="PATH", help="two runs.jsonl, results folders or folders of runs"
    )
    compare.add_argument("--label", metavar="TEXT", help="what differs between the two, for the page")
    compare.set_defaults(run=_reproducibility)

    published = commands.add_parser("published", help="accuracy in the records beside published tables")
    published.set_defaults(run=_published)

    depth = commands.add_parser("depth", help="the picture of rank by layer over time in finished runs, side by side")
    depth.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories, each with result.json")
    depth.add_argument("--image", type=Path, metavar="FILE", help="the picture; its figures go into a .json beside it")
    depth.add_argument("--titles", nargs="+", default=[], metavar="TEXT", help="one a run (default: their recipes)")
    depth.set_defaults(run=_depth)

    for command in (mechanism, simulate, compare, published, depth):
        command.add_argument(
            "--results", type=Path, default=RESULTS, metavar="DIR", help=f"folder of records and pages ({RESULTS})"
        )
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _mechanism(options: argparse.Namespace) -> int:
    from tools.evidence.mechanism_page import write_mechanism

    print(write_mechanism(options.results))
    return 0


def _simulate(options: argparse.Namespace) -> int:
    from tools.evidence.simulate import write_simulations

    print(write_simulations(options.results, options.trials, options.seed))
    return 0


def _reproducibility(options: argparse.Namespace) -> int:
    from tools.evidence.reproducibility import write_reproducibility

    print(write_reproducibility(options.results, options.sides, options.label))
    return 0


def _published(options: argparse.Namespace) -> int:
    from tools.evidence.published import write_published

    print(write_published(options.results))
    return 0


def _depth(options: argparse.Namespace) -> int:
    from tools.evidence.depth import IMAGE, write_depth

    print(write_depth(options.runs, options.image or IMAGE, options.titles))
    return 0


def paragraph(*texts: str) -> list[str]:
    """Lines of a Markdown paragraph, or of a list where texts begin with ``* ``, and an empty one."""
    return [line for text in texts for line in _wrapped(text)] + [""]


def _wrapped(text: str) -> list[str]:
    indent = "  " if text.startswith("* ") else ""
    return textwrap.wrap(text, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def write_json(path: Path, value: Any) -> None:
    """Write a record, so that a crash leaves the old one."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False))


def write_text(path: Path, text: str) -> Path:
    """Write a page, so that a crash leaves the old one; returns its path."""
    from sslcollapse.core.files import write_atomic

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (text.rstrip("\n") + "\n").encode())
    return path
