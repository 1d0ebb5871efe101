"""The command line that ``tools/*.py`` and the installed ``sslcollapse`` command share.

Whatever is heavy is imported inside the command that needs it, so help, lists and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sslcollapse.core.errors import CollapsedError, PreemptedError, SSLCollapseError, WriteError, explained
from sslcollapse.core.texts import keep_traceback, lasting_output, launched, say, say_error
from sslcollapse.rank.diagnose import options as diagnose_options
from sslcollapse.runs.command import add_arguments as add_runs
from sslcollapse.runs.command import run as _runs
from sslcollapse.start import add_commands
from sslcollapse.training.graph_files import add_graph_commands

MENDABLE, INTERRUPTED, BUG = 2, 130, 70
"""Exit codes: of an error that the user can mend, of Ctrl-C, and of one that is a fault of this package."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see ``run_command``."""
    return run_command(_parser(), list(sys.argv[1:] if argv is None else argv))


def run_command(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Run the command that a parser finds in the arguments, a default ``run`` of it, and return its exit code.

    0, or one of those above, or 75 where a signal other than Ctrl-C ended a run that can be resumed; ``diagnose``
    and ``ablate`` have 1 of their own, for what they found.

    Everything that a command raises is caught here. An error that is meant for people is printed as it is. Of any other
    it is said what was read, what went wrong and where the traceback is; ``--debug`` raises it instead.
    """
    with lasting_output():
        return _run_command(parser, arguments)


def _run_command(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    options, rest = parser.parse_known_args(arguments)
    # argparse gives back path=value words that stand after an option.
    if any(word.startswith("-") for word in rest) or (rest and "overrides" not in options):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    options.argv, options.resolved = arguments, {}
    command: Callable[[argparse.Namespace], int] = options.run
    try:
        if file := vars(options).get("registering"):
            from sslcollapse.recipe import load

            load(file)
        return command(options)
    except KeyboardInterrupt as interrupt:
        say(f"interrupted: {interrupt}" if str(interrupt) else "interrupted")
        return INTERRUPTED
    except (PreemptedError, CollapsedError) as error:
        say(str(error))
        return error.EXIT_CODE
    except SSLCollapseError as error:
        if options.debug:
            raise
        say_error(str(error))
        return MENDABLE
    except Exception as error:
        if options.debug:
            raise
        read = " ".join([parser.prog, *arguments[:2]])
        message = explained(error, options.resolved)
        if message is not None:
            say_error(f"{read}: {message}")
            return MENDABLE
        say_error(
            f"{read}: unexpected {type(error).__name__}: {error}. This is a fault of sslcollapse, or of a component "
            f"that the recipe names; please report it with its traceback, {keep_traceback(error)}"
        )
        return BUG


def _train(options: argparse.Namespace) -> int:
    from sslcollapse.recipe import identify, load

    recipe, hash_ = identify(load(options.recipe), options.overrides)
    options.resolved = recipe
    if options.dry_run:
        from sslcollapse.training.dry_run import dry_run

        dry_run(recipe, hash_)
        return 0
    from sslcollapse.runs.directory import RunDirectory
    from sslcollapse.training import trainer  # imports much, so mistakes in the recipe are reported before it

    run = RunDirectory.of(recipe, options.out, hash_)
    if options.resume and not options.overwrite and launched() == 1 and run.has_finished(recipe):
        say(f"{run.path}: this run is finished; there is nothing to do")
        return 0
    try:
        trainer.train(
            recipe,
            out=options.out,
            resume=options.resume,
            overwrite=options.overwrite,
            command=["sslcollapse", *options.argv],
            hash_=hash_,
            past_collapse=options.past_collapse,
        )
    except WriteError as error:  # other commands that train have no such option
        error.args = (f"{error}, with --resume{' in place of --overwrite' if options.overwrite else ''}",)
        raise
    return 0


def _ablate(options: argparse.Namespace) -> int:
    from sslcollapse.ablation import run_ablation

    return run_ablation(
        options.target,
        grid=options.grid,
        seeds=options.seeds,
        baseline=options.baseline,
        others=[Path(word) for word in options.overrides if "=" not in word],
        name=options.name,
        overrides=[word for word in options.overrides if "=" in word],
        jobs=options.jobs,
        threads=options.threads,
        executor=options.executor,
        slurm=options.slurm,
        timeout=options.timeout,
        retry_failed=options.retry_failed,
        dry_run=options.dry_run,
        tables=options.tables,
        until_decided=options.until_decided,
        out=options.out,
        results=options.results,
    )


def _evaluate(options: argparse.Namespace) -> int:
    from sslcollapse.training.evaluate import evaluate_run

    evaluate_run(options.target, options.probe)
    return 0


def _report(options: argparse.Namespace) -> int:
    from sslcollapse.report.live import report

    port = options.port if options.live else None
    report(options.paths, out=options.out, runs=options.runs, results=options.results, port=port)
    return 0


def _views(options: argparse.Namespace) -> int:
    from sslcollapse.recipe import load, resolve

    recipe = options.resolved = resolve(load(options.recipe), options.overrides)
    from sslcollapse.training.build import draw_views

    print(draw_views(recipe, options.out, options.samples))
    return 0


def _list(options: argparse.Namespace) -> int:
    from sslcollapse.recipe.manual import listing

    print(listing(options.kind, options.name))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sslcollapse",
        description="See, layer by layer, where self-supervised representations lose rank, and prevent it.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = _command(commands, "train", _train, "train, measure and evaluate what a recipe describes")
    train.add_argument("recipe", type=Path, metavar="RECIPE", help="a .py file that defines `recipe`, or a .json file")
    _add_overrides(train)
    _add_folder(train, "--out", "runs", "where run directories go")
    train.add_argument("--resume", action="store_true", help="continue this run from its newest checkpoint, if any")
    train.add_argument("--past-collapse", action="store_true", help="with --resume, of a run that a collapse stopped")
    train.add_argument("--overwrite", action="store_true", help="start again where a run already is")
    train.add_argument("--dry-run", action="store_true", help="show the recipe, layers and data; train nothing")

    ablate = _command(commands, "ablate", _ablate, "train a grid of recipes over seeds and tabulate the results")
    ablate.add_argument("target", type=Path, metavar="ABLATION|RECIPE", help="a file that defines one of the two")
    ablate.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="RECIPE|path=value",
        help="more base recipes, beside a recipe; changes to all runs",
    )
    ablate.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="PATH=V1,V2,...",
        help="values of a path; repeat for a product; A,B=(a1,b1),(a2,b2) moves paths together",
    )
    ablate.add_argument("--seeds", type=_positive, metavar="N", help="seeds 0 to N-1 of every point")
    ablate.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="compare each point with the one that has this value; base=NAME for one of several recipes",
    )
    ablate.add_argument("--name", metavar="NAME", help="of the results folder (default: the recipe's name)")
    ablate.add_argument("--jobs", type=_jobs, default=1, metavar="N", help="runs at a time (default: 1), or auto")
    ablate.add_argument("--timeout", type=float, metavar="MINUTES", help="end local runs that take longer; they fail")
    ablate.add_argument("--threads", type=_positive, metavar="N", help="of each run (default: the cores, shared out)")
    ablate.add_argument("--executor", default="local", metavar="NAME", help="local (warm on a GPU), slurm or debug")
    ablate.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of Slurm jobs, such as partition=gpu, timeout_min=90, gpus_per_node=1",
    )
    ablate.add_argument("--retry-failed", action="store_true", help="also try the runs again that failed before")
    ablate.add_argument("--dry-run", action="store_true", help="show the cells and what is to do; run nothing")
    ablate.add_argument("--tables", action="store_true", help="write plan.json and rebuild the tables; run nothing")
    words = "add seeds until the claim's tests are decided, to MAX"
    ablate.add_argument("--until-decided", type=_positive, metavar="MAX", help=words)
    _add_folder(ablate, "--out", "runs", "where run directories go")
    _add_folder(ablate, "--results", "docs/results", "where records and tables are kept")

    evaluate = _command(commands, "evaluate", _evaluate, "evaluate a trained encoder again")
    evaluate.add_argument("target", type=Path, metavar="RUN_OR_ENCODER", help="a run directory or encoder.safetensors")
    evaluate.add_argument(
        "--probe", action="append", metavar="NAME", help="one of the recipe's probes; repeat for several (default: all)"
    )
    _add_recipe(evaluate)

    diagnose = _command(commands, "diagnose", diagnose_options.run, "say which layers of a network have lost rank")
    diagnose_options.add_options(diagnose)
    _add_recipe(diagnose)

    report = _command(commands, "report", _report, "make an HTML page of runs or of an ablation, with tables and plots")
    report.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="run directories or folders of them; or one ablation, its file or its results folder",
    )
    report.add_argument("--out", type=Path, metavar="DIR", help="where the page goes (default: reports/NAME)")
    report.add_argument("--live", action="store_true", help="serve the page on this machine, redrawn while runs go on")
    report.add_argument("--port", type=int, default=8421, metavar="N", help="of --live (default: 8421; 0: a free one)")
    _add_folder(report, "--runs", "runs", "where run directories of an ablation may be")
    _add_folder(report, "--results", "docs/results", "where records of an ablation file are")

    add_runs(_command(commands, "runs", _runs, "list, compare and delete runs"))

    views = _command(commands, "views", _views, "draw a contact sheet of the views that a recipe makes")
    views.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe whose domain can draw its views")
    _add_overrides(views)
    views.add_argument("--out", type=Path, default=Path("views.png"), metavar="FILE", help="default: views.png")
    views.add_argument("--samples", type=_positive, default=6, metavar="N", help="rows of the sheet (default: 6)")

    add_graph_commands(commands, _command)
    listing = _command(commands, "list", _list, "list the registered components")
    listing.add_argument("kind", nargs="?", metavar="KIND", help="one kind, such as encoder (default: all)")
    listing.add_argument("name", nargs="?", metavar="NAME", help="one component of it: its arguments")
    _add_recipe(listing)
    add_commands(commands, _command)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=run)
    return parser


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="path=value", help="changes to the recipe, such as seed=3"
    )


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    words = "run this recipe file first, so that what it registers is known"
    parser.add_argument("--recipe", dest="registering", type=Path, metavar="FILE", help=words)


def _add_folder(parser: argparse.ArgumentParser, flag: str, default: str, what: str) -> None:
    parser.add_argument(flag, type=Path, default=Path(default), metavar="DIR", help=f"{what} (default: {default})")


def _jobs(text: str) -> int | str:
    return text if text == "auto" else _positive(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
