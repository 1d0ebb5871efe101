"""A forest plot of decided tests as SVG: for each its effect with the corrected interval, and what was expected."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from sslcollapse.ablation.statistics.power import regions

ROW, LEFT, PLOT, RIGHT = 19, 430, 330, 300
"""Pixels: a row's height, the widths of names, of the plot, and of figures."""
INK, GREY, BAND = "#24292f", "#6e7781", "#dbe9f6"
COLOURS = {"supported": "#0969da", "contradicted": "#bc4c00"}
TICKS = (-300, -100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100, 300)
LONGEST = 70
PANELS = (
    ("difference", True, "Accuracy: difference, points of %"),
    ("difference", False, "Effective rank: difference, dimensions"),
    ("slope", True, "Accuracy: change along an axis, points of % a unit"),
    ("slope", False, "Effective rank: change along an axis, dimensions a unit"),
    ("correlation", None, "Correlations"),
    ("mediation", None, "Rank as the mechanism: accuracy for rank, or a share in %"),
)


def forest(tests: Sequence[Mapping[str, Any]]) -> str:
    """An SVG, the same for the same tests; "" of none.

    Args:
        tests: as ``claim.json`` has them, with ``number`` and ``interim`` of their claim.
    """
    parts: list[str] = []
    top = 44
    for kind, percent, title in PANELS:
        own = [test for test in tests if _panel(test) == (kind, percent)]
        if own:
            parts += _drawn(own, title, top)
            top += 56 + ROW * len(own)
    if not parts:
        return ""
    width, height = LEFT + PLOT + RIGHT, top - 12
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            'font-family="system-ui, sans-serif" font-size="12">',
            "<title>Decided tests of all claims</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *_legend(),
            *parts,
            "</svg>",
            "",
        ]
    )


def _panel(test: Mapping[str, Any]) -> tuple[str, bool | None]:
    if test["kind"] in ("correlation", "mediation"):
        return test["kind"], None
    return "difference" if test["kind"] == "difference" else "slope", test["unit"] == "points of %"


def _drawn(tests: Sequence[Mapping[str, Any]], title: str, top: int) -> Iterator[str]:
    """A panel: title, an axis of its own, a row a test."""
    ends = [test[key] for test in tests for key in ("low", "high")]
    ends += [end for test in tests for end in _expected(test) if math.isfinite(end)] + [0.0]
    low, high = map(_bent, (min(ends), max(ends)))
    room = 0.06 * (high - low) or 1.0
    low, high = low - room, high + room

    def place(value: float) -> float:
        return LEFT + PLOT * (min(max(_bent(value), low), high) - low) / (high - low)

    first, last = top + 18, top + 18 + ROW * len(tests)
    yield _text(8, top + 10, title, weight="bold")
    for tick in _ticks(low, high, place):
        x = place(tick)
        yield _line(x, first, x, last, "#d0d7de" if tick else GREY)
        yield _text(x, last + 14, f"{tick:g}".replace("-", "−"), GREY, "middle")
    for k, test in enumerate(tests):
        yield from _row(test, first + ROW * k + ROW / 2, place)


def _expected(test: Mapping[str, Any]) -> tuple[float, float]:
    """Where an interval supports it."""
    return regions(test["expect"], test["margin"] or 0.0)[0]


def _row(test: Mapping[str, Any], y: float, place: Any) -> Iterator[str]:
    colour, mean = COLOURS[test["outcome"]], place(test["estimate"])
    start, end = (place(each) for each in _expected(test))
    name = f"{test['number']}  {test['check']}: {test['group']}"
    if test["kind"] in ("slope", "trend") and test["cell"] not in ("–", ""):
        name += f", {test['cell'].partition(' (of ')[0]}"
    name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    yield f"<g><title>{escape(name)}: expected {escape(test['expected'])}, {escape(test['outcome'])}</title>"
    yield f'<rect x="{start:.1f}" y="{y - 6:.1f}" width="{end - start:.1f}" height="12" fill="{BAND}"/>'
    yield _text(8, y + 4, name)
    dashes = ' stroke-dasharray="5 3"' if test["interim"] else ""
    yield _line(place(test["low"]), y, place(test["high"]), y, colour, f' stroke-width="2"{dashes}')
    yield _mark(test["outcome"], mean, y)
    mean_, low, high = (number(test[key]).replace("-", "−") for key in ("estimate", "low", "high"))
    yield _text(LEFT + PLOT + 12, y + 4, f"{mean_} [{low}, {high}]  n = {test['n']}")
    word = test["outcome"] + (", so far" if test["interim"] else "")
    yield _text(LEFT + PLOT + RIGHT - 8, y + 4, word, colour, "end")
    yield "</g>"


def _mark(outcome: str, x: float, y: float) -> str:
    """A disc where a test is supported, an open square where it is contradicted."""
    colour = COLOURS[outcome]
    if outcome == "supported":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="#ffffff" stroke="{colour}" ' + (
        'stroke-width="2"/>'
    )


def _legend() -> list[str]:
    return [
        _text(8, 20, "Decided tests of all claims", weight="bold"),
        _mark("supported", LEFT + 8, 16),
        _text(LEFT + 18, 20, "supported"),
        _mark("contradicted", LEFT + 96, 16),
        _text(LEFT + 106, 20, "contradicted"),
        f'<rect x="{LEFT + 192}" y="10" width="22" height="12" fill="{BAND}"/>',
        _text(LEFT + 220, 20, "what the claim expects"),
        _line(LEFT + 364, 16, LEFT + 392, 16, GREY, ' stroke-width="2" stroke-dasharray="5 3"'),
        _text(LEFT + 398, 20, "runs are missing"),
    ]


def _bent(value: float) -> float:
    """Near 0 as it is, far from it a logarithm, so that effects of 1 and of 100 are both to be seen."""
    return math.asinh(value) if math.isfinite(value) else value


def _ticks(low: float, high: float, place: Any) -> list[float]:
    """Those ticks that have room beside each other, 0 first of all."""
    fine = (-1.0, -0.5, 0.0, 0.5, 1.0) if high - low < math.asinh(2.0) else ()
    chosen: list[float] = []
    for tick in sorted({*TICKS, *fine}, key=abs):
        if low <= _bent(tick) <= high and all(abs(place(tick) - place(other)) > 26 for other in chosen):
            chosen.append(tick)
    return chosen


def number(value: float) -> str:
    """With a sign and about three digits."""
    places = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    text = f"{value:+.{places}f}"
    return text if value and any(map(text.__contains__, "123456789")) else text.replace("-", "+")


def _text(x: float, y: float, text: str, colour: str = INK, anchor: str = "start", weight: str = "normal") -> str:
    style = "".join(
        f' {key}="{value}"'
        for key, value, usual in (("text-anchor", anchor, "start"), ("font-weight", weight, "normal"))
        if value != usual
    )
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}"{style}>{escape(text)}</text>'


def _line(x: float, y: float, to: float, down: float, colour: str, more: str = "") -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to:.1f}" y2="{down:.1f}" stroke="{colour}"{more}/>'
