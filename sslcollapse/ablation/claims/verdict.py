"""How verdicts are written: a section of the page, ``claim.json``, and the table of all claims of a results folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcollapse.ablation.claims.judge import Result, Verdict
from sslcollapse.ablation.claims.schema import Check
from sslcollapse.ablation.statistics.intervals import LEVEL, bonferroni, rounded
from sslcollapse.ablation.statistics.pairing import Chosen, Planned
from sslcollapse.ablation.statistics.power import FEWEST_SEEDS
from sslcollapse.ablation.tables.columns import markdown
from sslcollapse.ablation.values import Cell
from sslcollapse.core.files import locked
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


BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"
PATIENCE = 30.0
"""Seconds to wait for another ablation that refreshes the same table."""
SHOWN_TESTS = 3
"""A check with more tests is shown by its smallest and its largest estimate."""


def refresh_overview(results: Path) -> None:
    """Replace what is between the markers, and nothing else; a file without them is left as it is."""
    if (results / "README.md").exists():
        with locked(results / ".lock", f"{results}: the table of claims", patience=PATIENCE):
            _refresh(results)


def _refresh(results: Path) -> None:
    from sslcollapse.core.files import write_atomic

    path = results / "README.md"
    old = path.read_bytes()
    before, begin, rest = old.partition(BEGIN.encode())
    _, end, after = rest.partition(END.encode())
    if not begin or not end:
        return
    new = b"".join([before, begin, b"\n", "\n".join(claims_table(results)).encode(), b"\n", end, after])
    if new != old:
        write_atomic(path, new)


def claims_table(results: Path) -> list[str]:
    """Lines of a Markdown table of every ``<folder>/claim.json``, by number, then by folder; bad files come last."""
    read = {path: _read(path) for path in sorted(results.glob("*/claim.json"))}
    found = sorted(filter(None, read.values()), key=lambda claim: (claim["number"], claim["folder"]))
    bad = [path.parent.name for path, claim in read.items() if claim is None]
    rows, last = [], None
    for claim in found:
        same = last is not None and (claim["number"], claim["statement"]) == last
        last = (claim["number"], claim["statement"])
        rows.append(
            [
                "" if same else str(claim["number"]),
                "" if same else claim["statement"],
                f"**{claim['verdict']}**; {claim['tally']}",
                key_figures(claim["tests"]),
                f"[{claim['folder']}]({claim['folder']}/README.md){_unfinished(claim['runs'])}",
            ]
        )
    rows += [
        ["", "", "its claim.json cannot be read; run the folder's command again", "", f"[{name}]({name}/README.md)"]
        for name in bad
    ]
    return markdown(["#", "claim or question", "verdict", "figures", "page"], rows) if rows else ["No claims yet."]


def key_figures(tests: Sequence[Mapping[str, Any]]) -> str:
    """For each check its estimates, intervals and n; of many tests the smallest and the largest estimate."""
    parts = []
    for name in dict.fromkeys(test["check"] for test in tests):
        own = [test for test in tests if test["check"] == name]
        known = sorted((test for test in own if test["estimate"] is not None), key=lambda test: test["estimate"])
        title = "group" if len({test["group"] for test in own}) == len(own) else "cell"
        many = len(own) > SHOWN_TESTS and len(known) > 1
        shown = [known[0], known[-1]] if many else own
        figures = (" to " if many else "; ").join(f"{test['shown']} ({test[title]})" for test in shown)
        sizes = sorted({test["n"] for test in known})
        n = f"; n = {'–'.join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1])))}" if sizes else ""
        count = f" ({sum(test['outcome'] == 'supported' for test in own)} of {len(own)})" if len(own) > 1 else ""
        parts.append(f"{name}{count}: {'from ' if many else ''}{figures}{n}")
    return "<br>".join(parts)


def _unfinished(runs: Mapping[str, int]) -> str:
    return f", {runs['finished']} of {runs['total']} runs" if runs["finished"] < runs["total"] else ""


def _read(path: Path) -> dict[str, Any] | None:
    try:
        claim = json.loads(path.read_text(encoding="utf-8"))
        if all(key in claim for key in ("number", "statement", "verdict", "tally", "runs", "tests")):
            return {**claim, "folder": path.parent.name}
    except (OSError, ValueError, TypeError):
        pass
    return None
