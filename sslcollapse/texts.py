"""Text that others chose (names in a file, paths, values), made harmless where it is shown or written."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")
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
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, in which no text is a formula: one that looks like it, and is no number, gets an apostrophe."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
