"""What may stand in a recipe: markers that refine annotations.

* ``dataset: Annotated[dict, Component("graph_dataset")]`` is ``{"type": name, argument: value, ...}``;
* ``views: Annotated[ImageViews, FieldsOrComponent("vision_views")]`` is the fields of a dataclass, or such a component;
* ``evaluate: Annotated[dict, Named("probe")]`` is ``{any name: {"type": ..., ...}, ...}``;
* ``steps: Annotated[int, AtLeast(1)]`` is an int with a lower bound; ``AtMost``, ``Above`` and ``Between`` bound too;
* ``networks: Annotated[Sequence[str], Distinct()]`` is a list that has nothing twice;
* ``coefficient: Coefficient`` is any form of coefficient.
"""

from __future__ import annotations

import inspect
import math
import numbers
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from sslcollapse.core.errors import RecipeError, in_words, quote, suggest
from sslcollapse.core.registry import REGISTRIES, Registry, RegistryError
from sslcollapse.recipe.check import (
    Marker,
    Resolved,
    as_float,
    check,
    check_fields,
    expect,
    join,
    string_keys,
    try_construct,
)

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


@dataclass(frozen=True)
class Component(Marker):
    """Marker of ``{"type": name, argument: value, ...}``, a registered component of one kind.

    The arguments are checked against the component's keyword-only parameters. A component that takes nothing
    else is also constructed once, so that what its constructor refuses is refused before data are read.
    """

    kind: str

    def check(self, value: Any, annotation: Any, path: str) -> dict[str, Any]:
        """The dict with all arguments of the component."""
        if self.kind not in REGISTRIES:
            raise RecipeError(
                f"{path}: there is no kind of component {self.kind!r}{suggest(self.kind, list(REGISTRIES))}; a plug-in "
                f"adds it with REGISTRIES.add(Registry({self.kind!r}))"
            )
        registry = REGISTRIES[self.kind]
        if not isinstance(value, Mapping):
            known = registry.names()
            hint = f"; did you mean {{'type': {value!r}}}?" if isinstance(value, str) and value in known else ""
            raise RecipeError(f"{path}: expected {self.describe()}, got {quote(value)}{hint}")
        if "type" not in value:
            raise RecipeError(f"{path}: needs 'type' (known: {', '.join(registry.names())})")
        name = value["type"]
        expect(isinstance(name, str), name, str, name, f"{path}.type")
        arguments = {key: item for key, item in value.items() if key != "type"}
        fields = {parameter: (p.annotation, p.default) for parameter, p in _parameters(registry, name, path).items()}
        resolved = check_fields(arguments, fields, path, f"argument of {name!r}")
        try_construct(registry.get(name), resolved, path, registry.supplied(name))
        return Resolved({"type": name, **resolved}, {"type", *resolved.stated})

    def describe(self, annotation: Any = None) -> str:
        """What is expected, for messages."""
        return f"a dict with the 'type' and the arguments of the {self.kind}"


@dataclass(frozen=True)
class FieldsOrComponent(Marker):
    """Marker of a dataclass that a component of one kind may stand for: fields, or ``{"type": name, ...}``."""

    kind: str

    def check(self, value: Any, annotation: Any, path: str) -> Any:
        """The fields, or the component, with all defaults."""
        if isinstance(value, Mapping) and "type" in value:
            return Component(self.kind).check(value, dict, path)
        return check(value, annotation, path)


@dataclass(frozen=True)
class Named(Marker):
    """Marker of a mapping from free names to components of one kind; an entry that is None is left out."""

    kind: str

    def check(self, value: Any, annotation: Any, path: str) -> dict[str, Any]:
        """The mapping with every component resolved; None is an empty one."""
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            raise RecipeError(f"{path}: expected {self.describe()}, got {quote(value)}")
        for name in value:
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise RecipeError(f"{path}: a name is made of letters, digits, '_' and '-', got {quote(name)}")
            if len(name) > LONGEST_NAME:
                raise RecipeError(f"{path}: a name has at most {LONGEST_NAME} letters, got {len(name)}: {quote(name)}")
        return {
            name: Component(self.kind).check(item, dict, join(path, name))
            for name, item in value.items()
            if item is not None
        }

    def describe(self, annotation: Any = None) -> str:
        """What is expected, for messages."""
        return f"a dict of named {self.kind}s, each a dict with 'type'"


@dataclass(frozen=True)
class CoefficientSpec(Marker):
    """Marker of a coefficient: a number, ``{layer name or glob: number}``, or a component of that kind."""

    def check(self, value: Any, annotation: Any, path: str) -> Any:
        """The coefficient, its numbers as floats."""
        if not isinstance(value, Mapping):
            return self._number(value, path)
        if "type" in value:
            return Component("coefficient").check(value, dict, path)
        if not value:
            raise RecipeError(f"{path}: {{}} gives no layer a coefficient; leave the regularizer out, or give a number")
        return {key: self._number(item, join(path, key)) for key, item in string_keys(value, path)}

    def describe(self, annotation: Any = None) -> str:
        """What is expected, for messages."""
        return "a finite number >= 0, a dict of layer names or globs, or a dict with 'type'"

    def _number(self, value: Any, path: str) -> float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise RecipeError(f"{path}: expected {self.describe()}, got {quote(value)}")
        number = as_float(value)
        if not math.isfinite(number) or number < 0:
            raise RecipeError(f"{path}: a coefficient must be a finite number >= 0, got {quote(value)}")
        return number


Coefficient = Annotated[Any, CoefficientSpec()]
"""Annotation of a parameter that takes any form of coefficient."""


def kinds_within(registry: Registry, name: str) -> dict[str, str]:
    """Argument → kind of the components that it takes, of a registered component; empty where it cannot be imported."""
    try:
        parameters = registry.parameters(name)
    except Exception:  # of another package's module, which may fail in any way when it is imported
        return {}
    kinds = {argument: kind_of(parameter.annotation) for argument, parameter in parameters.items()}
    return {argument: kind for argument, kind in kinds.items() if kind is not None}


def kind_of(annotation: Any) -> str | None:
    """The kind of the components that an annotation allows anywhere; None where it allows none."""
    if isinstance(annotation, (Component, FieldsOrComponent, Named)):
        return annotation.kind
    if isinstance(annotation, CoefficientSpec):
        return "coefficient"
    return next((kind for part in get_args(annotation) if (kind := kind_of(part)) is not None), None)


def _parameters(registry: Registry, name: str, path: str) -> dict[str, inspect.Parameter]:
    try:
        return registry.parameters(name)
    except RegistryError as error:
        raise RecipeError(f"{path}.type: {error}") from error
    except ImportError as error:
        raise RecipeError(f"{path}.type: the {registry.kind} {name!r} cannot be imported: {error}") from error
    except Exception as error:  # of another package's module, which may fail in any way when it is imported
        raise RecipeError(f"{path}.type: the {registry.kind} {name!r} cannot be used: {in_words(error)}") from error
