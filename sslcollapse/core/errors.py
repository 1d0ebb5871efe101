"""Errors meant for people: each message says what is wrong, where, and what to do next."""

from __future__ import annotations

import difflib
import errno
import math
import re
import signal
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sslcollapse.core.texts import printable

_SIZE = re.compile(r"(?:tried|unable) to allocate ([\d.]+ ?[KMGTPE]iB|\d+ bytes)", re.IGNORECASE)
_TOO_MUCH = re.compile(r"not enough memory|out of memory|size calculation overflow", re.IGNORECASE)
"""How torch and NumPy say that an allocation failed, with its size and without."""


class SSLCollapseError(Exception):
    """Base of all errors that are shown without a traceback."""

    def __str__(self) -> str:
        """The message; control characters of names that it quotes are written as escapes."""
        return printable(super().__str__(), keep="\n")


class DataError(SSLCollapseError, ValueError):
    """Data are there but unusable: truncated, corrupt, or not what they should be."""


class MissingDataError(SSLCollapseError, FileNotFoundError):
    """Data files are not there and could not be downloaded."""


class RecipeError(SSLCollapseError, ValueError):
    """A recipe, an override or an argument of a component is wrong."""


class RunError(SSLCollapseError, RuntimeError):
    """A run cannot start or go on."""


class NonFiniteLossError(RunError):
    """A part of the loss, a parameter or an output became NaN or infinite."""


class WriteError(RunError, OSError):
    """A file could not be written; ``errno`` and ``strerror`` are the system's."""

    def __str__(self) -> str:
        return printable(str(self.args[0]), keep="\n")


class PreemptedError(RunError):
    """A signal asked the run to stop, as a cluster does with a job; ``resume`` goes on with it.

    Attributes:
        number: of the signal.
    """

    EXIT_CODE = 75
    """What a process ends with: ``EX_TEMPFAIL`` of sysexits.h, "try again later"."""

    def __init__(self, message: str, number: int = signal.SIGTERM) -> None:
        super().__init__(message, number)
        self.number = number

    def __str__(self) -> str:
        return printable(str(self.args[0]), keep="\n")


class CollapsedError(RunError):
    """Training was stopped since a layer has lost its rank, as it was asked to.

    Attributes:
        collapse: what was found.
    """

    EXIT_CODE = 79
    """What a process ends with: the first number after those of sysexits.h, which a mistake or a signal has."""

    def __init__(self, message: str, collapse: Any = None) -> None:
        super().__init__(message)
        self.collapse = collapse


DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "markdown_it": "markdown-it-py",
    "PIL": "pillow",
    "lightly_utils": "lightly",
}
"""Name that is imported → name that is installed, of packages where these differ."""


def absent(error: BaseException) -> str | None:
    """A sentence on a package that is not installed, with what to install; None of other errors."""
    if not isinstance(error, ModuleNotFoundError) or not error.name or "." in error.name:
        return None
    package = DISTRIBUTIONS.get(error.name, error.name)
    return f"the package {package} is not installed; install it with: pip install {package}"


def in_words(error: BaseException) -> str:
    """An error's own words; with its type where it was raised for programmers and says little without it."""
    if (lacking := absent(error)) is not None:
        return lacking
    text = str(error)
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")


def quote(value: Any) -> str:
    """A value as messages show it, shortened; whatever it is, it can be shown."""
    try:
        text = repr(value)
    except Exception:  # an int of very many digits, or an object whose own repr fails
        digits = f" of about {int(abs(value).bit_length() * math.log10(2)):,} digits" if isinstance(value, int) else ""
        return f"{'an' if digits else 'a value of type'} {type(value).__name__}{digits}"
    return text if len(text) <= 80 else f"{text[:77]}..."


ADVICE = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room within your quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "make this file system writable again, or choose another folder",
    errno.EACCES: "give this user access, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "it is not there, or was moved or deleted meanwhile; put it back, or start again",
    errno.EMFILE: "let this process open more files (ulimit -n)",
}
"""What to do about an error of the system, before the command is given again."""


def explained(error: Exception, recipe: Mapping[str, Any]) -> str | None:
    """A sentence on an error that no code of this package can prevent; None of any other, which is a fault.

    Args:
        error: of the system (a full disk, a name that is too long), an allocation that failed, or a package that is
            not installed.
        recipe: the resolved recipe of the command; an empty dict where it has none.
    """
    if isinstance(error, OSError) and error.errno is not None:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; {ADVICE.get(error.errno, '--debug shows where it happened')}"
    if (lacking := absent(error)) is not None:
        return lacking
    if isinstance(error, RuntimeError) and re.search(r"gloo|NCCL|c10d|TCPStore", str(error)):
        first = str(error).partition("\n")[0][:200]
        return (
            f"another process of this run has ended or cannot be reached; look at what it said, then resume ({first})"
        )
    if isinstance(error, (MemoryError, RuntimeError)):
        return shortage(error, recipe)
    return None


def place(error: BaseException) -> str:
    """Where a user's own code failed, as `` (file:line)``; "" where only this package and torch were running.

    That is the innermost line outside of both; of another library only where there is none of a user's file.
    """
    torch = getattr(sys.modules.get("torch"), "__file__", None)
    known = (str(Path(__file__).parents[1]), *([str(Path(torch).parent)] if torch else []))
    libraries = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*known, "<"))]
    frames = [f for f in frames if not f.filename.startswith(libraries)] or frames
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


@contextmanager
def named(code: str) -> Iterator[None]:
    """Errors of a user's own code inside say whose they are and where; those of files and of memory stay what they are.

    Raises:
        RecipeError: names ``code``, the error, and the line of the user's file.
    """
    try:
        yield
    except (SSLCollapseError, OSError):
        raise
    except Exception as error:
        if shortage(error, {}) is not None:
            raise
        raise RecipeError(f"{code} raised {type(error).__name__}: {error}{place(error)}") from error


def suggest(word: str, known: Iterator[str] | list[str], cutoff: float = 0.5) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word that is at least so similar, or an empty string."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""


def shortage(error: BaseException, recipe: Mapping[str, Any]) -> str | None:
    """A sentence on an allocation that failed: its size, and the largest number of the recipe. None of other errors.

    Args:
        error: a ``MemoryError`` of Python or NumPy, or torch's ``RuntimeError`` of the same meaning.
        recipe: a resolved one, or an empty dict.
    """
    found = _SIZE.search(str(error))
    if not (isinstance(error, MemoryError) or found or _TOO_MUCH.search(str(error))):
        return None
    size = found[1] if found else ""
    if size.endswith("bytes"):
        size = in_units(int(size.split()[0]))
    return f"there is not enough memory{f' ({size} at once)' if size else ''}; {largest_size(recipe)}"


def in_units(count: int) -> str:
    """A number of bytes as people read it: ``"4 TB"``."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.3g} {unit}" if count < 1e15 else f"{count / 1e12:.1e} TB"
    return f"{count} bytes"


def largest_size(recipe: Mapping[str, Any]) -> str:
    """Which number of a recipe is the largest, of those that can have to do with memory."""
    parts = {name: recipe.get(name) for name in ("domain", "encoder", "objective", "regularizers")}
    found = max(_numbers(parts, ""), key=lambda item: item[1], default=("", 0))
    if not found[0]:
        return "give it less to do at once"
    return f"of the recipe's sizes {found[0]} = {found[1]} is the largest: make it smaller"


def _numbers(value: Any, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, int) and not isinstance(value, bool) and not path.endswith("seed"):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for k, item in enumerate(value):
            yield from _numbers(item, f"{path}[{k}]")
