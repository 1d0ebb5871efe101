"""Claim 13: whether rank is the mechanism of the gain in accuracy; its page, its figures and its verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcollapse.ablation.claims.judge import OUTCOMES, outcome
from sslcollapse.ablation.claims.overview import refresh_overview
from sslcollapse.ablation.statistics.intervals import rounded, shared_confidence
from sslcollapse.ablation.tables.columns import markdown
from sslcollapse.core.errors import RunError
from tools.evidence import paragraph, write_json, write_text
from tools.evidence.mechanism import LEAST_DATA_SETS, LEVELS, MEASURES, associate, collect

NAME = "claim_13_mechanism"
STATEMENT = "The gain in accuracy goes with the gain in rank, and at least half of it goes through rank."
CLAIMED = (
    "representation, un-centred (RankMe)",
    "representation, centred",
    "weights of the encoder's layers",
)
"""What the claim is judged by, chosen before the table was made."""
CHECKS = (
    ("more rank goes with more accuracy, within settings", "slope within", 0.0),
    ("more rank goes with more accuracy, between settings", "slope between", 0.0),
    ("at least half of the gain goes through rank", "share within", 50.0),
)
"""Name, figure and margin of each check; all expect a positive one."""


def mechanism(results: Path) -> dict[str, Any]:
    """All figures of the page, as its JSON has them."""
    found = collect(results)
    confidence = shared_confidence(len(CHECKS) * len(CLAIMED))
    tests = []
    for measure in CLAIMED:
        made = associate(found.pairs, measure, confidence)
        tests += [_test(measure, name, made.get(key), margin, made["data sets"]) for name, key, margin in CHECKS]
    return {
        "settings": len({pair.setting for pair in found.pairs}),
        "data sets": len({pair.data for pair in found.pairs}),
        "sizes": sorted(Counter(dict((pair.setting, pair.data) for pair in found.pairs).values()).values())[::-1],
        "pairs": len(found.pairs),
        "twice": found.twice,
        "used": dict(found.used),
        "unfinished": list(found.unfinished),
        "skipped": dict(found.skipped),
        "measures": {title: associate(found.pairs, title) for title in MEASURES},
        "confidence": rounded(confidence),
        "tests": tests,
    }


def _test(measure: str, name: str, figure: Mapping[str, Any] | None, margin: float, n: int) -> dict[str, Any]:
    figure = figure or {"estimate": None, "interval": None}
    estimate, interval = figure["estimate"], figure["interval"]
    made = "not run" if n == 0 else outcome("positive", margin, tuple(interval) if interval else None)
    if n < LEAST_DATA_SETS:
        reason = f"fewer than {LEAST_DATA_SETS} data sets" if n else "no records"
    else:
        reason = "the gain in accuracy is not distinct from 0" if margin else "undefined"
    low, high = interval or (None, None)
    return {
        "check": name,
        "kind": "mediation",
        "metric": measure,
        "group": measure,
        "cell": "all cells",
        "against": "their baselines",
        "expect": "positive",
        "margin": margin,
        "unit": "% of the gain" if margin else "points of % for each % of attainable rank",
        "estimate": estimate,
        "low": low,
        "high": high,
        "p": None,
        "n": n,
        "outcome": made,
        "reason": "" if interval else reason,
        "shown": _shown(figure) if interval else f"– ({reason})",
        "expected": f"> {margin:g}",
        "places": [],
    }


def claim_json(made: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict, in the form of ``claim.json`` of an ablation."""
    tests = made["tests"]
    counts = {each: sum(test["outcome"] == each for test in tests) for each in OUTCOMES}
    rest = [f"{counts[each]} {each}" for each in OUTCOMES[1:] if counts[each]]
    tally = ", ".join([f"{counts['supported']} of {len(tests)} tests supported", *rest])
    if counts["not run"] == len(tests):
        verdict = "not run"
    elif made["unfinished"]:
        verdict, tally = "interim", f"so far {tally}"
    elif counts["supported"] == len(tests):
        verdict = "supported"
    else:
        verdict = "not supported" if counts["contradicted"] else f"inconclusive at n = {made['data sets']}"
    return {
        "number": 13,
        "statement": STATEMENT,
        "note": "",
        "ablation": NAME,
        "verdict": verdict,
        "tally": tally,
        "counts": counts,
        "runs": {"finished": made["pairs"], "total": made["pairs"]},
        "confidence": made["confidence"],
        "tests": tests,
    }


