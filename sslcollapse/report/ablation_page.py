"""The page of an ablation, and the command that tells which page its paths make."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslcollapse.ablation.claims.judge import judge
from sslcollapse.ablation.files import NAME as PLAN
from sslcollapse.ablation.files import read_plan
from sslcollapse.ablation.grid import Ablation, plan
from sslcollapse.ablation.records import Failures, Records
from sslcollapse.ablation.tables.page import columns, page, table_csv
from sslcollapse.core.errors import RunError
from sslcollapse.core.texts import in_html
from sslcollapse.report.from_records import ablation_of
from sslcollapse.report.labels import factors, shared_note
from sslcollapse.report.page import TABLES, Page, Section, run_page, write_page
from sslcollapse.report.plot import slug
from sslcollapse.report.plots_ablation import effects, scatters
from sslcollapse.report.plots_cells import find_runs, forest, layer_ranks, over_time
from sslcollapse.report.runs import is_run, read_run
from sslcollapse.report.scale import Key
from sslcollapse.report.tables import Table, scrolling

ABLATIONS = Path("recipes/ablations")
OPEN_PLOTS = 12
VERDICT = "Verdict"
"""Title of a section that is read before the plots; it has the claim's tests."""

TESTS_SHOWN = ("check", "group", "cell", "against", "shown", "n", "expected", "outcome")
"""What the page has of each test in a ``claim.json``."""

VERDICTS = ("supported", "not supported")
"""Those that have a colour."""


@dataclass(frozen=True)
class Recorded:
    """An ablation with its records.

    Attributes:
        folder: of ``runs.jsonl``.
        command: what makes its runs.
        failures: run → error.
        notes: how it was found.
    """

    ablation: Ablation
    records: Records
    folder: Path
    command: str
    failures: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def from_file(path: Path, results: Path) -> Recorded:
    """The ablation of a file, with the records in ``results/<its name>``.

    Overrides that were given with ``ablate`` are read from the records.

    Raises:
        RunError: it has no records yet.
        RecipeError: the file is wrong.
    """
    ablation = plan(path, [], None, [])
    folder = results / ablation.name
    if not (folder / "runs.jsonl").exists():
        raise RunError(
            f"{folder / 'runs.jsonl'}: no records of {path} are there yet; make them with 'sslcollapse ablate {path}', "
            "or say with --results where they are"
        )
    return _with_settings(path, ablation, _read(folder), folder)


def from_folder(folder: Path) -> Recorded:
    """The ablation of a results folder, by the ``plan.json`` in it, else rebuilt from the records. Nothing is executed.

    Raises:
        RunError: the records or the plan cannot be read, or there are no records.
    """
    records = _read(folder)
    every = list(records)
    if not every:
        raise RunError(f"{folder / 'runs.jsonl'}: there is no record in it; run the ablation first")
    found = read_plan(folder)
    if found is not None:
        ablation, command = found
        return Recorded(ablation, records, folder, command, _failures(folder, ablation))
    ablation, notes = ablation_of(folder.resolve().name, every)
    lacking = (
        f"This folder has no {PLAN}, which says what was planned; 'sslcollapse ablate FILE --tables', with the "
        "ablation's file and the settings of its runs, writes it."
    )
    failures = _failures(folder, ablation, planned=False)
    return Recorded(ablation, records, folder, _recorded_command(folder), failures, [lacking, *notes])


def ablation_page(recorded: Recorded, runs: Path) -> Page:
    """The page of an ablation."""
    ablation, records = recorded.ablation, recorded.records
    shown = records.of(ablation.cells, ablation.seeds)
    every = columns(ablation, shown)
    metrics = [column for column in every if column.metric]
    axes = factors(ablation)
    key = Key.of_factors(axes)
    directories = find_runs(ablation, runs)
    text = page(ablation, records, recorded.failures, recorded.command)
    intro, sections = _written(text)
    plots = [plot for column in metrics for plot in effects(ablation, records, column, axes, key)]
    means = [plot for plot in plots if not plot.name.startswith("difference-")]
    gains = [plot for plot in plots if plot.name.startswith("difference-")]
    intervals = [plot for column in metrics for plot in forest(ablation, records, column, axes)]
    drawn = [
        _plotted("effects", "Against the axes", means),
        _plotted("gains", "Differences, plotted", [*intervals, *gains]),
        _plotted("scatter", "Rank against accuracy", scatters(ablation, records, every, axes, key)),
        _plotted("layers", "Rank by layer", layer_ranks(ablation, records, axes)),
        _plotted("time", "During training", over_time(ablation, directories, axes, key)),
    ]
    lead = f"Ablation of {len(ablation.cells)} cells, {len(shown)} runs recorded."
    foot = f"Made by sslcollapse report from {ablation.name}/runs.jsonl."
    first = [section for section in sections if section.title == VERDICT]
    rest = [section for section in sections if section.title != VERDICT]
    top = _claim(recorded) + intro
    failed = len(recorded.failures)
    lost = f"{failed} run{'s' if failed > 1 else ''} failed; the last section has the errors."
    notes = [*recorded.notes, *([lost] if failed else []), *shared_note(axes)]
    made = Page(ablation.name, lead, [*first, *drawn, *rest], foot, top, notes)
    made.files[f"{TABLES}/cells.csv"] = table_csv(ablation, records).encode()
    return made


