"""The verdict on an ablation's claim, computed from intervals over seeds; ``docs/claims.md`` says how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Any

from sslcollapse.ablation.claims.schema import LEAST_CELLS, Check, Claim
from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.intervals import (
    LEVEL,
    ROUNDING,
    Difference,
    PairingError,
    bootstrap_spearman,
    different,
    fewest_seeds,
    paired_by_seed,
    paired_difference,
    shared_confidence,
    slope,
    student,
)
from sslcollapse.ablation.statistics.pairing import WIDENING, Chosen, ClaimPoint, Planned, choose
from sslcollapse.ablation.statistics.power import FEWEST_SEEDS, look_levels, regions
from sslcollapse.ablation.tables.columns import Column, in_unit, validation_by_seed
from sslcollapse.ablation.values import Cell

OUTCOMES = ("supported", "contradicted", "inconclusive", "not run")
DECIDED = OUTCOMES[:2]

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
"""Hash of a cell → its records."""


@dataclass(frozen=True)
class Place:
    """A point of a test with the cells that were chosen for it."""

    point: ClaimPoint
    cell: Chosen[Cell]
    against: Chosen[Cell] | None

    @property
    def sides(self) -> list[Chosen[Cell]]:
        """Both."""
        return [self.cell] if self.against is None else [self.cell, self.against]


@dataclass(frozen=True)
class Result:
    """What the records say of one test, in the metric's unit: points of % for accuracy.

    Attributes:
        estimate: mean with its interval over ``n`` seeds, or a correlation; None where nothing could be computed.
        outcome: one of ``OUTCOMES``.
        places: one, or one a position of a slope or trend; none of a correlation.
        cells: number of cells of a correlation.
        margin: smallest effect that counts; None while no record says what is attainable.
        reason: why there is no estimate, or no interval.
        confidence: of its interval.
        look: number of seeds of the planned look that it is from; None of a plan without looks, and before the first.
    """

    test: Planned
    estimate: Difference | None
    outcome: str
    places: Sequence[Place] = ()
    cells: int = 0
    reason: str = ""
    margin: float | None = None
    confidence: float = 0.95
    look: int | None = None

    @property
    def decided(self) -> bool:
        """Whether it is supported or contradicted."""
        return self.outcome in DECIDED

    def ended(self, last: int) -> bool:
        """Whether no later look can change it: it is decided, or at the last look, or has nothing to be computed of."""
        return self.decided or self.look == last or (self.look is not None and self.outcome == "not run")

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
        confidence: of each interval; of a plan with looks, that of all looks together.
        finished: number of the ablation's runs that have records.
        total: number of its planned runs.
        seeds: planned of each cell.
        looks: numbers of seeds at which the plan may be looked at; none where it is looked at once, at its end.
        judged: numbers of seeds at which there were verdicts before, of which the intervals know nothing.
    """

    ablation: str
    claim: Claim
    results: Sequence[Result]
    confidence: float
    finished: int
    total: int
    seeds: int
    looks: Sequence[int] = ()
    judged: Sequence[int] = ()

    @property
    def interim(self) -> bool:
        """Whether a part of the plan is still to be run."""
        return self.finished < self.total

    @property
    def counts(self) -> dict[str, int]:
        """Outcome → number of tests."""
        return {outcome: sum(result.outcome == outcome for result in self.results) for outcome in OUTCOMES}

    @property
    def text(self) -> str:
        """``supported``, ``not supported``, ``inconclusive at n = 5``, ``interim`` or ``not run``."""
        counts, total = self.counts, len(self.results)
        if counts["not run"] == total:
            return "not run"
        if self.interim:
            return "interim"
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
        first = f"{counts['supported']} of {len(self.results)} tests supported"
        return ("so far " if self.interim else "") + ", ".join([first, *rest])


def judge(ablation: Ablation, records: Records) -> Verdict:
    """The verdict on the claim of an ablation that has one.

    Raises:
        ValueError: it has none.
    """
    if ablation.claim is None:
        raise ValueError(f"{ablation.name} claims nothing")
    level, looks, tests = LEVEL / len(ablation.tests), tuple(ablation.looks), ablation.tests
    most = looks[-1] if looks else ablation.seeds
    by_cell = {cell.hash: records.of([cell], most) for cell in ablation.cells}
    finished = sum(map(len, by_cell.values()))
    if looks:
        results = [_at_looks(test, by_cell, looks, level) for test in tests]
        over = all(result.ended(most) for result in results)
        total = finished if over else len(ablation.cells) * most
    else:
        results = [_result(test, by_cell, confidence_of(test.check, level)) for test in tests]
        total = len(ablation.cells) * max(ablation.seeds, ablation.planned_seeds)
    seeds = max(most, ablation.planned_seeds)
    confidence = shared_confidence(len(tests))
    return Verdict(ablation.name, ablation.claim, results, confidence, finished, total, seeds, looks, ablation.judged)


