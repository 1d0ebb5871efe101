"""The table of all claims in a results folder's README.md, between two marker comments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcollapse.ablation.tables.notation import markdown
from sslcollapse.core.files import locked

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
