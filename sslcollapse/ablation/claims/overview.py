"""The table of all claims of a results folder, a line a grid, and the picture of their decided tests above it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcollapse.ablation.claims.forest import forest, number
from sslcollapse.ablation.claims.judge import DECIDED
from sslcollapse.ablation.tables.columns import markdown
from sslcollapse.core.files import locked

BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"
PICTURE = "claims.svg"
READERS = "readers.json"
"""Folder → ``claim``, its statement in a few words, and ``user``, what it means for one: ``docs/claims.md``."""
PATIENCE = 30.0
"""Seconds to wait for another ablation that refreshes the same table."""
LONGEST = 60
"""Letters of a cell."""
OPEN = {"interim": "open until its runs are there", "inconclusive": "open at so many seeds", "not run": "open"}
ROOTS = ("evaluation.", "untrained.", "baselines.")


def refresh_overview(results: Path) -> None:
    """Replace what is between the markers, and nothing else, and draw the picture; without markers do neither."""
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
    picture = forest(decided(results))
    lines = [f"![Decided tests of all claims: effects with their corrected intervals]({PICTURE})", ""] * bool(picture)
    new = b"".join([before, begin, b"\n", "\n".join([*lines, *claims_table(results)]).encode(), b"\n", end, after])
    if picture:
        write_atomic(results / PICTURE, picture.encode())
    else:
        (results / PICTURE).unlink(missing_ok=True)
    if new != old:
        write_atomic(path, new)


def decided(results: Path) -> list[dict[str, Any]]:
    """Tests that are supported or contradicted, each with its claim's ``number`` and whether that is ``interim``."""
    return [
        {**test, "number": claim["number"], "interim": claim["verdict"] == "interim"}
        for claim in _claims(results)
        for test in claim["tests"]
        if test["outcome"] in DECIDED and test["low"] is not None
    ]


def claims_table(results: Path) -> list[str]:
    """Lines of a Markdown table of every ``<folder>/claim.json``, by number, then by folder; bad files come last."""
    readers = _json(results / READERS) or {}
    rows, last = [], None
    for claim in _claims(results):
        words = readers.get(claim["folder"], {})
        same = last == (claim["number"], claim["statement"])
        last = (claim["number"], claim["statement"])
        rows.append(
            [
                "" if same else str(claim["number"]),
                cut(words.get("claim") or ("the same" if same else claim["statement"])),
                _verdict(claim),
                _effect(claim["tests"]),
                _span(test["n"] for test in claim["tests"] if test["estimate"] is not None) or "–",
                cut(words.get("budget") or _budget(results / claim["folder"])),
                cut(_meaning(claim, words)),
                f"[details]({claim['folder']}/README.md)",
            ]
        )
    bad = [path.parent.name for path in sorted(results.glob("*/claim.json")) if _claim(path) is None]
    rows += [
        ["", name, "its claim.json cannot be read; make it again", "", "", "", "", f"[details]({name}/README.md)"]
        for name in bad
    ]
    titles = ["#", "claim", "verdict", "effect [corrected interval]", "n", "data and budget", "for a user", "page"]
    return markdown(titles, rows) if rows else ["No claims yet."]


def cut(text: str, most: int = LONGEST) -> str:
    """Text of so many letters at most, cut between words."""
    words = text.split()
    if len(" ".join(words)) <= most:
        return " ".join(words)
    while len(words) > 1 and len(" ".join(words)) > most - 2:
        words.pop()
    return f"{' '.join(words)[: most - 2]} …"


def _verdict(claim: Mapping[str, Any]) -> str:
    """``**supported**, 4 of 4 tests``."""
    tests, runs = claim["tests"], claim["runs"]
    count = {outcome: sum(test["outcome"] == outcome for test in tests) for outcome in DECIDED}
    tally = f"{count['supported']} of {len(tests)} tests" + (" so far" if claim["verdict"] == "interim" else "")
    tally += f", {count['contradicted']} contradicted" if count["contradicted"] else ""
    made = f" ({runs['finished']} of {runs['total']} runs)" if runs["finished"] < runs["total"] else ""
    return cut(f"**{claim['verdict'].partition(' at ')[0]}**{made}, {tally}")