def confidence_of(check: Check, level: float) -> float:
    """Of a test's interval: of an equivalence test both ends have the whole level, as they are two one-sided tests."""
    return 1 - (2 * level if check.expect == "equivalent" else level)


def _at_looks(test: Planned, by_cell: Runs, looks: tuple[int, ...], level: float) -> Result:
    """The result of the first look that decides a test, else of the newest one that has all of its runs."""
    newest: Result | None = None
    levels = look_levels(looks, 1 - confidence_of(test.check, level))
    for look, own_level in zip(looks, levels, strict=True):
        seen = {cell.hash: [record for record in by_cell[cell.hash] if record["seed"] < look] for cell in test.every}
        if newest is not None and any(len(records) < look for records in seen.values()):
            break
        found = _result(test, seen, 1 - own_level)
        if any(len(records) < look for records in seen.values()):  # before the first look nothing is decided
            return replace(found, outcome="inconclusive") if found.decided else found
        newest = replace(found, look=look)
        if newest.decided:
            break
    return newest or _result(test, by_cell, 1 - level)


def outcome(expect: str, margin: float, interval: tuple[float, float] | None) -> str:
    """Supported if the interval lies wholly within the expectation, contradicted if wholly outside it."""
    if interval is None:
        return "inconclusive"
    low, high = interval
    inside, outside = regions(expect, margin)
    if inside[0] < low and high < inside[1]:
        return "supported"
    return "contradicted" if any(start < low and high < end for start, end in outside) else "inconclusive"


def _result(test: Planned, by_cell: Runs, confidence: float) -> Result:
    check = test.check
    if check.kind == "correlation":
        return _correlation(test, by_cell, confidence)
    places = [place for point in test.points if (place := _place(check, point, by_cell)) is not None]
    if len(places) < len(test.points):
        return Result(test, None, "not run", reason="no records")
    margin = _margin(check, places, by_cell)
    try:
        estimate = _estimate(check, places, by_cell, confidence)
    except PairingError as error:
        return Result(test, None, "not run", places, reason=str(error), margin=margin)
    if estimate is None:
        return Result(test, None, "not run", places, reason=_missing(check, places, by_cell), margin=margin)
    factor = 100 if _column(check.metric).percent else 1
    same = any(side.same for place in places for side in place.sides)
    ends = None if same else estimate.interval
    interval = ends and (factor * ends[0], factor * ends[1])
    std = None if same or estimate.std is None else factor * estimate.std
    p = None if same else estimate.p
    estimate = estimate._replace(mean=factor * estimate.mean, interval=interval, p=p, std=std)
    reason = "" if interval else "one seed" if estimate.n == 1 or same else "the same in all seeds"
    made = outcome(check.expect, margin, interval) if estimate.n >= FEWEST_SEEDS else "inconclusive"
    return Result(test, estimate, made, places, reason=reason, margin=margin, confidence=confidence)


def _estimate(check: Check, places: Sequence[Place], by_cell: Runs, confidence: float) -> Difference | None:
    column = _column(check.metric)
    widening = WIDENING if any(side.crossed for place in places for side in place.sides) else 1.0
    if check.kind == "difference":
        (place,) = places
        if place.against is None:
            return None
        own, other = column.paired(*(_records(side, by_cell) for side in place.sides))
        return paired_difference(own, other, confidence, widening)
    if check.kind == "trend":
        measured = column.comparable(*(_records(place.cell, by_cell) for place in places))
        gains = [column.by_seed(records) for records in measured]
    else:
        gains = [paired_by_seed(*column.paired(*(_records(side, by_cell) for side in place.sides))) for place in places]
    positions = [place.point.position or 0.0 for place in places]
    seeds = sorted(set.intersection(*(set(gain) for gain in gains)))
    slopes = [slope(positions, [gain[seed] for gain in gains]) for seed in seeds]
    sizes = (abs(number) for place in places for number in column.by_seed(_records(place.cell, by_cell)).values())
    return student(slopes, confidence, scale=max(sizes, default=0) / _span(places), widening=widening)


