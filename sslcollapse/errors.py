"""Errors meant for people: each message says what is wrong, where, and what to do next."""


class SSLCollapseError(Exception):
    """Base of all errors that are shown without a traceback."""


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