def _effect(tests: Sequence[Mapping[str, Any]]) -> str:
    """Estimates and intervals of the first check: the smallest and the largest."""
    own = [test for test in tests if test["check"] == tests[0]["check"]] if tests else []
    known = sorted((test for test in own if test["estimate"] is not None), key=lambda test: test["estimate"])
    if not known:
        return "–"
    ends = list(dict.fromkeys(shown(test) for test in (known[0], known[-1])))
    both = f"{quantity(known[0])}: {' to '.join(ends)}"
    return both if len(both) <= LONGEST else cut(f"{quantity(known[0])}, smallest: {ends[0]}")


def quantity(test: Mapping[str, Any]) -> str:
    """What a test measures, in a word or two."""
    metric = test["metric"]
    if test["kind"] == "mediation":
        return "slope"
    word = "accuracy" if metric.startswith(ROOTS) else "rank" if metric.startswith("rank.") else metric
    kind = {"slope": " slope", "trend": " slope", "correlation": " correlation"}.get(test["kind"], "")
    return cut(f"{word.rpartition('.')[2]}{kind}", 24)


def shown(test: Mapping[str, Any]) -> str:
    """``+2.66 [+1.51, +3.81]``, three digits of each."""
    ends = [test["low"], test["high"]]
    rest = f"[{', '.join(map(number, ends))}]" if None not in ends else "(no interval)"
    return f"{number(test['estimate'])} {rest}"


def _span(numbers: Iterator[int]) -> str:
    found = sorted(set(numbers))
    return "–".join(f"{value:,}" for value in dict.fromkeys((found[0], found[-1]))) if found else ""


def _budget(folder: Path) -> str:
    """Data sets and steps of a grid's plan: ``Cora, CiteSeer; 200 steps``."""
    plan = _json(folder / "plan.json") or {}
    try:
        recipes = {label: base["recipe"] for label, base in plan["bases"].items()}
        data = [_data(recipe["domain"]) for recipe in recipes.values()]
        steps = [recipe["train"]["steps"] for recipe in recipes.values()]
        changes = [change for cell in plan["cells"] for change in cell["changes"] if change[0] == ["train", "steps"]]
        return f"{', '.join(dict.fromkeys(data))}; {_span(iter([*steps, *(each[1] for each in changes)]))} steps"
    except (KeyError, TypeError, IndexError, AttributeError):
        return "see its page"


def _data(domain: Mapping[str, Any]) -> str:
    """``Cora``; ``digits (graph)``, since there are two domains that have them."""
    dataset = domain.get("dataset") or {}
    name = str(dataset.get("name") or dataset.get("type") or domain["type"]).replace("_", "-")
    kind = {"csbm": "block model"}.get(name, name)
    return f"{kind} ({domain['type']})" if kind == "digits" else kind


def _meaning(claim: Mapping[str, Any], words: Mapping[str, Any]) -> str:
    """The first sentence whose conditions hold: all tests of a check have this outcome, or the verdict is this."""
    outcomes: dict[str, set[str]] = {}
    for test in claim["tests"]:
        outcomes.setdefault(test["check"], set()).add(test["outcome"])
    verdict = claim["verdict"].partition(" at ")[0]
    for each in words.get("user", []):
        conditions = dict(each.get("when", {}))
        if conditions.pop("verdict", verdict) == verdict and all(
            outcomes.get(check) == {outcome} for check, outcome in conditions.items()
        ):
            return str(each["say"])
    return OPEN.get(verdict, verdict)


def _claims(results: Path) -> list[dict[str, Any]]:
    found = filter(None, map(_claim, sorted(results.glob("*/claim.json"))))
    return sorted(found, key=lambda claim: (claim["number"], claim["folder"]))


def _claim(path: Path) -> dict[str, Any] | None:
    claim = _json(path)
    whole = claim and all(key in claim for key in ("number", "statement", "verdict", "tally", "runs", "tests"))
    return {**claim, "folder": path.parent.name} if claim and whole else None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    except (OSError, ValueError):
        return None
