"""A plot is a drawing and its numbers: one SVG, one PNG and one CSV, named alike."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sslcollapse.core.texts import csv_text, in_html
from sslcollapse.report.style import INK, RC

WIDTH = 5.2
"""Inches. Text of 9.5 points is then legible on a phone, where a plot is as wide as the screen."""

DPI = 160


@dataclass(frozen=True)
class Plot:
    """One figure of a page.

    Attributes:
        name: stem of its files.
        title: one line above it.
        caption: what is drawn, below it; plain text.
        draw: draws on an empty figure.
        heads, rows: the numbers that are drawn, as a table.
        height: in inches.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Any], None]
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]
    height: float = 3.5

    def figure(self) -> Any:
        """The drawing, laid out, as a matplotlib figure."""
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure  # not pyplot: no window system, no global state

        with matplotlib.rc_context(RC):
            figure = Figure(figsize=(WIDTH, self.height), layout="constrained")
            FigureCanvasAgg(figure)
            self.draw(figure)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # as it is; it would be computed again
        return figure

    def render(self) -> tuple[bytes, bytes]:
        """SVG with a transparent ground and ink in ``currentColor``, and PNG on white."""
        import matplotlib

        figure = self.figure()
        with matplotlib.rc_context(RC):
            vector, raster = io.BytesIO(), io.BytesIO()
            figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
            figure.savefig(raster, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
        return _tidy(vector.getvalue().decode()).encode(), raster.getvalue()

    def csv(self) -> bytes:
        """The table, unrounded."""
        return to_csv(self.heads, self.rows)


def to_csv(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """A table in UTF-8; None is an empty field."""
    return csv_text([heads, *rows]).encode()


def slug(text: str) -> str:
    """Text as a file name, or part of one; never hidden, never a place above."""
    return re.sub(r"[^\w.=-]+", "_", text).strip("_.")


def inline(svg: bytes, name: str, label: str) -> str:
    """An SVG as an element of a page: ids that no other plot has, as wide as its place, with a label for readers."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{slug(name)}-", text)
    head, _, body = text.partition(">")
    head = re.sub(r' (?:width|height|xmlns(?::\w+)?|version)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{in_html(label)}">{body}'


def _tidy(svg: str) -> str:
    """Ink in the page's colour; no metadata; no ids that nothing refers to."""
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace(INK, "currentColor")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    return re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
