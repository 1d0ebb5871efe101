"""Validation of plain values against type annotations: one recursive function, ``check``."""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
import re
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from sslcollapse.core.errors import RecipeError, in_words, quote, suggest
from sslcollapse.core.kind import supplied

REQUIRED = inspect.Parameter.empty
"""Stands for "no default"."""

NOUNS = {int: "int", float: "number", str: "string", bool: "True or False", type(None): "None"}
PLURALS = {int: "int", float: "numbers", str: "strings"}

_PLAIN_KEY = re.compile(r"[\w-]+")

LARGEST_INT = 2**63 - 1
"""What fits into 64 bits, which all that counts or seeds is limited to."""


def check(value: Any, annotation: Any, path: str) -> Any:
    """Validate a value against an annotation; return it resolved: defaults filled in, and JSON-able.

    Args:
        value: what the recipe says; tuples become lists, ints become floats where a number is due.
        annotation: a plain type, union, ``Literal``, sequence, mapping or dataclass, or one of them
            ``Annotated`` with markers.
        path: dotted place of the value, for messages.

    Raises:
        RecipeError: names the path, quotes the value and suggests what was meant.
    """
    if get_origin(annotation) is Annotated:
        marker, inner = _outer_marker(annotation)
        return marker.check(value, inner, path) if marker else check(value, inner, path)
    if get_origin(annotation) in (Union, types.UnionType):
        return _union(value, get_args(annotation), annotation, path)
    if get_origin(annotation) is Literal:
        return _literal(value, get_args(annotation), path)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return _dataclass(value, annotation, path)
    base = get_origin(annotation) or annotation
    if base in (Any, object, REQUIRED):
        return _json_able(value, path)
    if base in (None, type(None)):
        return expect(value is None, None, annotation, value, path)
    if base is bool:
        return expect(isinstance(value, bool), value, annotation, value, path)
    if base is str:
        return _text(expect(isinstance(value, str), value, annotation, value, path), path)
    if base in (int, float):
        return _number(value, base, path)
    if isinstance(base, type) and issubclass(base, Mapping):
        return _mapping(value, annotation, path)
    if isinstance(base, type) and issubclass(base, Sequence):
        return _sequence(value, annotation, path)
    raise RecipeError(f"{path}: a {annotation} cannot come from a recipe; annotate a plain type")


class Marker:
    """Refines the type that it annotates: ``Annotated[int, AtLeast(1)]``.

    Attributes:
        range: what it adds to the words for the type, such as ``" >= 1"``.
    """

    @property
    def range(self) -> str:
        """Nothing, unless a marker of numbers says more."""
        return ""

    def check(self, value: Any, annotation: Any, path: str) -> Any:
        """The resolved value of a field of type ``annotation`` with this marker; raises RecipeError."""
        return check(value, annotation, path)

    def describe(self, annotation: Any) -> str:
        """What is accepted, for messages."""
        return f"{describe(annotation)}{self.range}"


def join(path: str, key: Any) -> str:
    """``path.key``, or ``path['key']`` for a key that could not be typed after a dot."""
    if not isinstance(key, str) or not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{quote(key)}]"
    return f"{path}.{key}" if path else key


def _outer_marker(annotation: Any) -> tuple[Marker | None, Any]:
    """The last marker of an ``Annotated``, and the annotation without it."""
    inner, *extras = get_args(annotation)
    markers = [extra for extra in extras if isinstance(extra, Marker)]
    if not markers:
        return None, inner
    for marker in markers[:-1]:
        inner = Annotated[inner, marker]
    return markers[-1], inner


class Resolved(dict[str, Any]):
    """A dict with all defaults filled in, which remembers the keys whose values are not the default: ``stated``."""

    def __init__(self, items: Mapping[str, Any] | None = None, stated: Iterable[str] = ()) -> None:
        super().__init__(items or {})
        self.stated = set(stated)


def stated_only(value: Any) -> Any:
    """A checked value without what equals its default, at any depth: the shortest way to say the same."""
    if isinstance(value, Resolved):
        return {key: stated_only(item) for key, item in value.items() if key in value.stated}
    if isinstance(value, dict):
        return {key: stated_only(item) for key, item in value.items()}
    return [stated_only(item) for item in value] if isinstance(value, list) else value


