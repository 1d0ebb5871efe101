"""What this package uses of rich, as plain lines, where rich is not installed: no colours, no bars, nothing redrawn."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class PlainText:
    """Text whose styles are left out."""

    def __init__(self, text: str = "", *styles: Any, **options: Any) -> None:
        self.plain = text

    @classmethod
    def assemble(cls, *parts: Any) -> PlainText:
        """One text of several, each a string or a pair (string, style)."""
        return cls("".join(part[0] if isinstance(part, tuple) else str(part) for part in parts))

    def __str__(self) -> str:
        return self.plain


class PlainTable:
    """Columns of text, as wide as their widest cell."""

    def __init__(self, *titles: str, title: str = "", caption: str = "", **options: Any) -> None:
        self.title, self.caption = title, caption
        self.columns: list[tuple[str, str]] = [(each, "left") for each in titles]
        self.rows: list[tuple[Any, ...]] = []

    def add_column(self, header: str = "", *, justify: str = "left", **options: Any) -> None:
        """A column with its title."""
        self.columns.append((header, justify))

    def add_row(self, *cells: Any, **options: Any) -> None:
        """A cell for each column; those that are left out are empty."""
        self.rows.append(cells)


class Printer:
    """Prints text and tables; it never is a terminal that may be drawn on."""

    is_terminal = False

    def __init__(self, *, file: TextIO | None = None, quiet: bool = False, **options: Any) -> None:
        self._file, self.quiet = file, quiet

    def render_str(self, text: str, **options: Any) -> PlainText:
        """Text, also of a table's cell or title, as it is shown."""
        return PlainText(text)

    def print(self, *parts: Any, **options: Any) -> None:
        """Show text or tables, each on lines of its own."""
        if not self.quiet:
            print(*("\n".join(self._lines(part)) for part in parts), file=self._file or sys.stdout)

    @contextmanager
    def capture(self) -> Iterator[Any]:
        """What is printed within it is kept, and had by ``get()`` of what this gives."""
        before, self._file = self._file, io.StringIO()
        try:
            yield _Captured(self._file)
        finally:
            self._file = before

    def _lines(self, part: Any) -> list[str]:
        if not isinstance(part, PlainTable):
            return [part.plain if isinstance(part, PlainText) else self.render_str(str(part)).plain]
        shown = [[self._cell(title) for title, _ in part.columns]]
        shown += [[self._cell(cell) for cell in (*row, *[""] * (len(part.columns) - len(row)))] for row in part.rows]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        sides = [str.rjust if justify == "right" else str.ljust for _, justify in part.columns]
        lines = [
            "  ".join(side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True)).rstrip()
            for row in shown
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return [*self._around(part.title), *lines, *self._around(part.caption)]

    def _cell(self, cell: Any) -> str:
        return " ".join(self._lines("" if cell is None else cell)).replace("\n", " ")

    def _around(self, text: Any) -> list[str]:
        return [self._cell(text)] if text else []


class _Captured:
    """What was printed."""

    def __init__(self, file: io.StringIO) -> None:
        self._file = file

    def get(self) -> str:
        """All of it."""
        return self._file.getvalue()
