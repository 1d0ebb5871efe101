"""How many seeds each test of a claim needs: before it runs, from recorded variances, and after, at the effect seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sslcollapse.ablation.claims.judge import Result, Verdict, confidence_of, judge
from sslcollapse.ablation.claims.schema import WITHIN
from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.intervals import LEVEL
from sslcollapse.ablation.statistics.pairing import Planned
from sslcollapse.ablation.statistics.power import (
    FEWEST_SEEDS,
    MOST_PLANNED,
    WANTED,
    look_levels,
    regions,
    seeds_needed,
    upper_std,
)
from sslcollapse.ablation.tables.columns import Column, markdown
from sslcollapse.ablation.tables.effects import effects
from sslcollapse.ablation.values import Cell, plain
from sslcollapse.core.errors import RunError


class Spread(NamedTuple):
    """A standard deviation over seeds.

    Attributes:
        n: differences that it is from.
        source: the grid that they are from; "" of this one.
        margin: that counted there.
        of: kind, metric and axis that they are of, and the data; the kind is "" of a difference to a baseline.
    """

    std: float
    n: int
    source: str = ""
    margin: float | None = None
    of: tuple[str, str, str, str] = ("", "", "", "")


@dataclass(frozen=True)
class Need:
    """What a test needs.

    Attributes:
        spread: of its differences over seeds; None where nothing is recorded.
        planned: seeds for the smallest effect that matters; None where it is not stated or no number suffices.
        upper: the same if the standard deviation is at its upper limit.
        settled: seeds that would decide it if the effect seen is the true one; None where none do, or nothing is seen.
        as_: what it would then be.
        most: seeds that may be spent.
    """

    result: Result
    spread: Spread | None
    planned: int | None
    upper: int | None
    settled: int | None
    as_: str
    most: int

    @property
    def answer(self) -> str:
        """Whether it can be settled, for people."""
        estimate = self.result.estimate
        if self.result.test.check.kind == "correlation":
            return "not computed for a correlation"
        if self.result.decided:
            return f"it is: {self.result.outcome}"
        if estimate is None:
            return "nothing recorded" if self.result.reason == "no records" else self.result.reason
        if estimate.std is None or self.spread is None:
            return "not known of one seed"
        if self.settled is None:
            return f"no: not with {MOST_PLANNED:,} seeds"
        return f"no: not with {self.most} seeds" if self.settled > self.most else f"yes, as {self.as_}"


def needs(ablation: Ablation, records: Records, verdict: Verdict) -> list[Need]:
    """What each test needs, in their order; nothing is raised where an earlier grid cannot be read."""
    earlier = _earlier(ablation, records)
    return [_need(ablation, result, earlier) for result in verdict.results]


def needs_lines(ablation: Ablation, records: Records, verdict: Verdict) -> list[str]:
    """A Markdown table of what each test needs, and how to read it."""
    found = needs(ablation, records, verdict)
    titles = ["check", "group", "sd over seeds", "effect that matters", "n for it", "effect seen", "n to settle"]
    lines = [*markdown([*titles, "can it be settled"], [_row(need) for need in found]), ""]
    lines += [
        f"n is the number of seeds, at least {FEWEST_SEEDS}, that decides a test with a chance of {100 * WANTED:g} %,",
        "by an interval at the confidence that the claim uses, for normal noise. In brackets it is the n for the 80 %",
        "upper limit of the standard deviation, which few seeds know badly. The effect seen is uncertain too, so the n",
        "to settle is a guide.",
    ]
    if ablation.claim is not None and ablation.claim.variances and not any(n.spread and n.spread.source for n in found):
        lines.append(f"Of `{ablation.claim.variances}`, the earlier grid that the claim names, nothing is used.")
    return lines


def _need(ablation: Ablation, result: Result, earlier: Sequence[Spread]) -> Need:
    test, claim, looks = result.test, ablation.claim, tuple(ablation.looks)
    check, most = test.check, looks[-1] if looks else claim.most_seeds if claim else 0
    spread = _spread(result, earlier) if check.kind != "correlation" else None
    if spread is None:
        return Need(result, None, None, None, None, "", most)
    level = 1 - confidence_of(check, LEVEL / len(ablation.tests))
    confidence = 1 - (look_levels(looks, level)[-1] if looks else level)
    known = (result.margin, check.margin, spread.margin, 0.0)
    margin = next(margin for margin in known if margin is not None)
    inside, outside = regions(check.expect, margin)
    std = spread.std * test.widening
    planned = upper = None
    if check.expect in WITHIN or check.effect is not None:
        effect = (check.effect or 0.0) * (-1 if check.expect == "negative" else 1)
        planned = seeds_needed(std, effect, [inside], confidence)
        upper = seeds_needed(upper_std(std, spread.n), effect, [inside], confidence)
    settled, as_ = None, ""
    if result.estimate is not None and result.estimate.std is not None:
        seen = result.estimate.mean
        settled = seeds_needed(std, seen, [inside, *outside], confidence)
        as_ = "supported" if inside[0] < seen < inside[1] else "contradicted"
    return Need(result, spread, planned, upper, settled, as_, most)


def _spread(result: Result, earlier: Sequence[Spread]) -> Spread | None:
    """Of the test's own seeds, or of an earlier grid where they are few."""
    own = result.estimate
    mine = Spread(own.std, own.n) if own is not None and own.std is not None else None
    if mine is not None and mine.n >= FEWEST_SEEDS:
        return mine
    check = result.test.check
    same = [spread for spread in earlier if spread.of[:3] == (check.kind, check.metric, check.along)]
    if not same and check.kind == "difference":
        same = [spread for spread in earlier if spread.of[:3] == ("", check.metric, "")]
    here = data_of(result.test.every[0])
    return _pooled([spread for spread in same if spread.of[3] == here] or same) or mine