def check_fields(value: Mapping[str, Any], fields: Mapping[str, tuple[Any, Any]], path: str, noun: str) -> Resolved:
    """Check a dict against name → (annotation, default or REQUIRED), and fill the defaults in."""
    for key, _ in string_keys(value, path or "a recipe"):
        if key not in fields:
            near = suggest(key, list(fields)) or f" (known: {', '.join(fields) or 'none'})"
            raise RecipeError(f"{join(path, key)}: unknown {noun}{near}")
    resolved = Resolved()
    for name, (annotation, default) in fields.items():
        where = join(path, name)
        if name not in value and default is REQUIRED:
            raise RecipeError(f"{where}: missing {noun}; give it {describe(annotation)}")
        usual = default if default in (None, REQUIRED) else check(_plain(default), annotation, where)
        resolved[name] = check(value[name], annotation, where) if name in value else usual
        if default is REQUIRED or resolved[name] != usual:
            resolved.stated.add(name)
    return resolved


def _dataclass(value: Any, cls: type, path: str) -> Resolved:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{path or 'a recipe'}: expected a dict, got {quote(value)}")
    resolved = check_fields(value, fields_of(cls), path, f"field of {path!r}" if path else "field of a recipe")
    try_construct(cls, resolved, path, supplied_of(cls))
    return resolved


@lru_cache(maxsize=256)
def fields_of(cls: type) -> Mapping[str, tuple[Any, Any]]:
    """The fields of a dataclass as ``check_fields`` takes them: name → (annotation, default or REQUIRED).

    Read once for each class: an ablation checks as many recipes as it has cells.
    """
    hints = get_type_hints(cls, include_extras=True)
    fields: dict[str, tuple[Any, Any]] = {}
    for field in dataclasses.fields(cls):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        fields[field.name] = (hints[field.name], REQUIRED if default is dataclasses.MISSING else default)
    return fields


