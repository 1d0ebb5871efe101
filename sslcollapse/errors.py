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


class WriteError(RunError, OSError):
    """A file could not be written; ``errno`` and ``strerror`` are the system's."""

    def __str__(self) -> str:
        return str(self.args[0])


class PreemptedError(RunError):
    """A signal asked the run to stop, as a cluster does with a job; ``resume`` goes on with it.

    Attributes:
        number: of the signal.
    """

    EXIT_CODE = 75
    """What a process ends with: ``EX_TEMPFAIL`` of sysexits.h, "try again later"."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message, number)
        self.number = number

    def __str__(self) -> str:
        return str(self.args[0])
