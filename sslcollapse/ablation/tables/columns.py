"""Which quantities of a record the tables show, and how they write numbers, cells and axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.records import FRACTION, lookup
from sslcollapse.ablation.statistics.intervals import Difference, PairingError, Summary
from sslcollapse.ablation.statistics.pairing import best_of
from sslcollapse.ablation.values import Cell, labelled, plain
from sslcollapse.core.texts import printable
from sslcollapse.runs.quantities import RANK_MARGIN, RANKS, is_number

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
        return self.path.startswith(("evaluation.", "untrained.", "baselines."))

    @property
    def is_rank(self) -> bool:
        """Whether it counts dimensions."""
        return self.path.startswith("rank.") and self.path.rpartition(".")[2] in RANKS

    def least_change(self, records: Sequence[Mapping[str, Any]]) -> float:
        """The smallest change that counts, in the metric's unit: of a rank 1 % of what is attainable, else anything."""
        parent, _, last = self.path.rpartition(".")
        if not self.path.startswith("rank.") or last not in (*RANKS, FRACTION):
            return 0.0
        if last == FRACTION:
            return RANK_MARGIN
        known = [lookup(record, f"{parent}.attainable") for record in records]
        return RANK_MARGIN * max(filter(_is_number, known), default=0)

    def of(self, record: Mapping[str, Any]) -> Any:
        """Its value in one record: a number, a text, or None."""
        value = lookup(record, self.path)
        return value.get("mean") if isinstance(value, Mapping) else value

    @property
    def is_text(self) -> bool:
        """Whether it is shown as it is, without mean and deviation."""
        return self.path.endswith((".solver", ".attainable", ".n"))

    def measured_at(self, record: Mapping[str, Any]) -> Any:
        """The number of samples N that a rank is of; None of anything that does not depend on it."""
        return lookup(record, f"{self.path.rpartition('.')[0]}.n") if self.path.startswith("rank.") else None

    def comparable(self, *groups: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
        """Of each group the records of one N, at which the groups have most seeds in common; of equals the larger.

        A rank depends on the number of samples that it is measured on: ranks at different N are not averaged or paired.
        """
        sizes = dict.fromkeys(self.measured_at(record) for group in groups for record in group)
        if len(sizes) < 2:
            return [list(group) for group in groups]

        def at(n: Any) -> list[list[Mapping[str, Any]]]:
            return [[record for record in group if self.measured_at(record) == n] for group in groups]

        def common(n: Any) -> int:
            return len(set.intersection(*({record["seed"] for record in group} for group in at(n))))

        return at(max(sizes, key=lambda n: (common(n), n or 0)))

    def alike(self, groups: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[Mapping[str, Any]]]:
        """Of each group the records of the one N that most records have; of equals the larger."""
        sizes = [self.measured_at(record) for group in groups for record in group]
        most = max(dict.fromkeys(sizes), key=lambda n: (sizes.count(n), n or 0), default=None)
        return [[record for record in group if self.measured_at(record) == most] for group in groups]

    def paired(
        self, own: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]
    ) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
        """``splits_by_seed`` of both, ready to be paired.

        Raises:
            PairingError: a seed has more splits on one side than on the other.
        """
        own, other = self.comparable(own, other)
        counts = [{record["seed"]: self._count(record) for record in records} for records in (own, other)]
        for seed in counts[0].keys() & counts[1].keys():
            if counts[0][seed] != counts[1][seed]:
                raise PairingError(
                    f"{self.path}, seed {seed}: {counts[0][seed]} splits cannot be paired with {counts[1][seed]}"
                )
        return self.splits_by_seed(own), self.splits_by_seed(other)

    def _count(self, record: Mapping[str, Any]) -> int:
        """Splits that a value is the mean of; long lists of them are not kept, but their number is."""
        entry = lookup(record, self.path)
        values = entry.get("values") if isinstance(entry, Mapping) else None
        return entry.get("n", len(values or [0])) if isinstance(entry, Mapping) else 1

    def by_seed(self, records: Sequence[Mapping[str, Any]]) -> dict[int, float]:
        """Seed → finite number; of a rank those of one N."""
        (records,) = self.comparable(records)
        values = {record["seed"]: self.of(record) for record in records}
        return {seed: value for seed, value in values.items() if _is_number(value)}

    def splits_by_seed(self, records: Sequence[Mapping[str, Any]]) -> dict[int, list[float]]:
        """Seed → its values, one a split where the record keeps them, else their mean."""
        found = {}
        for record in self.comparable(records)[0]:
            entry = lookup(record, self.path)
            values = entry.get("values") if isinstance(entry, Mapping) else None
            if isinstance(values, list) and values and all(map(is_number, values)):
                found[record["seed"]] = list(values)
            elif _is_number(self.of(record)):
                found[record["seed"]] = [self.of(record)]
        return found


