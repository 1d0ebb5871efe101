"""How a verdict is written: a section of the page, and ``claim.json``."""

from __future__ import annotations

import json
from typing import Any

from sslcollapse.ablation.claims.judge import Result, Verdict
from sslcollapse.ablation.claims.schema import Check
from sslcollapse.ablation.statistics.intervals import LEVEL, bonferroni, rounded
from sslcollapse.ablation.statistics.pairing import Chosen, Planned
from sslcollapse.ablation.statistics.power import FEWEST_SEEDS
from sslcollapse.ablation.tables.columns import markdown
from sslcollapse.ablation.values import Cell
from sslcollapse.runs.quantities import RANK_MARGIN


def verdict_json(verdict: Verdict) -> str:
    """Everything about a verdict, with numbers to 10 digits."""
    claim = verdict.claim
    made = {
        "number": claim.number,
        "statement": claim.statement,
        "note": claim.note,
        "ablation": verdict.ablation,
        "verdict": verdict.text,
        "tally": verdict.tally,
        "counts": verdict.counts,
        "runs": {"finished": verdict.finished, "total": verdict.total},
        "confidence": rounded(verdict.confidence),
        **({"looks": list(verdict.looks)} if verdict.looks else {}),
        **({"judged": list(verdict.judged)} if verdict.judged else {}),
        "tests": [_test_json(result, verdict) for result in verdict.results],
    }
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def verdict_lines(verdict: Verdict) -> list[str]:
    """The page's section: the statement, the verdict, a table of the tests and how they are computed."""
    claim, total = verdict.claim, len(verdict.results)
    part = f" ({verdict.finished} of {verdict.total} planned runs)" if verdict.interim else ""
    lines = [
        f"Claim {claim.number}: {claim.statement}",
        "",
        f"**{_capital(verdict.text)}**{part}: {verdict.tally}.",
        "",
    ]
    lines += [claim.note, ""] if claim.note else []
    titles = ["check", "group", "cell", "against", "estimate", "n", "expected", "outcome"]
    lines += markdown(titles, [_row(result) for result in verdict.results])
    lines += ["", *(f"* {check.name}: {_meaning(check)}" for check in claim.checks), ""]
    share = f"1 − {LEVEL}/{total} = " if total > 1 else ""
    at = f"Intervals over seeds at confidence {share}{100 * verdict.confidence:.6g} %"
    if verdict.looks:
        at += f", shared out over looks at {', '.join(map(str, verdict.looks))} seeds"
    lines += [
        f"{at}, which all hold together at 95 %;",
        "accuracy in points of %. A test is supported where its interval lies wholly within what is expected,",
        f"contradicted where it lies wholly outside, in both cases of at least {FEWEST_SEEDS} seeds. A claim is",
        "supported if all its tests are, and interim until all planned runs are there.",
    ]
    if verdict.looks:
        lines += [
            "A test keeps the outcome of the first planned look that decides it. What is shown is from that look, else",
            "from the newest one that has all of its runs.",
        ]
    if verdict.judged:
        lines += [
            f"There was a verdict before, at {', '.join(map(str, verdict.judged))} seeds, of a plan with other seeds "
            "or other tests.",
            "The confidence does not count such looks, so the chance of a false verdict is above 5 %.",
        ]
    if any(check.expect == "equivalent" for check in claim.checks):
        level = f"{LEVEL}/{total}" if total > 1 else f"{LEVEL}"
        lines += [
            f"An equivalence is two one-sided tests, each at the level {level}: its interval has the confidence",
            f"1 − 2 × {level}.",
        ]
    if verdict.seeds < FEWEST_SEEDS:
        lines.append(f"The plan has {verdict.seeds} seeds, so no test of it can be decided.")
    if any(check.select for check in claim.checks):
        lines += ["Where validation chooses, each half of the seeds is tested on what the other half has chosen."]
    if any(result.margin != result.test.check.margin and result.margin for result in verdict.results):
        lines += [
            f"A change of rank counts from {100 * RANK_MARGIN:g} % of what is attainable, where no margin was planned."
        ]
    return lines


