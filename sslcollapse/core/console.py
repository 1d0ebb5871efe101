"""A terminal on which text that somebody else chose is shown as it is: by rich, or as plain lines where there is none.

Whoever shows something takes ``PlainConsole``, ``Table`` and ``Text`` from here. It is a file of its own, since rich
imports slowly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sslcollapse.core.texts import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
else:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        from sslcollapse.core import plain

        Console, Table, Text = plain.Printer, plain.PlainTable, plain.PlainText


class PlainConsole(Console):
    """A terminal on which text is shown as it is.

    Square brackets and words between colons are no markup, and control characters, which a terminal would obey, are
    written as escapes: text holds paths, names and values that somebody chose.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Text, also of a table's cell or title, ready to be shown."""
        return super().render_str(printable(text, keep="\n"), **options)
