"""Tables of an ablation, made from its records alone: the same records give the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sslcollapse.ablation.grid import Ablation, Cell, show
from sslcollapse.ablation.records import Records, lookup
from sslcollapse.ablation.statistics import Difference, Summary, paired_difference, summarise

DEFAULT_RANKS = ("rank.representation.effective_rank", "rank.prediction.effective_rank")
SECTIONS = ("Evaluation", "Effective rank", "Other")


@dataclass(frozen=True)
class Column:
    """One quantity of a record.

    Attributes:
        path: dotted, into the record; a number, a mapping with ``mean``, or text.
        title: as shown in the page.
        section: the page's table that has it.
        metric: whether it is one of the ablation's metrics, which baselines are compared by.
    """

    path: str
    title: str
    section: str
    metric: bool = True

    @property
    def percent(self) -> bool:
        """Whether the page shows it times 100."""
        return self.path.startswith(("evaluation.", "untrained."))

    def of(self, record: Mapping[str, Any]) -> Any:
        """Its value in one record: a number, a text, or None."""
        value = lookup(record, self.path)
        return value.get("mean") if isinstance(value, Mapping) else value

    def by_seed(self, records: Sequence[Mapping[str, Any]]) -> dict[int, float]:
        """Seed → number."""
        values = {record["seed"]: self.of(record) for record in records}
        return {seed: value for seed, value in values.items() if isinstance(value, (int, float))}


class Best(NamedTuple):
    """The cell that validation chooses: its first record, mean validation metric and number of seeds."""

    record: Mapping[str, Any]
    mean: float
    n: int


def best_by_validation(records: Sequence[Mapping[str, Any]], probe: str) -> Best | None:
    """The recipe with the highest mean validation metric of a probe; of equals the first; None of no records.

    Hyper-parameters are chosen by this, never by a test metric.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["hash"], []).append(record)
    found = []
    for group in groups.values():
        key = next((key for key in group[0]["evaluation"].get(probe, ()) if key.startswith("validation_")), "")
        summary = summarise(list(Column(f"evaluation.{probe}.{key}", "", "").by_seed(group).values()))
        if key and summary is not None:
            found.append(Best(group[0], summary.mean, summary.n))
    return max(found, key=lambda best: best.mean, default=None)


