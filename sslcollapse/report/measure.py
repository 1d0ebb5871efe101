"""How wide text is, and text in lines that are no wider than their place."""

from __future__ import annotations

import functools
import re
from typing import Any

from sslcollapse.core.texts import printable
from sslcollapse.rank.plots import shorten

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
