"""What components there are, and of one of them its arguments: types, ranges, defaults and what they mean."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from sslcollapse.core.errors import quote, suggest
from sslcollapse.core.registry import REGISTRIES, Registry, RegistryError
from sslcollapse.recipe.check import REQUIRED, describe

WIDTH = 100


def listing(kind: str | None = None, name: str | None = None) -> str:
    """All kinds with their components; those of one kind; or the manual of one component.

    Only the last imports anything.

    Raises:
        RegistryError: no such kind or component; the nearest is suggested.
    """
    if kind is not None and kind not in REGISTRIES:
        near = suggest(kind, list(REGISTRIES))
        raise RegistryError(f"unknown kind {kind!r}{near} (known: {', '.join(REGISTRIES)})")
    if kind is not None and name is not None:
        return _manual(REGISTRIES[kind], name)
    lines = []
    for each in [kind] if kind else list(REGISTRIES):
        registry = REGISTRIES[each]
        if kind is None:
            lines.append(each)
        names = registry.names()
        width = max(map(len, names), default=0)
        lines += [f"  {known:<{width}}  {registry.describe(known)}".rstrip() for known in names]
    return "\n".join(lines)


def _manual(registry: Registry, name: str) -> str:
    factory = registry.get(name)
    parameters = registry.parameters(name)
    text, words = _documented(factory)
    lines = [f"{registry.kind} {name}: {text}", ""]
    if not parameters:
        return "\n".join([*lines, "It has no arguments."])
    lines.append("Arguments:")
    for parameter in parameters.values():
        lines += _argument(parameter.name, parameter.annotation, parameter.default, words.get(parameter.name, ""))
    return "\n".join(lines)


def _argument(name: str, annotation: Any, default: Any, words: str) -> Iterator[str]:
    """Lines on one argument; of a dict with fixed fields, on each of them too."""
    usual = "required" if default is REQUIRED else f"default {_shown(default)}"
    yield f"  {name}: {describe(annotation)}; {usual}"
    yield from textwrap.wrap(words, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    cls = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if dataclasses.is_dataclass(cls) and isinstance(cls, type):
        _, inner = _documented(cls)
        hints = get_type_hints(cls, include_extras=True)
        for field in dataclasses.fields(cls):
            known = field.default if field.default is not dataclasses.MISSING else REQUIRED
            yield from _argument(f"{name}.{field.name}", hints[field.name], known, inner.get(field.name, ""))


def _shown(default: Any) -> str:
    """A default as a recipe would have it."""
    if dataclasses.is_dataclass(default):
        return "that of each field"
    return quote(list(default) if isinstance(default, tuple) else default)


def _documented(factory: Any) -> tuple[str, Mapping[str, str]]:
    """A docstring without its arguments, and argument → what the docstring says of it."""
    text, words = inspect.getdoc(factory) or "", {}
    if found := re.search(r"^Args:\n((?:[ ]+.*\n?|\n(?=[ ]))*)", text, re.MULTILINE):
        text = f"{text[: found.start()].rstrip()}\n\n{text[found.end() :].lstrip()}".strip()
        for entry in re.split(r"^(?=\S)", textwrap.dedent(found[1]), flags=re.MULTILINE):
            argument, _, meaning = entry.partition(":")
            words[argument.strip()] = " ".join(meaning.split())
    return text, words
