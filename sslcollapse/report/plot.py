"""A plot is a drawing and its numbers: one SVG, one PNG and one CSV; its palette and ink, and how wide text is."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sslcollapse.core.texts import csv_text, in_html, printable
from sslcollapse.rank.plots import shorten

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
            _plain_powers(figure)
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


def _plain_powers(figure: Any) -> None:
    """Numbers at logarithmic axes as plain text: matplotlib writes them as formulas, which ``RC`` does not parse."""
    from matplotlib.ticker import LogFormatter, LogFormatterMathtext

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: Any = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
            axis.set_major_formatter(Plain())
        if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
            axis.set_minor_formatter(Plain(labelOnlyBase=False))


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


INK = "#010203"
"""Colour of text, ticks and frames. In an SVG it is replaced by ``currentColor``; in a PNG it is black to the eye."""

COLOURS = ("#0A7CC0", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080")
"""After Okabe and Ito, for colour-blind readers; those that stand out from white and from black alike come first."""

DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "D", "^", "v", "<", ">", "*", "P", "X")
"""So many that colours and markers have no common divisor: pairs repeat late."""

COURSE = ("#3b82c4", "#a06cd5", "#d6568f", "#d97706")
"""From the first to the last step: hues of equal lightness, so that neither end is lost on white or black."""

DEPTH = ("#0f9aa8", "#4f9d3a", "#9a8c1c", "#a5682a")
"""From the first to the last layer: other hues than those of steps, as light."""

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 5),
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "sslcollapse",
    "path.simplify_threshold": 0.2,
    "text.parse_math": False,  # names may have dollar signs
}


def course_map() -> Any:
    """The colour map of steps."""
    return _colour_map("course", COURSE)


def depth_map() -> Any:
    """The colour map of layers."""
    return _colour_map("depth", DEPTH)


def _colour_map(name: str, colours: tuple[str, ...]) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(name, colours)


_BREAKS = re.compile(r"(?<=[\s.,/_·])")
"""Where a name may be broken: behind a blank or a mark."""


@functools.cache
def text_inches(text: str, size: float) -> float:
    """Width of one line of text, set in so many points."""
    width, *_ = _measure().get_text_width_height_descent(text, _font(size), False)
    return width / 72


def wrap(text: str, inches: float, size: float, most: int) -> list[str]:
    """Text in at most so many lines, broken between words or at marks; what is too wide is cut in its middle."""
    lines = _broken(printable(text), inches, size)
    if len(lines) > most:
        lines = [*lines[: most - 1], "".join(lines[most - 1 :])]
    return [_cut(line.strip(), inches, size) for line in lines]


def fits(text: str, inches: float, size: float, most: int) -> bool:
    """Whether ``wrap`` cuts nothing."""
    lines = _broken(printable(text), inches, size)
    return len(lines) <= most and all(text_inches(line.strip(), size) <= inches for line in lines)


def _broken(text: str, inches: float, size: float) -> list[str]:
    lines = [""]
    for part in _BREAKS.split(text):
        if lines[-1] and text_inches((lines[-1] + part).strip(), size) > inches:
            lines.append("")
        lines[-1] += part
    return lines


def _cut(line: str, inches: float, size: float) -> str:
    letters = len(line)
    while letters > 4 and text_inches(shorten(line, letters), size) > inches:
        letters -= 1
    return shorten(line, letters)


@functools.cache
def _measure() -> Any:
    from matplotlib.textpath import TextToPath

    return TextToPath()


@functools.cache
def _font(size: float) -> Any:
    from matplotlib.font_manager import FontProperties

    return FontProperties(family="DejaVu Sans", size=size)
