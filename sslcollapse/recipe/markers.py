"""Markers that refine the annotation of a plain value: bounds of numbers, lists without repetition, folder names."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from sslcollapse.core.errors import RecipeError, quote
from sslcollapse.recipe.check import Marker, check

LONGEST_NAME = 200
"""Letters of a folder's name; file systems take 255, and files beside it have longer ones."""


@dataclass(frozen=True)
class Bound(Marker):
    """Marker of a number with a bound; subclasses say on which side, and whether the bound itself is allowed."""

    bound: float
    sign: ClassVar[str]
    holds: ClassVar[Callable[[Any, Any], bool]]

    def check(self, value: Any, annotation: Any, path: str) -> Any:
        """The number; raises RecipeError beyond the bound."""
        number = check(value, annotation, path)
        if not type(self).holds(number, self.bound):
            raise RecipeError(f"{path}: must be{self.range}, got {value}")
        return number

    @property
    def range(self) -> str:
        """``" >= 1"``."""
        return f" {self.sign} {self.bound}"


class AtLeast(Bound):
    """Marker of a number with a lower bound."""

    sign, holds = ">=", operator.ge


class AtMost(Bound):
    """Marker of a number with an upper bound."""

    sign, holds = "<=", operator.le


class Above(Bound):
    """Marker of a number above a bound."""

    sign, holds = ">", operator.gt


@dataclass(frozen=True)
class Between(Marker):
    """Marker of a number in an interval, whose ends belong to it unless they are ``open`` (``"left"``, ``"right"``)."""

    minimum: float
    maximum: float
    open: Literal["", "left", "right", "both"] = ""

    def check(self, value: Any, annotation: Any, path: str) -> Any:
        """The number; raises RecipeError outside the interval."""
        number = check(value, annotation, path)
        above = number > self.minimum if self.open in ("left", "both") else number >= self.minimum
        below = number < self.maximum if self.open in ("right", "both") else number <= self.maximum
        if not (above and below):
            raise RecipeError(f"{path}: must be{self.range}, got {value}")
        return number

    @property
    def range(self) -> str:
        """``" in [0, 1)"``."""
        first = "(" if self.open in ("left", "both") else "["
        last = ")" if self.open in ("right", "both") else "]"
        return f" in {first}{self.minimum}, {self.maximum}{last}"


@dataclass(frozen=True)
class Distinct(Marker):
    """Marker of a list that has nothing twice."""

    def check(self, value: Any, annotation: Any, path: str) -> Any:
        """The list; raises RecipeError for an entry that comes again."""
        entries = check(value, annotation, path)
        for entry in entries:
            if entries.count(entry) > 1:
                raise RecipeError(f"{path}: {entry!r} is there twice, in {quote(value)}; leave one of them out")
        return entries


Width = Annotated[int, AtLeast(1)]
"""Annotation of the width of a layer, or of another number of things."""

Weight = Annotated[float, AtLeast(0)]
"""Annotation of the weight of a term, and of other numbers that may be zero."""

Probability = Annotated[float, Between(0, 1)]
"""Annotation of a probability, or of another share that may be none or all."""

Share = Annotated[float, Between(0, 1, open="both")]
"""Annotation of a share that is neither none nor all."""

Momentum = Annotated[float, Between(0, 1, open="right")]
"""Annotation of a decay rate of an average: 1 would never move it."""


@dataclass(frozen=True)
class Word(Marker):
    """Marker of a string that names a folder: letters, digits, ``_``, ``-`` and, unless first, ``.``."""

    def check(self, value: Any, annotation: Any, path: str) -> Any:
        """The string; raises RecipeError for any other."""
        return folder_name(check(value, annotation, path), path)


def folder_name(name: Any, place: str) -> str:
    """The name itself, if a folder of that name lies where it is made: the one check of all names that become paths.

    Raises:
        RecipeError: it is hidden, leads elsewhere, or is too long; starts with ``place``.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
        raise RecipeError(
            f"{place}: must be made of letters, digits, '_', '-' and '.', got {quote(name)}; a '.' may not be the first"
        )
    if len(name) > LONGEST_NAME:
        raise RecipeError(f"{place}: has {len(name)} letters, at most {LONGEST_NAME} make a folder: {quote(name)}")
    return name
