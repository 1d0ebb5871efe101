"""The verdict on an ablation's claim, computed from intervals over seeds; ``docs/claims.md`` says how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sslcollapse.ablation.columns import Column, best_of, validation_by_seed
from sslcollapse.ablation.correlation import FEWEST_SEEDS, bootstrap_spearman
from sslcollapse.ablation.grid import Ablation, Cell
from sslcollapse.ablation.notation import in_unit
from sslcollapse.ablation.pairing import LEAST_CELLS, Planned, Point
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.schema import WITHIN, Check, Claim
from sslcollapse.ablation.statistics import ROUNDING, Difference, paired_by_seed, paired_difference, slope, student

LEVEL = 0.05
"""Chance that any interval of a claim misses, shared out over its tests."""
OUTCOMES = ("supported", "contradicted", "inconclusive", "not run")


Runs = Mapping[str, Sequence[Mapping[str, Any]]]
"""Hash of a cell → its records."""


@dataclass(frozen=True)
class Place:
    """A point of a test with the cells that were chosen for it."""

    point: Point
    cell: Cell
    against: Cell | None


@dataclass(frozen=True)
class Result:
    """What the records say of one test, in the metric's unit: points of % for accuracy.

    Attributes:
        estimate: mean with its interval over ``n`` seeds, or a correlation; None where nothing could be computed.
        outcome: one of ``OUTCOMES``.
        places: one, or one a position of a slope or trend; none of a correlation.
        cells: number of cells of a correlation.
        reason: why there is no estimate, or no interval.
    """

    test: Planned
    estimate: Difference | None
    outcome: str
    places: Sequence[Place] = ()
    cells: int = 0
    reason: str = ""

    @property
    def shown(self) -> str:
        """``+1.00 [+0.50, +1.50]``, as on the page."""
        if self.estimate is None:
            return f"– ({self.reason})"
        interval = self.estimate.interval or ()
        ends = [_shown(self.test.check, end) for end in interval]
        rest = f"[{', '.join(ends)}]" if ends else f"({self.reason})"
        rounding = ROUNDING * max(map(abs, interval), default=0.0)
        mean = self.estimate.mean if abs(self.estimate.mean) > rounding else 0.0
        return f"{_shown(self.test.check, mean)} {rest}"


@dataclass(frozen=True)
class Verdict:
    """A claim's results and what they come to.

    Attributes:
        ablation: its name.
        confidence: of each interval.
        finished: number of the ablation's runs that have records.
        total: number of its runs.
    """

    ablation: str
    claim: Claim
    results: Sequence[Result]
    confidence: float
    finished: int
    total: int

    @property
    def counts(self) -> dict[str, int]:
        """Outcome → number of tests."""
        return {outcome: sum(result.outcome == outcome for result in self.results) for outcome in OUTCOMES}

    @property
    def text(self) -> str:
        """``supported``, ``not supported``, ``inconclusive at n = 5``, or ``not run``."""
        counts, total = self.counts, len(self.results)
        if counts["not run"] == total:
            return "not run"
        if counts["supported"] == total:
            return "supported"
        if counts["contradicted"]:
            return "not supported"
        sizes = {result.estimate.n for result in self.results if result.estimate is not None}
        return f"inconclusive at n = {sizes.pop()}" if len(sizes) == 1 else "inconclusive at this n"

    @property
    def tally(self) -> str:
        """``2 of 8 tests supported, 1 contradicted, 5 inconclusive``."""
        counts = self.counts
        rest = [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES[1:] if counts[outcome]]
        return ", ".join([f"{counts['supported']} of {len(self.results)} tests supported", *rest])


def judge(ablation: Ablation, records: Records) -> Verdict:
    """The verdict on the claim of an ablation that has one.

    Raises:
        ValueError: it has none.
    """
    if ablation.claim is None:
        raise ValueError(f"{ablation.name} claims nothing")
    confidence = 1 - LEVEL / len(ablation.tests)
    by_cell = {cell.hash: records.of([cell], ablation.seeds) for cell in ablation.cells}
    results = [_result(test, by_cell, confidence) for test in ablation.tests]
    finished, total = sum(map(len, by_cell.values())), len(ablation.cells) * ablation.seeds
    return Verdict(ablation.name, ablation.claim, results, confidence, finished, total)


def outcome(expect: str, margin: float, interval: tuple[float, float] | None) -> str:
    """Supported if the interval lies wholly within the expectation, contradicted if wholly outside it."""
    if interval is None:
        return "inconclusive"
    low, high = interval
    if expect in ("negative", "not negative"):
        low, high = -high, -low
    if expect == "none":
        inside, outside = -margin < low and high < margin, low > margin or high < -margin
    elif expect in WITHIN:
        inside, outside = high < margin, low > margin
    else:
        inside, outside = low > margin, high < margin
    return "supported" if inside else "contradicted" if outside else "inconclusive"


def _result(test: Planned, by_cell: Runs, confidence: float) -> Result:
    check = test.check
    if check.kind == "correlation":
        return _correlation(test, by_cell, confidence)
    places = [place for point in test.points if (place := _place(check, point, by_cell)) is not None]
    if len(places) < len(test.points):
        return Result(test, None, "not run", reason="no records")
    estimate = _estimate(check, places, by_cell, confidence)
    if estimate is None:
        return Result(test, None, "not run", places, reason=_missing(check, places, by_cell))
    factor = 100 if _column(check.metric).percent else 1
    interval = estimate.interval and (factor * estimate.interval[0], factor * estimate.interval[1])
    estimate = estimate._replace(mean=factor * estimate.mean, interval=interval)
    reason = "" if interval else "one seed" if estimate.n == 1 else "the same in all seeds"
    return Result(test, estimate, outcome(check.expect, check.margin, interval), places, reason=reason)


def _estimate(check: Check, places: Sequence[Place], by_cell: Runs, confidence: float) -> Difference | None:
    column = _column(check.metric)

    def values(cell: Cell) -> dict[int, list[float]]:
        return column.splits_by_seed(by_cell[cell.hash])

    if check.kind == "difference":
        (place,) = places
        return (
            None if place.against is None else paired_difference(values(place.cell), values(place.against), confidence)
        )
    gains = [
        column.by_seed(by_cell[place.cell.hash])
        if place.against is None
        else paired_by_seed(values(place.cell), values(place.against))
        for place in places
    ]
    positions = [place.point.position or 0.0 for place in places]
    seeds = sorted(set.intersection(*(set(gain) for gain in gains)))
    slopes = [slope(positions, [gain[seed] for gain in gains]) for seed in seeds]
    largest = max(
        (abs(number) for place in places for number in column.by_seed(by_cell[place.cell.hash]).values()), default=0
    )
    return student(slopes, confidence, scale=largest / (max(positions) - min(positions)))


def _missing(check: Check, places: Sequence[Place], by_cell: Runs) -> str:
    """Why no seed has an estimate."""
    used = [cell for place in places for cell in (place.cell, place.against) if cell is not None]
    without = [cell for cell in used if not _column(check.metric).by_seed(by_cell[cell.hash])]
    return f"no {check.metric} in the records of {without[0].name}" if without else "no seed has all of its runs"


def _correlation(test: Planned, by_cell: Runs, confidence: float) -> Result:
    check = test.check
    both = [
        [_column(path).by_seed(by_cell[cell.hash]) for path in (check.metric, check.with_metric)]
        for cell in test.points[0].cells
    ]
    both = [pair for pair in both if pair[0].keys() & pair[1].keys()]
    seeds = sorted(set.intersection(*(set(pair[0]) & set(pair[1]) for pair in both))) if both else []
    if len(both) < LEAST_CELLS or not seeds:
        reason = "no seed has all of its runs" if both and not seeds else f"fewer than {LEAST_CELLS} cells have records"
        return Result(test, None, "not run", cells=len(both), reason=reason)
    x, y = ([[pair[which][seed] for seed in seeds] for pair in both] for which in (0, 1))
    found = bootstrap_spearman(x, y, confidence)
    if found is None:
        return Result(test, None, "inconclusive", cells=len(both), reason="a metric is the same in all cells")
    estimate, interval = found
    made = outcome(check.expect, check.margin, interval)
    reason = "" if interval else f"fewer than {FEWEST_SEEDS} seeds"
    return Result(test, Difference(estimate, interval, len(seeds)), made, cells=len(both), reason=reason)


def _place(check: Check, point: Point, by_cell: Runs) -> Place | None:
    """The point's cells that have records, chosen by validation where there are several; None without any."""
    cell = _choose(check, point.cells, by_cell)
    against = _choose(check, point.against, by_cell)
    return None if cell is None or (against is None and point.against) else Place(point, cell, against)


def _choose(check: Check, candidates: Sequence[Cell], by_cell: Runs) -> Cell | None:
    """The candidate with the best mean validation metric; a test metric is never looked at."""
    if len(candidates) == 1:
        return candidates[0] if by_cell[candidates[0].hash] else None
    same = check.metric.rpartition(".")[2].replace("test_", "validation_", 1)
    best = best_of([(cell, validation_by_seed(by_cell[cell.hash], check.probe, same)) for cell in candidates])
    return best and best[0]


def _column(metric: str) -> Column:
    return Column(metric, "", "")


def _shown(check: Check, value: float) -> str:
    if check.kind == "correlation":
        return f"{value:+.2f}"
    return in_unit(value, _column(check.metric), "+") if check.kind == "difference" else f"{value:+.4g}"
