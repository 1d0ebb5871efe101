"""Text that others chose, made harmless where it is shown; and what a command prints, in any encoding, to any pipe."""

from __future__ import annotations

import csv
import errno
import html
import io
import os
import sys
import tempfile
import time
import traceback
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
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


RANK_0_SECONDS = 10.0
"""How long other ranks let rank 0 go first with an error."""

_NOBODY_READS = (errno.EPIPE, errno.EIO, errno.EBADF)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Within it, printing fails neither for a character that the encoding lacks nor because nobody reads any more.

    Such a character becomes a question mark. What nobody reads is dropped, and the command goes on, so that its files
    and its exit code are those of any other run.
    """
    before = sys.stdout, sys.stderr
    for name, stream in zip(("stdout", "stderr"), before, strict=True):
        if stream is None:  # closed before the start: its number must not become that of a file that is opened later
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        else:
            setattr(sys, name, _Lasting(stream))
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                _abandon(stream)
        for stream, strict in ((sys.stdout, before[0]), (sys.stderr, before[1])):
            if isinstance(stream, _Lasting) and isinstance(strict, io.TextIOWrapper):
                strict.reconfigure(errors=stream.usual_errors)
        sys.stdout, sys.stderr = before


class _Lasting:
    """A text stream that drops what nobody reads; everything else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.usual_errors = getattr(stream, "errors", None)
        if self.usual_errors == "strict" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _drop(self, error: OSError) -> None:
        """Let all that is still to come go nowhere, what is buffered included; for other errors than these, raise."""
        if error.errno not in _NOBODY_READS:
            raise error
        _abandon(self._stream)


def _abandon(stream: Any) -> None:
    """Let what a stream has not written yet, and what still comes, go nowhere; else Python's end would fail at it."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def rank() -> str:
    """Of this process among those that a launcher started."""
    return os.environ.get("RANK", "0")


def launched() -> int:
    """How many processes a launcher started for this command; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def say(message: str) -> None:
    """Print to stderr, from one process only where several run the same command."""
    if rank() == "0":
        print(message, file=sys.stderr)


def say_error(message: str) -> None:
    """Print an error to stderr, once where all processes of a command have the same one.

    Mostly all ranks fail alike: rank 0 then says so, and its end makes the launcher end the others while they wait. A
    rank that is left after that has an error of its own.
    """
    message = printable("error: " + " ".join(line.strip() for line in message.splitlines()))
    if rank() == "0":
        print(message, file=sys.stderr)
        return
    time.sleep(RANK_0_SECONDS)
    print(f"rank {rank()}: {message}", file=sys.stderr)


def keep_traceback(error: BaseException) -> str:
    """Write the traceback of an error to a new file; its path, or where else to find the traceback."""
    text = "".join(traceback.format_exception(error))
    try:
        number, path = tempfile.mkstemp(prefix="sslcollapse-", suffix=".log")
        with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return "which --debug shows"
    return f"which is in {path} (--debug shows it)"
