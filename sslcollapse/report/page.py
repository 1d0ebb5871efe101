"""One HTML file that needs nothing beside it; and the page of one run, or of several beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from sslcollapse.core.errors import RunError
from sslcollapse.core.files import write_atomic
from sslcollapse.core.texts import in_html
from sslcollapse.report import tables
from sslcollapse.report.plot import Plot, inline
from sslcollapse.report.plots_run import (
    NamedRun,
    beside_ranks_by_depth,
    fans,
    feature_ranks,
    key_of,
    last_spectra,
    learning,
    others,
    rank_by_depth,
    regularization,
)
from sslcollapse.report.runs import Run, labels
from sslcollapse.report.tables import Table

GENERATOR = "sslcollapse report"
LONG_TABLE = 40
"""Tables with more rows are folded away."""

INDEX, PLOTS, TABLES = "index.html", "plots", "tables"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="{generator}">{refresh}
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="lead">{lead}</p>
</header>
{top}<nav aria-label="Sections">{links}</nav>
<main>
{sections}</main>
<footer>{foot}</footer>
</body>
</html>
"""


@dataclass
class Section:
    """A heading with what stands below it, in this order: HTML, tables, plots, more plots that are folded away.

    Attributes:
        name: the anchor.
        html: already escaped.
        folded: plots that are shown when a reader asks for them.
        closed: whether the tables are folded away too.
    """

    name: str
    title: str
    html: str = ""
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    folded: Sequence[Plot] = ()
    closed: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.html or self.plots or self.folded or any(table.rows for table in self.tables))