def columns(ablation: Ablation, records: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The ablation's metrics, each followed by what it is read beside.

    A test metric comes with the untrained encoder's, the validation metric and the solver; an effective rank
    with the centred one, what is attainable, and N.
    """
    metrics = list(ablation.metrics)
    if not metrics:
        probes = {name: probe for record in records for name, probe in record["evaluation"].items()}
        metrics = [f"evaluation.{p}.{key}" for p, probe in probes.items() for key in probe if key.startswith("test_")]
        metrics += [path for path in DEFAULT_RANKS if any(lookup(record, path) is not None for record in records)]
    made = [column for metric in metrics for column in _with_companions(metric)]
    return sorted(made, key=lambda column: SECTIONS.index(column.section))


def _with_companions(metric: str) -> list[Column]:
    root, _, rest = metric.partition(".")
    owner, _, last = rest.rpartition(".")
    if root == "evaluation" and last.startswith("test_"):
        name = last.removeprefix("test_")
        title = f"{owner} {name.replace('_', ' ')}"
        return [
            Column(metric, f"{title}, test", SECTIONS[0]),
            Column(f"untrained.{owner}.{last}", "untrained encoder, test", SECTIONS[0], metric=False),
            Column(f"evaluation.{owner}.validation_{name}", f"{title}, validation", SECTIONS[0], metric=False),
            Column(f"evaluation.{owner}.solver", "solver", SECTIONS[0], metric=False),
        ]
    if root == "rank" and last == "effective_rank":
        return [
            Column(metric, owner, SECTIONS[1]),
            Column(f"rank.{owner}.effective_rank_centred", "centred", SECTIONS[1], metric=False),
            Column(f"rank.{owner}.attainable", "attainable", SECTIONS[1], metric=False),
            Column(f"rank.{owner}.n", "N", SECTIONS[1], metric=False),
        ]
    return [Column(metric, metric, SECTIONS[2])]


def page(ablation: Ablation, records: Records, failures: Mapping[str, str], command: str) -> str:
    """The Markdown page: how it was made, the tables by section, differences to the baseline, failed runs."""
    shown = records.of(ablation.cells, ablation.seeds)
    every = columns(ablation, shown)
    lines = [f"# {ablation.name}", "", f"    {command}", "", _provenance(ablation, shown), ""]
    lines += [
        "Mean ± standard deviation over seeds, of each run's mean over its splits; evaluation in %.",
        "Settings are chosen by validation only. Effective rank is un-centred unless it says otherwise.",
        "",
    ]
    for section in SECTIONS:
        chosen = [column for column in every if column.section == section]
        if chosen:
            lines += [f"## {section}", "", *results_table(ablation, records, chosen), ""]
    if ablation.baselines:
        metrics = [column for column in every if column.metric]
        lines += ["## Difference to the baseline", "", *_difference_table(ablation, records, metrics), ""]
        lines += [
            "Paired over equal seeds, with Student's 95 % confidence interval; evaluation in points of %.",
            "",
        ]
    if failures:
        lines += ["## Failed runs", "", *(f"* {run}: {error}" for run, error in failures.items()), ""]
    return "\n".join(lines)


def results_table(ablation: Ablation, records: Records, chosen: Sequence[Column]) -> list[str]:
    """Lines of a Markdown table: one row a cell, its axis values, number of seeds and columns."""
    heads = _heads(ablation)
    rows = []
    for cell in ablation.cells:
        own = records.of([cell], ablation.seeds)
        rows.append([*_labels(cell, heads), str(len(own)), *(_shown(column, own) for column in chosen)])
    return _markdown([*heads, "seeds", *(column.title for column in chosen)], rows)


def table_csv(ablation: Ablation, records: Records) -> str:
    """All columns unrounded, one row a cell: mean and std; difference to the baseline, interval and pairs."""
    shown = records.of(ablation.cells, ablation.seeds)
    every, heads = columns(ablation, shown), _heads(ablation)
    titles = ["hash", *heads, "seeds"]
    for column in every:
        titles += [column.path] if _is_text(column) else [f"{column.path}:{part}" for part in ("mean", "std")]
        if column.metric and ablation.baselines:
            titles += [f"{column.path}:{part}" for part in ("difference", "low", "high", "pairs")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(titles)
    for cell in ablation.cells:
        own = records.of([cell], ablation.seeds)
        row: list[Any] = [cell.hash, *_labels(cell, heads), len(own)]
        for column in every:
            if _is_text(column):
                row.append(_texts(column, own))
                continue
            summary = summarise(list(column.by_seed(own).values()))
            row += ["", ""] if summary is None else [summary.mean, summary.std]
            if column.metric and ablation.baselines:
                difference = _difference(ablation, records, cell, column)
                low, high = (difference and difference.interval) or ("", "")
                row += ["", "", "", ""] if difference is None else [difference.mean, low, high, difference.n]
        writer.writerow(row)
    return text.getvalue()


def _provenance(ablation: Ablation, shown: Sequence[Mapping[str, Any]]) -> str:
    total = len(ablation.cells) * ablation.seeds
    text = f"{len(shown)} of {total} runs ({len(ablation.cells)} cells × {ablation.seeds} seeds) are finished."
    for title, key in (("Device", "device"), ("torch", "torch"), ("torch_geometric", "torch_geometric")):
        text += _distinct(title, key, shown)
    return text + _distinct("Threads", "threads", shown) + _distinct("Commit", "commit", shown)


def _distinct(title: str, key: str, shown: Sequence[Mapping[str, Any]]) -> str:
    values = sorted({str(record[key]) for record in shown if record[key] is not None})
    return f" {title}: {', '.join(values)}." if values else ""


def _difference_table(ablation: Ablation, records: Records, metrics: Sequence[Column]) -> list[str]:
    heads = _heads(ablation)
    rows = []
    for cell in ablation.cells:
        if cell.hash in ablation.baselines:
            differences = [_difference(ablation, records, cell, column) for column in metrics]
            shown = [_shown_difference(d, column) for d, column in zip(differences, metrics, strict=True)]
            rows.append([*_labels(cell, heads), *shown])
    titles = [c.title if c.section == SECTIONS[0] else f"effective rank, {c.title}" for c in metrics]
    return _markdown([*heads, *titles], rows)


def _difference(ablation: Ablation, records: Records, cell: Cell, column: Column) -> Difference | None:
    compared = [other for other in ablation.cells if other.hash == ablation.baselines.get(cell.hash)]
    own, baseline = (column.by_seed(records.of(cells, ablation.seeds)) for cells in ([cell], compared))
    return paired_difference(own, baseline)


def _heads(ablation: Ablation) -> list[str]:
    paths = [path for axis in ablation.axes for path in axis]
    return ["base", *paths] if len({cell.base for cell in ablation.cells}) > 1 or not paths else paths


def _labels(cell: Cell, heads: Sequence[str]) -> list[str]:
    values = {"base": cell.base, **cell.values}
    return [show(values[head]) for head in heads]


def _is_text(column: Column) -> bool:
    return column.path.endswith((".solver", ".attainable", ".n"))


def _texts(column: Column, records: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(sorted({str(value) for record in records if (value := column.of(record)) is not None}))


def _shown(column: Column, records: Sequence[Mapping[str, Any]]) -> str:
    if _is_text(column):
        return _texts(column, records) or "–"
    return _shown_summary(summarise(list(column.by_seed(records).values())), column)


def _shown_summary(summary: Summary | None, column: Column) -> str:
    if summary is None:
        return "–"
    mean = _number(summary.mean, column)
    return mean if summary.std is None else f"{mean} ± {_number(summary.std, column)}"


def _shown_difference(difference: Difference | None, column: Column) -> str:
    if difference is None:
        return "–"
    interval = difference.interval
    shown = "" if interval is None else f" [{', '.join(_number(end, column, '+') for end in interval)}]"
    return f"{_number(difference.mean, column, '+')}{shown}, n = {difference.n}"


def _number(value: float, column: Column, sign: str = "") -> str:
    if column.percent:
        return f"{100 * value:{sign}.2f}"
    return f"{value:{sign}.2f}" if column.section == SECTIONS[1] else f"{value:{sign}.4g}"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    escaped = [[text.replace("|", "\\|") for text in row] for row in (heads, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return [lines[0], "|" + " --- |" * len(heads), *lines[1:]]