def _with_settings(path: Path, ablation: Ablation, records: Records, folder: Path) -> Recorded:
    """The plan under those overrides that most of the records were made with."""
    best = ablation
    for settings in dict.fromkeys(tuple(record.get("settings", [])) for record in records):
        if settings:
            other = plan(path, [], None, list(settings))
            if len(records.of(other.cells, other.seeds)) >= len(records.of(best.cells, best.seeds)):
                best = other
    shown = ABLATIONS / path.name if path.resolve().parent.parts[-2:] == ABLATIONS.parts else Path(path.name)
    command = shlex.join(["sslcollapse", "ablate", str(shown), *best.settings])
    return Recorded(best, records, folder, command, _failures(folder, best))


def _recorded_command(folder: Path) -> str:
    """What made the records, from the page that ``ablate`` wrote beside them: to be shown, never to be run."""
    path = folder / "README.md"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return next((line.strip() for line in lines if line.startswith("    sslcollapse ablate ")), "")


def _read(folder: Path) -> Records:
    try:
        return Records(folder / "runs.jsonl")
    except OSError as error:
        raise RunError(f"{folder / 'runs.jsonl'}: cannot be read ({error.strerror}); give this user access") from error


def _failures(folder: Path, ablation: Ablation, *, planned: bool = True) -> dict[str, str]:
    found = Failures(folder / "failures.json").errors
    names = {
        f"{cell.hash}/seed{seed}": f"{cell.name} seed={seed}"
        for cell in ablation.cells
        for seed in range(ablation.seeds)
    }
    if not planned:  # cells of which all runs failed have no records
        return {names.get(key, key): error for key, error in found.items()}
    return {names[key]: error for key, error in found.items() if key in names}


def _written(text: str) -> tuple[str, list[Section]]:
    """The ablation's Markdown page as an introduction and sections."""
    from markdown_it import MarkdownIt

    render = MarkdownIt("commonmark", {"html": False}).enable("table").render
    intro, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    intro = re.sub(r"^# .*\n", "", intro, count=1)
    sections = []
    for number, part in enumerate(parts):
        title, _, body = part.partition("\n")
        html = re.sub(r"<table>.*?</table>", lambda match: scrolling(match[0]), render(body), flags=re.DOTALL)
        sections.append(Section(f"table{number + 1}", title.strip(), html))
    if sections:
        sections[0].html += f'<p class="note">All tables, unrounded: <a href="{TABLES}/cells.csv">CSV</a></p>\n'
    return render(intro), sections


def _plotted(name: str, title: str, plots: Sequence[Any]) -> Section:
    return Section(name, title, "", (), plots[:OPEN_PLOTS], plots[OPEN_PLOTS:])