def _margin(check: Check, places: Sequence[Place], by_cell: Runs) -> float:
    """The check's margin, or the metric's default; of a slope, what changes it so much from one end to the other."""
    if check.margin is not None:
        return check.margin
    used = [record for place in places for side in place.sides for record in _records(side, by_cell)]
    least = _column(check.metric).least_change(used)
    return least if check.kind == "difference" else least / _span(places)


def _span(places: Sequence[Place]) -> float:
    positions = [place.point.position or 0.0 for place in places]
    return max(positions) - min(positions)


def _missing(check: Check, places: Sequence[Place], by_cell: Runs) -> str:
    """Why no seed has an estimate."""
    column = _column(check.metric)
    used = [cell for place in places for side in place.sides for cell in side.every]
    without = [cell for cell in used if not column.by_seed(by_cell[cell.hash])]
    if without:
        return f"no {check.metric} in the records of {without[0].name}"
    sizes = {column.measured_at(record) for cell in used for record in by_cell[cell.hash]}
    return "ranks measured on different numbers of samples" if len(sizes) > 1 else "no seed has all of its runs"


def _correlation(test: Planned, by_cell: Runs, confidence: float) -> Result:
    check = test.check
    groups: list[Any] = [by_cell[cell.hash] for cell in test.points[0].cells]
    columns = [_column(path) for path in (check.metric, check.with_metric)]
    for column in columns:
        groups = column.alike(groups)
    both = [[column.by_seed(group) for column in columns] for group in groups]
    both = [pair for pair in both if pair[0].keys() & pair[1].keys()]
    seeds = sorted(set.intersection(*(set(pair[0]) & set(pair[1]) for pair in both))) if both else []
    if len(both) < LEAST_CELLS or not seeds:
        reason = "no seed has all of its runs" if both and not seeds else f"fewer than {LEAST_CELLS} cells have records"
        return Result(test, None, "not run", cells=len(both), reason=reason)
    x, y = ([[pair[which][seed] for seed in seeds] for pair in both] for which in (0, 1))
    differing = different(*([fsum(values) for values in side] for side in (x, y)))
    if differing < LEAST_CELLS:
        reason = f"{differing} cells differ, fewer than {LEAST_CELLS}"
        return Result(test, None, "not run", cells=len(both), reason=reason)
    found = bootstrap_spearman(x, y, confidence)
    if found is None:
        return Result(test, None, "inconclusive", cells=len(both), reason="a metric is the same in all cells")
    estimate, interval = found
    margin = check.margin or 0.0
    made = outcome(check.expect, margin, interval)
    fewest = fewest_seeds(confidence)
    reason = "" if interval else f"fewer than {fewest} seeds" if fewest else "no number of seeds suffices"
    whole = Difference(estimate, interval, len(seeds))
    return Result(test, whole, made, cells=len(both), reason=reason, margin=margin, confidence=confidence)


def _place(check: Check, point: ClaimPoint, by_cell: Runs) -> Place | None:
    """The point's cells that have records, chosen by validation where there are several; None without any."""
    cell = _choose(check, point.cells, by_cell)
    against = _choose(check, point.against, by_cell)
    return None if cell is None or (against is None and point.against) else Place(point, cell, against)


def _choose(check: Check, candidates: Sequence[Cell], by_cell: Runs) -> Chosen[Cell] | None:
    """The candidate with the best mean validation metric, on other seeds; a test metric is never looked at."""
    if len(candidates) == 1:
        (only,) = candidates
        return Chosen((only, only)) if by_cell[only.hash] else None
    same = check.metric.rpartition(".")[2].replace("test_", "validation_", 1)
    return choose([(cell, validation_by_seed(by_cell[cell.hash], check.probe, same)) for cell in candidates])


def _records(side: Chosen[Cell], by_cell: Runs) -> list[Mapping[str, Any]]:
    return side.records(lambda cell: by_cell[cell.hash])


def _column(metric: str) -> Column:
    return Column(metric, "", "")


def _shown(check: Check, value: float) -> str:
    if check.kind == "correlation":
        return f"{value:+.2f}"
    return in_unit(value, _column(check.metric), "+") if check.kind == "difference" else f"{value:+.4g}"