def _row(result: Result) -> list[str]:
    check = result.test.check
    cell, against = (_labels(result, side) for side in ("cells", "against"))
    n = str(result.estimate.n) if result.estimate else "–"
    made = f"{result.outcome} at n = {result.look}" if result.look and result.decided else result.outcome
    return [check.name, result.test.group, cell, against, result.shown, n, _expected(result), made]


def _labels(result: Result, side: str) -> str:
    """What was compared: ``lr=0.2``, with how it was chosen, position by position where that differs."""
    test = result.test
    if test.check.kind == "correlation":
        return f"{result.cells} of {len(test.points[0].cells)} cells" if side == "cells" else "–"
    candidates = max(len(getattr(point, side)) for point in test.points)
    if not candidates or not test.compared:
        return "–"
    if not result.places:
        return test.label(getattr(test.points[0], side)[0]) if candidates == 1 else f"1 of {candidates}, by validation"
    taken = [place.cell if side == "cells" else place.against for place in result.places]
    labels = [_label(test, chosen) for chosen in taken if chosen is not None]
    if len(set(labels)) > 1:
        positions = [place.point.position for place in result.places]
        labels = ["; ".join(f"{label} at {position:g}" for label, position in zip(labels, positions, strict=True))]
    return labels[0] + (f" (of {candidates}, by validation)" if candidates > 1 else "")


def _label(test: Planned, chosen: Chosen[Cell]) -> str:
    """``lr=0.2``, or ``lr=0.2 / lr=0.1`` where even and odd seeds are tested on different cells."""
    return " / ".join(test.label(cell) for cell in chosen.every)


def _expected(result: Result) -> str:
    check, margin = result.test.check, result.margin
    if margin is None and check.margin is None and check.metric.startswith("rank.") and check.kind != "correlation":
        shown = f"{100 * RANK_MARGIN:g} % of what is attainable"
        minus = f"−{shown}"
    else:
        number = (check.margin or 0.0) if margin is None else margin
        shown, minus = f"{number:.4g}", f"{-number or 0:.4g}"
    return {
        "positive": f"> {shown}",
        "negative": f"< {minus}",
        "none": f"within ±{shown}",
        "equivalent": f"within ±{shown} (equivalence)",
        "not positive": f"< {shown}",
        "not negative": f"> {minus}",
    }[check.expect]


def _meaning(check: Check) -> str:
    if check.kind == "correlation":
        return f"Spearman's correlation of `{check.metric}` with `{check.with_metric}` over cells, bootstrap over seeds"
    of = {"difference": "difference in", "slope": "slope of the difference in", "trend": "slope of"}[check.kind]
    text = f"{of} `{check.metric}`" + (f" along `{check.along}`" if check.along else "")
    return text + (f"; chosen on the validation metric of `{check.probe}`" if check.select else "")


def _test_json(result: Result, verdict: Verdict) -> dict[str, Any]:
    check, estimate = result.test.check, result.estimate
    low, high = (estimate.interval if estimate else None) or (None, None)
    p = bonferroni(estimate.p if estimate else None, len(verdict.results))  # corrected, as the interval is
    if verdict.looks or check.expect == "equivalent":
        p = None  # there is none that says what the interval says
    numbers = {"estimate": estimate and estimate.mean, "low": low, "high": high, "p": p}
    percent = check.metric.startswith(("evaluation.", "untrained.", "baselines."))
    unit = "points of %" if percent and check.kind != "correlation" else ""
    return {
        "check": check.name,
        "kind": check.kind,
        "metric": check.metric,
        **({"with_metric": check.with_metric} if check.with_metric else {}),
        "group": result.test.group,
        "cell": _labels(result, "cells"),
        "against": _labels(result, "against"),
        "expect": check.expect,
        "margin": None if result.margin is None else rounded(result.margin),
        "unit": unit,
        **{key: None if value is None else rounded(value) for key, value in numbers.items()},
        "n": estimate.n if estimate else 0,
        "outcome": result.outcome,
        **({"look": result.look, "confidence": rounded(result.confidence)} if verdict.looks else {}),
        "reason": result.reason,
        "shown": result.shown,
        "expected": _expected(result),
        "places": [
            {
                "position": place.point.position,
                "cell": [cell.hash for cell in place.cell.every],
                "against": [cell.hash for cell in place.against.every] if place.against else [],
            }
            for place in result.places
        ],
    }


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
