"""Tables of an ablation, made from its records alone: the same records give the same bytes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sslcollapse.ablation.claims.judge import judge
from sslcollapse.ablation.claims.needs import needs_lines
from sslcollapse.ablation.claims.schema import LEAST_CELLS
from sslcollapse.ablation.claims.verdict import verdict_lines
from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.intervals import Correlation, correlate, rounded, summarise
from sslcollapse.ablation.tables.baselines import ENCODER, baseline_rows, rows_with
from sslcollapse.ablation.tables.columns import (
    SECTIONS,
    Column,
    best_by_validation,
    columns,
    full_title,
    heads,
    labels,
    legend,
    markdown,
    shown_difference,
    shown_summary,
)
from sslcollapse.ablation.tables.effects import Effect, effects, planned_differences, unpaired
from sslcollapse.ablation.values import Cell, show
from sslcollapse.core.texts import csv_text
from sslcollapse.runs.quantities import TRAINED, TURNED_OVER, is_number

__all__ = [
    "Column",
    "Correlated",
    "Effect",
    "best_by_validation",
    "columns",
    "correlations",
    "effects",
    "page",
    "results_table",
    "table_csv",
    "unpaired",
]


class Correlated(NamedTuple):
    """The correlation of two metrics' means over the cells of one base recipe."""

    base: str
    accuracy: Column
    rank: Column
    correlation: Correlation


def page(ablation: Ablation, records: Records, failures: Mapping[str, str], command: str) -> str:
    """The Markdown page: how it was made, the claim's verdict, tables, differences, correlations, failed runs.

    Args:
        ablation: what was planned.
        records: what is finished.
        failures: a run's name (``cora encoder.hidden=[64] seed=0``) → its error.
        command: what makes the page.
    """
    shown = records.of(ablation.cells, ablation.seeds)
    every = columns(ablation, shown)
    planned = {cell.hash for cell in ablation.cells}
    others = sum(record["hash"] not in planned for record in records)
    lines = [f"# {ablation.name}", "", f"    {command}", "", _provenance(ablation, shown, others), ""]
    aside = records.set_aside(ablation.cells, ablation.seeds)
    if aside:
        lines += ["Recorded runs of the same hash that are other runs, and count for nothing here:", ""]
        lines += [*(f"* {count}: {why}" for why, count in aside.items()), ""]
    if any(_mixed(column, ablation, records) for column in every if column.is_rank):
        lines += ["Of a cell whose ranks were measured on different numbers of samples N those of one N are shown.", ""]
    if legend(ablation):
        lines += [legend(ablation), ""]
    lines += [
        "Mean ± standard deviation over seeds, of each run's mean over its splits; evaluation in %.",
        "Settings are chosen by validation only. Effective rank is un-centred unless it says otherwise.",
        "",
    ]
    if ablation.claim is not None:
        verdict = judge(ablation, records)
        lines += ["## Verdict", "", *verdict_lines(verdict), ""]
        lines += ["### Seeds that the tests need", "", *needs_lines(ablation, records, verdict), ""]
    for section in SECTIONS:
        chosen = [column for column in every if column.section == section]
        if chosen:
            lines += [f"## {section}", "", *results_table(ablation, records, chosen, failures), ""]
    metrics = [column for column in every if column.metric]
    if ablation.baselines:
        lines += ["## Difference to the baseline", "", *_difference_lines(ablation, records, metrics), ""]
    found = correlations(ablation, records)
    if found:
        lines += ["## Rank and accuracy across cells", "", *_correlation_lines(found), ""]
    if failures:
        lines += ["## Failed runs", "", *(f"* {run}: {' '.join(error.split())}" for run, error in failures.items()), ""]
    return "\n".join(lines)


def results_table(
    ablation: Ablation, records: Records, chosen: Sequence[Column], failures: Mapping[str, str] | None = None
) -> list[str]:
    """Lines of a Markdown table: one row a cell, its axis values, number of seeds, columns, and errors if any.

    Baselines have rows of their own below, and a first column says which rows are theirs, where some record has any.
    """
    titles = heads(ablation)
    others = rows_with(ablation, records, chosen)
    rows = []
    for cell in ablation.cells:
        own = records.of([cell], ablation.seeds)
        row = [*labels(cell, titles), str(len(own)), *(_shown(column, own) for column in chosen)]
        row = [TRAINED, *row] if others else row
        rows.append([*row, errors_of(cell, ablation.seeds, failures)] if failures else row)
    last = ["error"] if failures else []
    for other in others:
        shown = [other.title, *other.labels(titles), str(len(other.records)), *map(other.shown, chosen)]
        rows.append([*shown, *([""] if failures else [])])
    first = [ENCODER] if others else []
    return markdown([*first, *titles.values(), "seeds", *(column.title for column in chosen), *last], rows)


