"""``sslcollapse runs``: what ran, how it ended, which is best, in what two runs differ; and deleting them."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslcollapse.runs.listing import ListedRun

_WHAT = {
    "ls": "list runs: what ran, how it ended",
    "best": "recipes by one metric, means over seeds, the best first",
    "show": "everything of one run",
    "diff": "in what two runs differ: recipe, result, environment",
    "rm": "delete runs",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words that may follow ``sslcollapse runs``."""
    actions = parser.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")
    for name, summary in _WHAT.items():
        action = actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        many, usual = (name in ("ls", "best", "rm"), "*" if name in ("ls", "best") else "+")
        count: Any = usual if many else {"show": 1, "diff": 2}[name]
        what = "run directories, or folders of them (default: runs)" if usual == "*" else "run directory"
        action.add_argument("paths", type=Path, nargs=count, metavar="PATH", help=what)
        if name == "best":
            action.add_argument(
                "--by",
                metavar="METRIC",
                help="such as public.test_accuracy or rank.representation (default: the first validation metric)",
            )
            action.add_argument("--lowest", action="store_true", help="the lowest is the best")
        if name == "rm":
            action.add_argument("--yes", action="store_true", help="do not ask")
        else:
            action.add_argument("--json", action="store_true", help="print JSON")
        action.add_argument("--debug", action="store_true", help="show the traceback of an error")


def run(options: argparse.Namespace) -> int:
    """Do what was asked; the exit code.

    Raises:
        RunError: a path is no run, a run is in use, or deleting was not confirmed.
    """
    from sslcollapse.runs.listing import differences, find_runs, read_listed

    if options.action == "rm":
        return _remove(options.paths, options.yes)
    if options.action in ("ls", "best"):
        paths = options.paths or [Path("runs")]
        runs = [read_listed(path) for path in find_runs(paths)]
        _ls(runs, options.json) if options.action == "ls" else _best(runs, options)
        return 0
    runs = [read_listed(run) for path in options.paths for run in find_runs([path], folders=False)]
    if options.action == "show":
        _show(runs[0], options.json)
        return 0
    found = differences(*runs)
    if options.json:
        _print_json({part: [{"what": w, "values": list(v)} for w, *v in rows] for part, rows in found.items()})
        return 0
    for part, rows in found.items():
        _print_table(["", *(str(run.path) for run in runs)], rows or [("no difference", "", "")], title=part)
    return 0


def _ls(runs: Sequence[ListedRun], as_json: bool) -> None:
    if as_json:
        return _print_json([run.record() for run in runs])
    rows = [
        (
            str(run.path),
            run.state,
            f"{run.step:,} / {run.steps:,}" if run.steps else f"{run.step:,}",
            run.started,
            run.headline,
        )
        for run in runs
    ]
    _print_table(["run", "state", "steps", "started", "result"], rows)


def _best(runs: Sequence[ListedRun], options: argparse.Namespace) -> None:
    from sslcollapse.runs.listing import ranked

    metric, groups = ranked(runs, options.by, lowest=options.lowest)
    if options.json:
        return _print_json({"metric": metric, "recipes": groups})
    rows = [
        (
            g["name"],
            g["hash"],
            f"{g['mean']:.4g}" + (f" ± {g['std']:.2g}" if g["n"] > 1 else ""),
            str(g["n"]),
            g["paths"][0],
        )
        for g in groups
    ]
    _print_table(["recipe", "hash", metric, "seeds", "a run of it"], rows)


def _show(run: ListedRun, as_json: bool) -> None:
    if as_json:
        return _print_json(run.record() | {"recipe": run.recipe, "result": run.result, "collapse": run.collapse})
    rows = [("state", run.state), ("steps", f"{run.step:,} of {run.steps:,}"), ("started", run.started)]
    rows += [(name, _shown(value)) for name, value in run.about.items()]
    rows += [(name, f"{value:.6g}") for name, value in run.metrics.items()]
    if run.collapse:
        rows.append(("collapse", str(run.collapse.get("text", ""))))
    _print_table(["", str(run.path)], rows)
    _print_table(["recipe", ""], [(path, json.dumps(value)) for path, value in run.flat_recipe().items()])


def _shown(value: Any) -> str:
    """A number to six digits, a command as it is typed."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return shlex.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _remove(paths: Sequence[Path], yes: bool) -> int:
    """Delete run directories, once all of them are known to be runs that nobody uses."""
    from sslcollapse.core.errors import RunError
    from sslcollapse.core.files import holder, run_lock
    from sslcollapse.runs.listing import find_runs, read_listed

    runs = list({path.resolve(): path for path in reversed(find_runs(paths, folders=False))}.values())[::-1]
    for path in runs:
        if path.is_symlink():
            raise RunError(f"{path}: this is a link; give the run directory itself")
        if who := holder(path):
            raise RunError(f"{path}: this run is in use by {who}; stop it first. Nothing was deleted")
    if not yes:
        listed = "\n".join(f"  {path}  ({(found := read_listed(path)).state}, step {found.step:,})" for path in runs)
        if not sys.stdin.isatty():
            raise RunError(f"rm needs --yes where nobody can be asked; nothing was deleted. It would delete\n{listed}")
        print(listed)
        if input(f"delete {len(runs)} run{'s' if len(runs) > 1 else ''}? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was deleted")
            return 0
    for path in runs:
        around = (path.parent, path.parent.parent)
        made = around[1].name == read_listed(path).recipe["name"]  # as training makes them; others are somebody's own
        with run_lock(path):
            shutil.rmtree(path)
        for folder in around if made else ():
            with suppress(OSError):  # other seeds, or other recipes, are in it
                folder.rmdir()
        print(f"deleted {path}")
    return 0


_PATHS = ("run", "a run of it", "hash")
"""Columns whose text is copied to the next command: never broken where the terminal has room for it."""

_WIDTH = 200


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    from sslcollapse.core.console import PlainConsole, Table

    table = Table(title=title)
    for head in heads:
        table.add_column(head, overflow="fold", no_wrap=head in _PATHS)
    for row in rows:
        table.add_row(*row)
    console = PlainConsole()
    (console if console.is_terminal else PlainConsole(width=_WIDTH)).print(table)  # a pipe has no width