def _pooled(spreads: Sequence[Spread]) -> Spread | None:
    freedom = sum(spread.n - 1 for spread in spreads)
    if not freedom:
        return None
    variance = sum((spread.n - 1) * spread.std**2 for spread in spreads) / freedom
    margins = [spread.margin for spread in spreads if spread.margin is not None]
    return Spread(math.sqrt(variance), freedom + 1, spreads[0].source, max(margins, default=None))


def _earlier(ablation: Ablation, records: Records) -> list[Spread]:
    """Of the grid that the claim names, the spread of each test and of each difference to the baseline."""
    from sslcollapse.ablation.files import read_plan

    name = ablation.claim.variances if ablation.claim else ""
    if not name:
        return []
    folder = records.path.parent.parent / name
    try:
        kept = read_plan(folder)
        there = Records(folder / "runs.jsonl")
    except RunError:
        return []
    if kept is None:
        return []
    other, _ = kept
    found = []
    for result in judge(other, there).results if other.claim is not None else []:
        estimate, check = result.estimate, result.test.check
        if estimate is not None and estimate.std is not None:
            of = (check.kind, check.metric, check.along, data_of(result.test.every[0]))
            stated = check.margin is not None  # that is the earlier claim's own; what is asked now has another, or none
            found.append(Spread(estimate.std, estimate.n, name, None if stated else result.margin, of))
    cells = {cell.hash: cell for cell in other.cells}
    for metric in {check.metric: None for check in (ablation.claim.checks if ablation.claim else ())}:
        column = Column(metric, "", "")
        least = column.least_change(there.of(other.cells, other.seeds)) or None
        for hash_, effect in effects(other, there, column).items():
            if effect.difference.std is not None:
                std = effect.difference.std * (100 if column.percent else 1)
                of = ("", metric, "", data_of(cells[hash_]))
                found.append(Spread(std, effect.difference.n, name, least, of))
    return found


def data_of(cell: Cell) -> str:
    """What tells one data set from another."""
    domain = cell.recipe["domain"]
    return plain(domain.get("dataset", domain))


def _row(need: Need) -> list[str]:
    result, spread = need.result, need.spread
    test: Planned = result.test
    check, estimate = test.check, result.estimate
    if spread is None:
        sd = "–" if check.kind == "correlation" else "nothing recorded"
    else:
        sd = f"{spread.std:.3g} ({f'{spread.source}, ' if spread.source else ''}n = {spread.n})"
    margin = result.margin if result.margin is not None else check.margin
    if check.expect in WITHIN:
        matters = "the margin" if margin is None else f"margin {margin:.4g}"
    else:
        matters = "not stated" if check.effect is None else f"{check.effect:.4g}"
    stated = check.expect in WITHIN or check.effect is not None
    planned = "–"
    if spread is not None and stated:
        planned = f"{_count(need.planned)} ({_count(need.upper)})"
    seen = "–" if estimate is None else f"{estimate.mean:+.3g}"
    settled = _count(need.settled) if estimate is not None and estimate.std is not None and not result.decided else "–"
    return [check.name, test.group, sd, matters, planned, seen, settled if spread else "–", need.answer]


def _count(n: int | None) -> str:
    return f"> {MOST_PLANNED:,}" if n is None else str(n)
