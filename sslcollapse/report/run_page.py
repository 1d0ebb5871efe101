"""The page of one run, or of several beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from sslcollapse.report import tables
from sslcollapse.report.page import Page, Section
from sslcollapse.report.plots_run import (
    NamedRun,
    feature_ranks,
    key_of,
    learning,
    others,
    rank_by_depth,
    regularization,
)
from sslcollapse.report.plots_spectra import fans, last_spectra
from sslcollapse.report.runs import Run, labels

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
        _section("rank", "Rank over time", [*feature_ranks(named, key), *rank_by_depth(named)], _RANK_WORDS),
        _section(
            "spectra",
            "Spectra",
            spectra,
            f"<p>σₖ/σ₁ against k over the attainable rank, {what}. A fall before the dashed line is lost rank.</p>",
        ),
        _section("learning", "Learning curves", learning(named, key)),
        _section("regularization", "Regularization", regularization(named, key)),
        _section("other", "Other metrics", others(named, key)),
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


def _section(name: str, title: str, plots: Sequence[object], html: str = "") -> Section:
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
