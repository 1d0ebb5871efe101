"""A cell of a grid, and values of recipe paths as one writes them on the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcollapse.core.errors import RecipeError, quote
from sslcollapse.recipe.literals import literal


def parse_grid(argument: str) -> tuple[str | tuple[str, ...], list[Any]]:
    """``"encoder.hidden=[64],[128, 64]"`` → ``("encoder.hidden", [[64], [128, 64]])``.

    Values are Python literals at top-level commas; bare words are strings. Several paths move together, and each
    value is then a tuple: ``"train.steps,optim.lr=(100, 0.1),(200, 0.05)"``.
    """
    path, equals, text = argument.partition("=")
    paths = tuple(part.strip() for part in path.split(","))
    if not equals or not all(paths) or not text.strip():
        raise RecipeError(f"--grid {quote(argument)}: write it as path=value,value,... (encoder.hidden=[64],[128])")
    return paths[0] if len(paths) == 1 else paths, [
        _value(piece, f"--grid {quote(argument)}") for piece in _split(text)
    ]


def parse_baseline(arguments: Sequence[str]) -> dict[str, Any]:
    """``["encoder.hidden=[64]", "base=cora"]`` → path → value."""
    baseline: dict[str, Any] = {}
    for argument in arguments:
        path, equals, text = argument.partition("=")
        pieces = _split(text)
        if not equals or not path.strip() or len(pieces) != 1:
            raise RecipeError(f"--baseline {quote(argument)}: write it as path=value, once for each path")
        baseline[path.strip()] = _value(pieces[0], f"--baseline {quote(argument)}")
    return baseline


def show(value: Any) -> str:
    """A value as one writes it on the command line."""
    try:
        return value if isinstance(value, str) else repr(value)
    except Exception:  # an int of thousands of digits, or an object whose own repr fails
        return quote(value)


def short(value: Any) -> str:
    """A value as a table shows it.

    >>> short({"type": "werank", "coefficient": 0.01}), short(None), short([512, 256])
    ('werank(coefficient=0.01)', 'none', '[512, 256]')
    """
    if value is None or value == {}:
        return "none"
    if not isinstance(value, Mapping):
        return f"[{', '.join(map(short, value))}]" if isinstance(value, (list, tuple)) else show(value)
    items = {str(key): item for key, item in value.items() if key != "type"}
    if "type" in value:
        arguments = ", ".join(f"{key}={short(item)}" for key, item in items.items())
        return f"{value['type']}({arguments})" if arguments else str(value["type"])
    named = [key == item.get("type") if isinstance(item, Mapping) else False for key, item in items.items()]
    shown = [
        short(item) if own else f"{key}: {short(item)}" for own, (key, item) in zip(named, items.items(), strict=True)
    ]
    return ", ".join(shown) if all(named) else f"{{{', '.join(shown)}}}"


def labelled(path: str, value: Any) -> str:
    """A value as a table shows it under the name of its path: widths of layers by their number.

    >>> labelled("encoder.hidden", [256] * 8), labelled("encoder.hidden", [512, 256]), labelled("optim.lr", 0.1)
    ('8 layers of 256', '[512, 256]', '0.1')
    """
    width = layer_width(path, value)
    return short(value) if width is None else f"{_layers(len(value))} of {width}"


def layer_width(path: str, value: Any) -> int | None:
    """The one width that all layers of an encoder have; None of anything else."""
    widths = value if path.rpartition(".")[2] == "hidden" and isinstance(value, (list, tuple)) else ()
    first = widths[0] if widths else None
    same = isinstance(first, int) and not isinstance(first, bool) and all(width == first for width in widths)
    return first if same else None


def _layers(count: int) -> str:
    return f"{count} layer{'s' if count > 1 else ''}"


def plain(value: Any) -> str:
    """Equal for values that are equal in a recipe: tuples as lists, 1.0 as 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return json.dumps(value, sort_keys=True, default=str)
    except (TypeError, ValueError):  # no JSON, so no value of a recipe
        return quote(value)


def _split(text: str) -> list[str]:
    """Split at commas outside brackets and quotes."""
    pieces, depth, quote, current = [], 0, "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            pieces.append(current)
            current = ""
            continue
        current += character
    return [*pieces, current]


def _value(text: str, where: str) -> Any:
    text = text.strip()
    if not text:
        raise RecipeError(f"{where}: an empty value; remove the extra comma or write ''")
    try:
        return literal(text)
    except ValueError as error:
        if text[0] in "[{('\"" or text.startswith("dict("):
            raise RecipeError(
                f"{where}: {quote(text)} is no Python literal; close brackets, and put text in them in quotes"
            ) from error
        return text


@dataclass(frozen=True)
class Cell:
    """One combination of a base recipe and one value of every axis.

    Attributes:
        base: label of the base recipe.
        source: the base recipe's file.
        values: recipe path → value, of all axes.
        recipe: resolved; its seed is replaced by each run's.
        hash: of the resolved recipe, the same for all seeds.
        streams: version of the random streams that its runs are made with; None where all versions draw the same.
    """

    base: str
    source: Path
    values: Mapping[str, Any]
    recipe: Mapping[str, Any]
    hash: str
    streams: int | None = None

    @property
    def name(self) -> str:
        """The cell in messages: ``cora encoder.hidden=[64]``."""
        return " ".join([self.base, *(f"{path}={show(value)}" for path, value in self.values.items())])

    def at(self, path: str) -> Any:
        """The value of an axis; the base recipe's label at ``base``."""
        return self.base if path == "base" else self.values[path]

    def with_seed(self, seed: int) -> dict[str, Any]:
        """The resolved recipe of one run."""
        return {**self.recipe, "seed": seed}
