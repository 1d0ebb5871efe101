"""What a command prints: in any encoding, to a pipe that somebody closes, from one process of several."""

from __future__ import annotations

import errno
import io
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sslcollapse.core.texts import printable

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