def _claim(recorded: Recorded) -> str:
    """The claim that an ablation was made for and its verdict.

    Of an ablation rebuilt from its records, both with the tests are what ``claim.json`` says, if it is there.
    """
    if recorded.ablation.claim is not None:
        found = judge(recorded.ablation, recorded.records)
        return _box(found.claim.statement, found.text, found.tally)
    path = recorded.folder / "claim.json"
    if not path.exists():
        return ""
    try:
        claim = json.loads(path.read_text(encoding="utf-8"))
        statement, verdict, tests = str(claim["statement"]), str(claim["verdict"]), claim["tests"]
        heads = [head for head in TESTS_SHOWN if any(head in test for test in tests)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: no claim with a statement, a verdict and tests ({error}); restore the file") from error
    table = (
        Table("claim", heads, [[_plain(test.get(head)) for head in heads] for test in tests]).html() if tests else ""
    )
    return _box(statement, verdict, str(claim.get("tally", "")), table)


def _box(statement: str, verdict: str, tally: str, table: str = "") -> str:
    kind = verdict.lower().replace(" ", "-") if verdict in VERDICTS else ""
    tally = f": {tally}" if tally else ""
    return (
        f'<div class="claim {in_html(kind)}"><p>{in_html(statement)}</p>'
        f'<p class="verdict">{in_html(f"{verdict[:1].upper()}{verdict[1:]}{tally}.")}</p>{table}</div>\n'
    )


def _plain(value: Any) -> Any:
    """A value of JSON in a table: intervals and the like as text."""
    if isinstance(value, list):
        return f"[{', '.join(f'{item:.4g}' if isinstance(item, float) else str(item) for item in value)}]"
    return str(value) if isinstance(value, (bool, dict)) else value


REPORTS = Path("reports")
WANTED = "a run directory, a folder of run directories, an ablation file, or a results folder with runs.jsonl"


def write_report(
    paths: Sequence[Path],
    *,
    out: Path | None = None,
    runs: Path = Path("runs"),
    results: Path = Path("docs/results"),
) -> Path:
    """Write the page of one run, of several runs or of an ablation; return its ``index.html``.

    Args:
        paths: run directories (or folders of them), or one ablation: its file or its results folder.
        out: folder of the page; by default ``reports/<name>``.
        runs: where run directories of an ablation are looked for.
        results: where the records of an ablation file are.

    Raises:
        RunError: a path is none of these, a file of it cannot be read, the page cannot be written.
        RecipeError: an ablation file is wrong.
    """
    page, name = page_of(paths, runs=runs, results=results)
    return write_page(page, out or REPORTS / name)


def page_of(paths: Sequence[Path], *, runs: Path, results: Path) -> tuple[Page, str]:
    """The page that ``write_report`` writes, and the name of its folder."""
    if _is_ablation(paths):
        recorded = _ablation(paths[0], results)
        return ablation_page(recorded, runs), recorded.ablation.name
    found = [read_run(path) for path in _directories(paths)]
    name = found[0].name if len(found) == 1 else f"{found[0].recipe['name']} and {len(found) - 1} more"
    return run_page(found), slug(name) or "runs"


def watched_files(paths: Sequence[Path], *, runs: Path, results: Path) -> list[Path]:
    """What changes while runs go on, of all that ``page_of`` reads; a file of it may not be there."""
    if _is_ablation(paths):
        folder = _records_of(paths[0]) or results
        names = [path for path in sorted(folder.glob("*")) if path.is_file()]
        names += [] if _records_of(paths[0]) else sorted(results.glob("*/runs.jsonl"))
        return [*names, *sorted(runs.glob("*/*/seed*/metrics.jsonl"))]
    return [
        file
        for run in _directories(paths)
        for file in (
            *(run / f"{name}.json" for name in ("result", "recipe", "environment", "collapse")),
            run / "metrics.jsonl",
        )
    ]


def _is_ablation(paths: Sequence[Path]) -> bool:
    ablations = [path for path in paths if _records_of(path) is not None or path.suffix == ".py"]
    if ablations and len(paths) > 1:
        raise RunError(f"{ablations[0]} is an ablation and has a page of its own; give it alone, or give runs only")
    return bool(ablations)


def _directories(paths: Sequence[Path]) -> list[Path]:
    return list(dict.fromkeys(run for path in paths for run in _runs(path)))


def _ablation(path: Path, results: Path) -> Recorded:
    folder = _records_of(path)
    if folder is not None:
        return from_folder(folder)
    if not path.is_file():
        raise RunError(f"{path}: there is no such file; expected {WANTED}")
    return from_file(path, results)


def _records_of(path: Path) -> Path | None:
    """The results folder that a path is or is in."""
    if path.name == "runs.jsonl" and path.is_file():
        return path.parent
    return path if (path / "runs.jsonl").is_file() else None


def _runs(path: Path) -> list[Path]:
    if is_run(path):
        return [path]
    below = sorted(found.parent for found in path.glob("**/seed*/recipe.json")) if path.is_dir() else []
    if not below:
        what = "neither a run nor a folder of runs" if path.exists() else "there is no such file or folder"
        raise RunError(f"{path}: {what}; expected {WANTED}")
    return below