def _plain(default: Any) -> Any:
    """A default as a recipe would spell it: dataclass instances as dicts."""
    if dataclasses.is_dataclass(default) and not isinstance(default, type):
        return {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
    return default


@lru_cache(maxsize=256)
def supplied_of(cls: type) -> tuple[str, ...]:
    """``supplied`` of a class, read once."""
    return supplied(inspect.signature(cls))


def try_construct(factory: Callable[..., Any], arguments: Mapping[str, Any], path: str, needs: Collection[str]) -> None:
    """Let a constructor refuse its arguments, unless it needs some that only the framework can supply.

    Args:
        factory: called with ``arguments``.
        arguments: by name.
        path: place in the recipe, for messages.
        needs: positional parameters that it cannot do without.
    """
    if any(name not in arguments for name in needs):
        return
    try:
        factory(**arguments)
    except MemoryError:
        raise
    except Exception as error:  # a component may check its arguments by failing
        message = in_words(error)
        raise RecipeError(message if path and message.startswith(path) else f"{path}: {message}") from error


def expect(holds: bool, resolved: Any, annotation: Any, value: Any, path: str) -> Any:
    """Return ``resolved`` if it holds; else raise a RecipeError that quotes ``value``."""
    if holds:
        return resolved
    hint = ""
    if annotation is bool and isinstance(value, str) and value.lower() in ("true", "false"):
        hint = f"; write {value.capitalize()}"
    if annotation is str and isinstance(value, (int, float)):
        hint = f"; as a string it is '\"{quote(value)}\"' on the command line"
    raise RecipeError(f"{path}: expected {describe(annotation)}, got {quote(value)}{hint}")


def _number(value: Any, kind: type, path: str) -> int | float:
    accepted = numbers.Integral if kind is int else numbers.Real
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise RecipeError(f"{path}: expected {describe(kind)}, got {quote(value)}")
    if kind is int:
        number = int(value)  # type: ignore[call-overload]
        if abs(number) > LARGEST_INT:
            bound = f"<= {LARGEST_INT}" if number > 0 else f">= {-LARGEST_INT}"
            raise RecipeError(f"{path}: must be {bound}, got {quote(value)}")
        return number
    as_number = as_float(value)
    if not math.isfinite(as_number):
        raise RecipeError(f"{path}: must be finite, got {quote(value)}")
    return as_number


def as_float(value: Any) -> float:
    """A real number as a float; infinity where it is larger than any."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _text(value: str, path: str) -> str:
    """A string, unless no file could have it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RecipeError(f"{path}: must be text that UTF-8 can write, got {quote(value)}") from None
    if "\0" in value:
        raise RecipeError(f"{path}: must be text without NUL characters, got {quote(value)}")
    return value


def _literal(value: Any, choices: tuple[Any, ...], path: str) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return value
    strings = [choice for choice in choices if isinstance(choice, str)]
    near = suggest(value, strings) if isinstance(value, str) else ""
    raise RecipeError(f"{path}: expected {describe(Literal[choices])}, got {quote(value)}{near}")


def _union(value: Any, members: tuple[Any, ...], annotation: Any, path: str) -> Any:
    # A member of exactly the value's type first, so that 1 stays an int in ``int | float``.
    errors = []
    for member in sorted(members, key=lambda member: member is not type(value)):
        try:
            return check(value, member, path)
        except RecipeError as error:
            errors.append(error)
    # An error inside a dict, list or bound says more than a list of what the union accepts.
    for failure in errors:
        if not str(failure).startswith(f"{path}: expected"):
            raise failure
    near = ""
    if isinstance(value, str):
        choices = [c for member in members if get_origin(member) is Literal for c in get_args(member)]
        near = suggest(value, [choice for choice in choices if isinstance(choice, str)])
    raise RecipeError(f"{path}: expected {describe(annotation)}, got {quote(value)}{near}")


def _sequence(value: Any, annotation: Any, path: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise RecipeError(f"{path}: expected {describe(annotation)}, got {quote(value)}")
    items = get_args(annotation)
    if get_origin(annotation) is tuple and not (len(items) == 2 and items[1] is Ellipsis):
        if len(value) != len(items):
            raise RecipeError(f"{path}: expected {len(items)} values, got {quote(value)}")
        each: Sequence[Any] = items
    else:
        each = [items[0] if items else Any] * len(value)
    return [check(item, kind, f"{path}[{k}]") for k, (item, kind) in enumerate(zip(value, each, strict=True))]


def _mapping(value: Any, annotation: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{path}: expected a dict, got {quote(value)}")
    kind = (get_args(annotation) or (str, Any))[1]
    return {key: check(item, kind, join(path, key)) for key, item in string_keys(value, path)}


def string_keys(value: Mapping[Any, Any], path: str) -> list[tuple[str, Any]]:
    """Items of a mapping, all of whose keys must be strings."""
    for key in value:
        if not isinstance(key, str):
            raise RecipeError(f"{path}: keys must be strings, got {quote(key)}")
        _text(key, path)
    return list(value.items())


def _json_able(value: Any, path: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, numbers.Real):
        return _number(value, int if isinstance(value, numbers.Integral) else float, path)
    if isinstance(value, (list, tuple)):
        return _sequence(value, list, path)
    if isinstance(value, Mapping):
        return _mapping(value, dict, path)
    raise RecipeError(
        f"{path}: {quote(value)} cannot be written as JSON; use numbers, strings, True, False, None, lists and dicts"
    )


def describe(annotation: Any) -> str:
    """What an annotation accepts, in words."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        marker, inner = _outer_marker(annotation)
        return marker.describe(inner) if marker else describe(inner)
    if get_origin(annotation) is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(repr, arguments))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(map(describe, arguments))
    base = get_origin(annotation) or annotation
    if base in NOUNS:
        noun = NOUNS[base]
        return noun if base in (bool, type(None)) else f"{'an' if noun == 'int' else 'a'} {noun}"
    if isinstance(base, type) and issubclass(base, Sequence):
        return f"a list of {_plural(arguments[0])}" if arguments and _plural(arguments[0]) else "a list"
    return "a dict" if dataclasses.is_dataclass(base) or base in (dict, Mapping) else "a value"


def _plural(annotation: Any) -> str:
    """What a list of it is a list of; "" where there is no word."""
    if get_origin(annotation) is Annotated:
        marker, inner = _outer_marker(annotation)
        words = _plural(inner)
        return f"{words}{marker.range}" if marker and words else words
    if get_origin(annotation) is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    return PLURALS.get(annotation, "")