def errors_of(cell: Cell, seeds: int, failures: Mapping[str, str]) -> str:
    """The errors of a cell's failed runs, each once, with the number of runs."""
    found = [" ".join(failures[name].split()) for name in _run_names(cell, seeds) if name in failures]
    counts = {error: found.count(error) for error in found}
    return "; ".join(f"{error} ({count} run{'s' if count > 1 else ''})" for error, count in counts.items())


def correlations(ablation: Ablation, records: Records) -> list[Correlated]:
    """Of each effective rank with each test metric over the cells of a base recipe, at least 6 that differ."""
    shown = records.of(ablation.cells, ablation.seeds)
    metrics = [column for column in columns(ablation, shown) if column.metric]
    accuracies, ranks = ([column for column in metrics if column.section == name] for name in SECTIONS[:2])
    found = []
    for base in dict.fromkeys(cell.base for cell in ablation.cells):
        cells = [cell for cell in ablation.cells if cell.base == base]
        for accuracy, rank in itertools.product(accuracies, ranks):
            own = rank.alike([records.of([cell], ablation.seeds) for cell in cells])
            means = [[_mean(column, group) for column in (accuracy, rank)] for group in own]
            pairs = [(x, y) for x, y in means if x is not None and y is not None]
            correlation = correlate([x for x, _ in pairs], [y for _, y in pairs])
            if correlation is not None:
                found.append(Correlated(base, accuracy, rank, correlation))
    return found


def table_csv(ablation: Ablation, records: Records) -> str:
    """All columns, one row a cell: mean and std unrounded; difference to the baseline, interval, pairs, p-values.

    The interval is the corrected one, as on the page; of the p-values both are there.
    """
    shown = records.of(ablation.cells, ablation.seeds)
    every = columns(ablation, shown)
    paths = [path for axis in ablation.axes for path in axis]
    paths = ["base", *paths] if len({cell.base for cell in ablation.cells}) > 1 or not paths else paths
    compared = {column.path: effects(ablation, records, column) for column in every if column.metric}
    others = baseline_rows(ablation, records, every)
    titles = ["hash", *([ENCODER] if others else []), *paths, "seeds"]
    for column in every:
        titles += [column.path] if column.is_text else [f"{column.path}:{part}" for part in ("mean", "std")]
        if column.metric and ablation.baselines:
            titles += [f"{column.path}:{part}" for part in ("difference", "low", "high", "pairs", "p", "p_corrected")]
    rows = [titles]
    for cell in ablation.cells:
        own = records.of([cell], ablation.seeds)
        row: list[Any] = [cell.hash, *([TRAINED] if others else []), *(show(cell.at(path)) for path in paths), len(own)]
        for column in every:
            if column.is_text:
                row.append(_texts(column, column.comparable(own)[0]))
                continue
            summary = summarise(list(column.by_seed(own).values()))
            row += ["", ""] if summary is None else [summary.mean, summary.std]
            if column.metric and ablation.baselines:
                row += _effect_fields(compared[column.path].get(cell.hash))
        rows.append(row)
    for other in others:
        row = ["", other.name, *other.labels(paths, lambda _, value: show(value)), len(other.records)]
        for column in every:
            row += [other.shown(column).replace("–", "")] if column.is_text else other.numbers(column)
            row += [""] * 6 if column.metric and ablation.baselines and not column.is_text else []
        rows.append(row)
    return csv_text(rows)


def _effect_fields(effect: Effect | None) -> list[Any]:
    if effect is None:
        return [""] * 6
    difference, corrected = effect
    low, high = difference.interval or (None, None)
    ends = ["" if value is None else rounded(value) for value in (low, high)]
    return [difference.mean, *ends, difference.n, *("" if p is None else rounded(p) for p in (difference.p, corrected))]


