"""What every picture shares: a spectrum against what it can attain, and names of layers that fit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sslcollapse.core.texts import printable

if TYPE_CHECKING:
    from sslcollapse.rank.record import LayerRank

FLOOR = 1e-4
"""What is smaller is drawn at the lower edge: it carries less than 1e-8 of the energy."""

BEYOND = 1.06
"""So far past what is attainable a spectrum is drawn. A bias can have a direction there."""

LAYER_LETTERS = 26
"""Longer names of layers are cut in their middle."""


def relative(sigma: Any) -> np.ndarray | None:
    """σ_k/σ_1, descending; None of what is no spectrum, of zeros, and of what is not finite."""
    values = np.asarray(sigma)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "fiu":
        return None
    if not np.isfinite(values).all() or not values.max() > 0:
        return None
    descending = np.sort(values.astype(np.float64))[::-1]
    return descending / descending[0]


def attainable_over_time(rows: Sequence[LayerRank], key: str) -> dict[int, int]:
    """Step → the rank that a monitor's spectrum ``output/<layer>`` or ``weight/<layer>`` can attain.

    That of an output is its weight's where that is smaller: a map from 64 dimensions to 256 has 64.
    """
    kind, _, layer = key.partition("/")
    found: dict[int, int] = {}
    for row in rows:
        if row.layer == layer and row.kind in (kind, "weight"):
            found[row.step] = min(row.attainable, found.get(row.step, row.attainable))
    return found


def draw_spectrum(axes: Any, shares: np.ndarray, attainable: int, **style: Any) -> None:
    """One line: σ_k/σ_1 against k over the attainable rank.

    Args:
        axes: matplotlib's, dressed by ``dress_spectra``.
        shares: from ``relative``.
        attainable: the largest rank that the spectrum's origin allows.
        style: colour, width and the like.
    """
    shown = shares[: max(int(BEYOND * attainable), 1)]
    if len(shown) < 3:
        style.setdefault("marker", ".")
    places = np.arange(1, len(shown) + 1) / attainable
    axes.plot(places, np.maximum(shown, FLOOR / 10), **style)


def dress_spectra(axes: Any) -> None:
    """Scales and their names for ``draw_spectrum``, and a dashed mark where the attainable rank ends."""
    axes.set(yscale="log", ylim=(FLOOR, 1.3), xlim=(0, BEYOND), xlabel="k / attainable rank", ylabel="σₖ / σ₁")
    axes.axvline(1.0, color=axes.xaxis.label.get_color(), linestyle="--", linewidth=0.9, alpha=0.6)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(True, alpha=0.25, linewidth=0.6)


def shorten(text: str, most: int) -> str:
    """Text cut in its middle, where two long names are mostly alike."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[len(text) - most // 2 :]}"


def layer_labels(names: Sequence[str], most: int = LAYER_LETTERS) -> tuple[list[str], str]:
    """Names of layers without what all begin with, cut to a length; and what they begin with, "" of nothing.

    The part that is dropped ends at a dot: ``backbone.0`` and ``backbone.1`` are ``0`` and ``1`` of ``backbone.``.
    """
    names = [printable(name) for name in names]
    if len(names) < 2 or max(map(len, names)) <= most:
        return [shorten(name, most) for name in names], ""
    parts = zip(*(name.split(".")[:-1] for name in names), strict=False)
    same = [part[0] for part in itertools.takewhile(lambda part: len(set(part)) == 1, parts)]
    shared = "".join(f"{part}." for part in same)
    return [shorten(name[len(shared) :], most) for name in names], shared


def step_ticks(steps: Sequence[int], inches: float, most: int = 6) -> list[int]:
    """Indices of those steps whose labels have room beside each other: the first and the last, evenly between."""
    widest = max(len(f"{step:,}") for step in steps) * 0.085 + 0.12
    count = max(min(most, len(steps), int(inches / widest)), 1)
    return [] if not len(steps) else sorted({round(k) for k in np.linspace(0, len(steps) - 1, count)})


def title_lines(text: str, inches: float, size: float = 12.0) -> str:
    """A title in lines that are no wider than its panel, cut after the third."""
    from textwrap import wrap

    lines = wrap(text, max(int(inches * 72 / (0.6 * size)), 8)) or [""]
    return "\n".join(
        [*lines[:2], shorten(" ".join(lines[2:]), int(inches * 72 / (0.6 * size)))] if lines[2:] else lines
    )