class Best(NamedTuple):
    """The cell that validation chooses: its first record, mean validation metric and the number of seeds compared."""

    record: Mapping[str, Any]
    mean: float
    n: int


def best_by_validation(records: Sequence[Mapping[str, Any]], probe: str) -> Best | None:
    """The recipe with the highest mean validation metric of a probe, as ``best_of`` has it; None of no records.

    Hyper-parameters are chosen by this, never by a test metric.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["hash"], []).append(record)
    best = best_of([(group[0], validation_by_seed(group, probe)) for group in groups.values()])
    return best and Best(best[0], best[1].mean, best[1].n)


def validation_by_seed(
    records: Sequence[Mapping[str, Any]], probe: str | None, preferred: str = ""
) -> dict[int, float]:
    """Seed → a probe's validation metric of this name, or its first."""
    results = lookup(records[0], f"evaluation.{probe}") if records else None
    names = [key for key in results if key.startswith("validation_")] if isinstance(results, Mapping) else []
    name = preferred if preferred in names else next(iter(names), "")
    return Column(f"evaluation.{probe}.{name}", "", "").by_seed(records) if name else {}


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


def _is_number(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)


def heads(ablation: Ablation) -> dict[str, str]:
    """Path of each axis whose value differs between cells (of every axis where none does) → a short title."""
    axes = list(itertools.chain.from_iterable(ablation.axes))
    differing = [path for path in ("base", *axes) if len({plain(cell.at(path)) for cell in ablation.cells}) > 1]
    varying = differing or axes or ["base"]
    return {path: _title(path, varying) for path in varying}


def legend(ablation: Ablation) -> str:
    """What the short titles stand for, and the axes that have one value; "" where there is nothing to say."""
    titles = heads(ablation)
    parts = [f"{title} is `{path}`" for path, title in titles.items() if title != path]
    text = f"Axes: {', '.join(parts)}. " if parts else ""
    cell = ablation.cells[0]
    constant = [path for axis in ablation.axes for path in axis if path not in titles]
    if constant:
        text += f"In all cells: {', '.join(f'`{path}` is {labelled(path, cell.at(path))}' for path in constant)}."
    return text.strip()


def labels(cell: Cell, titles: Mapping[str, str]) -> list[str]:
    """A cell's values under these heads."""
    return [labelled(path, cell.at(path)) for path in titles]


def number(value: float, column: Column, sign: str = "") -> str:
    """Evaluation in %, ranks with two decimals, anything else, fractions among it, with four digits."""
    if column.percent:
        return f"{100 * value:{sign}.2f}"
    return f"{value:{sign}.2f}" if column.is_rank else f"{value:{sign}.4g}"


def in_unit(value: float, column: Column, sign: str = "") -> str:
    """``number`` of a value that is in points of % already, if its column is."""
    return number(value / 100 if column.percent else value, column, sign)


def full_title(column: Column) -> str:
    """A column's title outside its section."""
    return f"effective rank, {column.title}" if column.section == SECTIONS[1] else column.title


def shown_summary(summary: Summary | None, column: Column) -> str:
    """``81.00 ± 0.50``."""
    if summary is None:
        return "–"
    mean = number(summary.mean, column)
    return mean if summary.std is None else f"{mean} ± {number(summary.std, column)}"


def shown_difference(difference: Difference | None, column: Column, corrected: float | None = None) -> str:
    """``+1.00 [+0.50, +1.50], p = 0.004``, with a corrected p-value."""
    if difference is None:
        return "–"
    text = number(difference.mean, column, "+")
    if difference.interval is not None:
        text += f" [{', '.join(number(end, column, '+') for end in difference.interval)}]"
    elif difference.n == 1 and difference.splits > 1:
        text += f" over {difference.splits} splits"
    elif difference.n > 1:
        text += " (no spread)"
    return text if corrected is None else f"{text}, {shown_p(corrected)}"


def shown_p(p: float) -> str:
    """``p = 0.012``, or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    escaped = [[printable(" ".join(text.split())).replace("|", "\\|") for text in row] for row in (titles, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return [lines[0], "|" + " --- |" * len(titles), *lines[1:]]


def _title(path: str, paths: Sequence[str]) -> str:
    """The fewest last parts of a path that no other path ends with."""
    parts = path.split(".")
    for count in range(1, len(parts)):
        ending = ".".join(parts[-count:])
        if not any(other != path and f".{other}".endswith(f".{ending}") for other in paths):
            return ending
    return path