def _difference_lines(ablation: Ablation, records: Records, metrics: Sequence[Column]) -> list[str]:
    titles = heads(ablation)
    found = [effects(ablation, records, column) for column in metrics]
    reasons = [unpaired(ablation, records, column) for column in metrics]
    rows = []
    for cell in ablation.cells:
        if cell.hash in ablation.baselines:
            own = [by_hash.get(cell.hash) for by_hash in found]
            counts = [effect.difference.n for effect in own if effect]
            pairs = " / ".join(map(str, counts if len(set(counts)) > 1 else counts[:1])) or "0"
            shown = [
                shown_difference(effect and effect.difference, column, effect and effect.corrected)
                for effect, column in zip(own, metrics, strict=True)
            ]
            why = [reason.get(cell.hash) for reason in reasons]
            shown = [f"{text} ({each})" if each else text for text, each in zip(shown, why, strict=True)]
            rows.append([*labels(cell, titles), pairs, *shown])
    lines = [*markdown([*titles.values(), "pairs", *map(full_title, metrics)], rows), ""]
    if any(effect.corrected is not None for by_hash in found for effect in by_hash.values()):
        sizes = {planned_differences(ablation, records, column) for column in metrics} - {0}
        if sizes == {1}:
            lines.append("Paired over equal seeds and splits; Student's 95 % intervals and two-sided p-values;")
            lines.append("evaluation in points of %.")
        else:
            count = " or ".join(map(str, sorted(sizes)))
            lines += [
                "Paired over equal seeds and splits; Student's intervals and two-sided p-values, both corrected by",
                f"Bonferroni over the {count} differences of a column, so that the intervals hold together at 95 %;",
                "evaluation in points of %.",
            ]
    else:
        lines.append("Paired over equal seeds and splits; evaluation in points of %.")
    if any(effect.difference.n == 1 for by_hash in found for effect in by_hash.values()):
        lines.append("One pair gives no interval: the splits of one seed say nothing about other seeds.")
    return lines


def _correlation_lines(found: Sequence[Correlated]) -> list[str]:
    def shown(value: float, interval: tuple[float, float] | None) -> str:
        return f"{value:+.2f}" + (f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else "")

    rows = [
        [
            each.base,
            each.accuracy.title,
            each.rank.title,
            str(each.correlation.n),
            shown(each.correlation.spearman, each.correlation.spearman_interval),
            shown(each.correlation.pearson, each.correlation.pearson_interval),
        ]
        for each in found
    ]
    return [
        *markdown(["base", "accuracy", "effective rank", "cells", "Spearman", "Pearson"], rows),
        "",
        "Of the cells' means over seeds, within a base recipe, since ranks of different data or networks are not",
        f"comparable; at least {LEAST_CELLS} cells that differ; 95 % intervals by Fisher's z, each by itself, which",
        "take the cells for a sample.",
    ]


def _provenance(ablation: Ablation, shown: Sequence[Mapping[str, Any]], others: int) -> str:
    total = len(ablation.cells) * ablation.seeds
    text = f"{len(shown)} of {total} runs ({len(ablation.cells)} cells × {ablation.seeds} seeds) are finished."
    text += f" Other recipes' records in the file, which count for nothing here: {others}." if others else ""
    for key in ("sslcollapse", "torch", "torch_geometric"):
        text += _distinct(key, key, shown)
    versions = sorted({cell.streams for cell in ablation.cells if cell.streams is not None})
    text += f" Random streams: version {', '.join(map(str, versions))}." if versions else ""
    used = [found for record in shown if isinstance(found := record.get("plugins"), Mapping)]
    plugins = {f"{name} of {origin}" for found in used for name, origin in found.items()}
    text += f" Plug-ins: {', '.join(sorted(plugins))}." if plugins else ""
    text += _left_in_targets(shown)
    text += _distinct("Device", "device", shown)
    return text + _distinct("Threads", "threads", shown) + _distinct("Commit", "commit", shown)


def _left_in_targets(shown: Sequence[Mapping[str, Any]]) -> str:
    """How much of their initialisation targets have left, of runs that say it."""
    said = [(record.get("target") or {}).get("initialization_left") for record in shown]
    found = [float(value) for value in said if value is not None and is_number(value)]
    if not found:
        return ""
    ends = dict.fromkeys(f"{100 * value:.2g} %" for value in (min(found), max(found)))
    over = sum(value <= TURNED_OVER for value in found)
    return f" Targets have {' to '.join(ends)} of their initialisation left; {over} of {len(found)} have turned over."


def _distinct(title: str, key: str, shown: Sequence[Mapping[str, Any]]) -> str:
    values = sorted({str(record[key]) for record in shown if record.get(key) is not None})
    return f" {title}: {', '.join(values)}." if values else ""


def _run_names(cell: Cell, seeds: int) -> list[str]:
    return [f"{cell.name} seed={seed}" for seed in range(seeds)]


def _texts(column: Column, records: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(sorted({str(value) for record in records if (value := column.of(record)) is not None}))


def _mixed(column: Column, ablation: Ablation, records: Records) -> bool:
    """Whether the runs of some cell were measured on different numbers of samples."""
    groups = [records.of([cell], ablation.seeds) for cell in ablation.cells]
    return any(len(set(map(column.measured_at, group))) > 1 for group in groups)


def _mean(column: Column, records: Sequence[Mapping[str, Any]]) -> float | None:
    summary = summarise(list(column.by_seed(records).values()))
    return summary and summary.mean


def _shown(column: Column, records: Sequence[Mapping[str, Any]]) -> str:
    if column.is_text:
        return _texts(column, column.comparable(records)[0]) or "–"
    return shown_summary(summarise(list(column.by_seed(records).values())), column)