@dataclass
class Page:
    """What a report says.

    Attributes:
        lead: one line below the title.
        top: HTML above the list of sections, already escaped.
        notes: what a reader should know before reading on.
        files: path below the output folder → bytes, beside those of plots and tables.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    foot: str
    top: str = ""
    notes: Sequence[str] = ()
    files: dict[str, bytes] = field(default_factory=dict)


def write_page(page: Page, out: Path) -> Path:
    """Write ``index.html``, and plots and tables in folders beside it; files of an earlier report there are replaced.

    Raises:
        RunError: the folder cannot be written, or has an ``index.html`` that is no report.
    """
    index = out / INDEX
    try:
        _check_free(index)
        for folder in (out / PLOTS, out / TABLES):
            folder.mkdir(parents=True, exist_ok=True)
        written = render_page(page)
        html = written.pop(INDEX)
        for name, data in written.items():
            write_atomic(out / name, data)
        _remove_others(out, set(written))
        write_atomic(index, html)
    except OSError as error:
        raise RunError(
            f"{out}: cannot write the report here ({error.strerror}); choose another folder with --out"
        ) from error
    return index


def render_page(page: Page, refresh: float = 0.0) -> dict[str, bytes]:
    """Name → content of all files of a page, of ``index.html`` too.

    Args:
        page: what is on it.
        refresh: seconds after which a browser asks for the page again; 0 for never.
    """
    written: dict[str, bytes] = dict(page.files)
    sections = [_section(section, written) for section in page.sections if not section.empty]
    return written | {INDEX: _html(page, sections, refresh).encode()}


def _html(page: Page, sections: Sequence[str], refresh: float) -> str:
    shown = [section for section in page.sections if not section.empty]
    notes = "".join(f"<li>{in_html(note)}</li>" for note in page.notes)
    return _PAGE.format(
        generator=GENERATOR,
        refresh=f'\n<meta http-equiv="refresh" content="{max(round(refresh), 1)}">' if refresh else "",
        title=in_html(page.title),
        style=files("sslcollapse.report").joinpath("page.css").read_text(encoding="utf-8"),
        lead=in_html(page.lead),
        top=page.top + (f'<div class="notes"><ul>{notes}</ul></div>\n' if notes else ""),
        links="".join(f'<a href="#{section.name}">{in_html(section.title)}</a>' for section in shown),
        sections="".join(sections),
        foot=in_html(page.foot),
    )


def _section(section: Section, written: dict[str, bytes]) -> str:
    tables = "".join(_table(table, written) for table in section.tables if table.rows)
    if section.closed and tables:
        tables = f"<details><summary>Show</summary>{tables}</details>\n"
    plots = _plots(section.plots, written)
    folded = _plots(section.folded, written)
    if folded:
        plots += f"<details><summary>{len(section.folded)} more</summary>{folded}</details>\n"
    return (
        f'<section id="{section.name}">\n<h2>{in_html(section.title)}</h2>\n{section.html}{tables}{plots}</section>\n'
    )


def _table(table: Table, written: dict[str, bytes]) -> str:
    path = f"{TABLES}/{table.name}.csv"
    written[path] = table.csv()
    note = f"{in_html(table.note)} " if table.note else ""
    shown = table.html()
    if len(table.rows) > LONG_TABLE:
        shown = f"<details><summary>{len(table.rows)} rows</summary>{shown}</details>\n"
    return f'{shown}<p class="note">{note}<a href="{path}">CSV</a></p>\n'


def _plots(plots: Sequence[Plot], written: dict[str, bytes]) -> str:
    return f'<div class="plots">\n{"".join(_figure(plot, written) for plot in plots)}</div>\n' if plots else ""


def _figure(plot: Plot, written: dict[str, bytes]) -> str:
    name, number = plot.name, 1
    while f"{PLOTS}/{name}.csv" in written:  # names that differ only in characters a file name cannot have
        number += 1
        name = f"{plot.name}-{number}"
    svg, png = plot.render()
    made = {"SVG": ("svg", svg), "PNG": ("png", png), "CSV": ("csv", plot.csv())}
    links = []
    for word, (suffix, data) in made.items():
        written[f"{PLOTS}/{name}.{suffix}"] = data
        links.append(f'<a href="{PLOTS}/{name}.{suffix}">{word}</a>')
    caption = f"{in_html(plot.caption)} " if plot.caption else ""
    return (
        f"<figure>\n<h3>{in_html(plot.title)}</h3>\n{inline(svg, name, plot.title)}\n"
        f"<figcaption>{caption}{' · '.join(links)}</figcaption>\n</figure>\n"
    )


def _check_free(index: Path) -> None:
    if index.exists() and f'content="{GENERATOR}"' not in index.read_text(encoding="utf-8", errors="replace"):
        raise RunError(f"{index}: there is a page that is no report, and is kept; choose another folder with --out")


def _remove_others(out: Path, kept: set[str]) -> None:
    """Plots and tables of an earlier report that this one does not have."""
    for folder in (PLOTS, TABLES):
        for path in (out / folder).iterdir():
            if path.suffix in (".svg", ".png", ".csv") and f"{folder}/{path.name}" not in kept:
                path.unlink()


OPEN_PLOTS = 12
"""So many plots of a section are open; a network with many layers has the rest folded away."""


def run_page(runs: Sequence[Run]) -> Page:
    """The page of these runs."""
    named = [NamedRun(label, run) for label, run in zip(labels(runs), runs, strict=True)]
    one = runs[0] if len(runs) == 1 else None
    notes = [note if one else f"{label}: {note}" for label, run in named for note in run.notes]
    key = key_of(named)
    spectra = fans(one) if one else last_spectra(named, key)
    what = "the colour is the step" if one else "of the last measured step"
    sections = [
        Section("result", "Result", _finished(named), [tables.accuracy(named), tables.ranks(named)]),
        Section("differences", "What differs", "", [tables.recipe_differences(named)] if not one else []),
        _run_page_section("rank", "Rank over time", [*feature_ranks(named, key), *rank_by_depth(named)], _RANK_WORDS),
        _run_page_section("depth", "Smoothness and overlap", beside_ranks_by_depth(named)),
        _run_page_section(
            "spectra",
            "Spectra",
            spectra,
            f"<p>σₖ/σ₁ against k over the attainable rank, {what}. A fall before the dashed line is lost rank.</p>",
        ),
        _run_page_section("learning", "Learning curves", learning(named, key)),
        _run_page_section("regularization", "Regularization", regularization(named, key)),
        _run_page_section("other", "Other metrics", others(named, key)),
        Section("penalties", "Final penalties", "", [tables.penalties(named)]),
        Section("recipe", "Recipe", "", [tables.recipe(one)] if one else [], closed=True),
        Section("environment", "Environment", "", [tables.environments(named)]),
    ]
    title = one.name if one else f"{len(runs)} runs: {', '.join(dict.fromkeys(run.recipe['name'] for run in runs))}"
    return Page(title, _lead(named), sections, "Made by sslcollapse report from the files of the runs.", notes=notes)


_RANK_WORDS = (
    "<p>Effective rank exp(−Σ p log p), p = σ/Σσ, un-centred, in eval mode on un-augmented inputs. What an output can "
    "attain is the smaller of its own and its weight's limit.</p>"
)


def _run_page_section(name: str, title: str, plots: Sequence[object], html: str = "") -> Section:
    shown = list(plots)
    return Section(name, title, html if shown else "", (), shown[:OPEN_PLOTS], shown[OPEN_PLOTS:])  # type: ignore[arg-type]


def _finished(named: Sequence[NamedRun]) -> str:
    waiting = [label for label, run in named if run.result is None]
    if not waiting:
        return ""
    return "<p>No evaluation yet of what is unfinished; ranks are those of its last measured step.</p>\n"


def _lead(named: Sequence[NamedRun]) -> str:
    if len(named) > 1:
        return f"{sum(run.result is not None for _, run in named)} of {len(named)} are finished."
    (_, run) = named[0]
    state = "finished" if run.result is not None else "unfinished"
    device = run.environment.get("device")
    where = f" on {device}" if device else ""
    when = str(run.environment.get("time", "")).replace("T", " ").replace("+00:00", " UTC")
    return f"{state.capitalize()}, {run.steps:,} steps{where}{f', started {when}' if when else ''}."
