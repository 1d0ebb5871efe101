"""Errors meant for people: each message says what is wrong, where, and what to do next."""

from sslcollapse.texts import printable


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
