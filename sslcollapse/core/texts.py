"""Text that others chose (names in a file, paths, values), made harmless where it is shown or written."""

from __future__ import annotations

import csv
import html
import io
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

FORMULA = ("=", "+", "-", "@")
"""What a cell begins with that a spreadsheet takes for a formula."""


def printable(text: str, keep: str = "") -> str:
    r"""The text with everything that is no visible character written as an escape, such as ``\x1b`` or ``\u202e``.

    A terminal obeys control characters, and some other invisible ones reverse or hide what stands beside them.

    Args:
        text: any text.
        keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if _visible(c) or c in keep else c.encode("unicode_escape").decode() for c in text)


def in_html(text: str) -> str:
    """The text as HTML shows it."""
    return html.escape(printable(text, keep="\n"))


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, one a line. What looks like a formula and is no number begins with an apostrophe."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _visible(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"  # spaces of other widths


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = printable(value)
    if not text.startswith(FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