def page(made: Mapping[str, Any]) -> str:
    """The Markdown page, from what its JSON has."""
    claim = claim_json(made)
    there = {title: figures for title, figures in made["measures"].items() if figures["pairs"]}
    missing = [title for title, figures in made["measures"].items() if not figures["pairs"]]
    lines = [f"# {NAME}", "", "    python tools/evidence.py mechanism", ""]
    lines += [f"Claim 13: {STATEMENT}", ""]
    lines += [f"**{claim['verdict'][:1].upper()}{claim['verdict'][1:]}**: {claim['tally']}.", ""]
    heads = ["check", "measure", "estimate", "expected", "outcome"]
    rows = [[test["check"], test["group"], test["shown"], test["expected"], test["outcome"]] for test in claim["tests"]]
    lines += [*markdown(heads, rows), ""]
    lines += [
        *paragraph(
            f"n = {made['data sets']} data sets with {made['settings']} settings, {made['pairs']} pairs of runs. "
            "Each run of "
            "a cell is compared with its baseline's run of the same seed. A setting is what has one baseline: data, "
            f"network, views and budget. {made['twice']} pairs whose run stands in another folder too are counted "
            "once. "
            f"Intervals of this table hold together at 95 % (Bonferroni over {len(claim['tests'])} tests), those below "
            "hold each by itself."
        ),
        "## How the gains go together",
        "",
        *paragraph(
            "Slope in points of accuracy for each % of the attainable rank, then the correlation, each with its 95 % "
            "interval. A setting with one cell says nothing of the slope within; the spread is the share of one "
            "setting in the sum of squares that this slope is from. The larger it is, the more the slope is that of "
            "one setting."
        ),
    ]
    titles = [
        "measure",
        "pairs",
        "settings",
        "with several cells",
        "largest spread, %",
        "within settings, over cells",
        "between settings",
        "over seeds of a cell",
    ]
    rows = [
        [
            title,
            str(figures["pairs"]),
            str(figures["settings"]),
            str(figures["spread"]["settings"]),
            "–" if figures["spread"]["largest"] is None else f"{figures['spread']['largest']:.0f}",
            *(_both(figures, level) for level in LEVELS),
        ]
        for title, figures in there.items()
    ]
    lines += [*markdown(titles, rows), ""]
    lines += [
        "## What rank mediates",
        "",
        *paragraph(
            "The gains are means over settings. The indirect effect is the gain in rank times the slope within "
            "settings, "
            "or between them, in points of accuracy; the share is what it is of the gain in accuracy, in %. No "
            "share is "
            "given where the gain in accuracy is not distinct from 0."
        ),
    ]
    keys = ("gain", "total", "indirect within", "share within", "indirect between", "share between")
    titles = [
        "measure",
        "gain in rank, %",
        "gain in accuracy",
        "indirect, within",
        "share",
        "indirect, between",
        "share",
    ]
    rows = [[title, *(_shown(figures[key]) for key in keys)] for title, figures in there.items()]
    lines += [*markdown(titles, rows), ""]
    lines += [
        "## What this can and cannot say",
        "",
        *paragraph(
            "* Data sets are resampled, each with all of its settings, since these share data and often a baseline's "
            "network. The percentile interval is widened for few data sets, and there is none below "
            f"{LEAST_DATA_SETS}. Bootstraps of few clusters, of unequal size, miss more often than they say; "
            f"[statistics](../../statistics.md) has how often. {_sizes(made['sizes'])}",
            "* A mediated share is a statement about causes only if nothing else moves both rank and accuracy. "
            "These runs "
            "cannot show that: a regularizer changes more than rank. A slope of 0 within settings speaks against "
            "rank as "
            "the mechanism; a slope above 0 does not prove it.",
            "* The baseline's run is in both differences, so its noise enters the association between settings and "
            "over seeds, as far as rank and accuracy of one run go together. Within settings it cancels where cells "
            "have the same seeds. The last column of the first table is of noise alone, the cell's own and the "
            "baseline's.",
            "* Rank is in % of what is attainable, so that widths can be compared. The un-centred effective rank "
            "is what "
            "is called RankMe elsewhere, without its small constant. Of layers it is the mean over the encoder's "
            "layers.",
        ),
    ]
    if missing:
        lines += [
            f"No record has {', '.join(missing)}, so nothing is said of {'it' if len(missing) == 1 else 'them'}.",
            "",
        ]
    lines += ["## Where the runs are from", ""]
    used = [f"[{name}](../{name}/README.md) {count}" for name, count in made["used"].items()]
    lines += paragraph(f"Pairs: {', '.join(used) or 'none'}.")
    if made["unfinished"]:
        lines += paragraph(f"Interim, since their plans are not finished: {', '.join(made['unfinished'])}.")
    lines += [*(f"* `{name}` gives none: {why}" for name, why in made["skipped"].items())]
    return "\n".join(lines).rstrip("\n") + "\n"


def _sizes(sizes: Sequence[int]) -> str:
    """How unequal data sets are."""
    if len(sizes) < 2:
        return "There is one data set."
    return f"The largest data set has {sizes[0]} of the {sum(sizes)} settings, the largest three have {sum(sizes[:3])}."


def _both(figures: Mapping[str, Any], level: str) -> str:
    return f"{_shown(figures[f'slope {level}'])}; r = {_shown(figures[f'correlation {level}'])}"


def _shown(figure: Mapping[str, Any]) -> str:
    """``+0.12 [-0.01, +0.25]``."""
    if figure["estimate"] is None:
        return "–"
    interval = figure["interval"]
    ends = f" [{', '.join(f'{end:+.2f}' for end in interval)}]" if interval else ""
    return f"{figure['estimate']:+.2f}{ends}"


def write_mechanism(results: Path) -> Path:
    """Write page, ``mechanism.json`` and ``claim.json`` of claim 13, and the table of all claims; returns the page.

    Raises:
        RunError: there are no records to read.
    """
    if not list(results.glob("*/runs.jsonl")):
        raise RunError(f"{results}: no results folder with a runs.jsonl in it; name another with --results")
    made, folder = mechanism(results), results / NAME
    write_json(folder / "mechanism.json", made)
    write_json(folder / "claim.json", claim_json(made))
    written = write_text(folder / "README.md", page(made))
    refresh_overview(results)
    return written
