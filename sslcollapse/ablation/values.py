"""Values of recipe paths as one writes them on the command line."""

from __future__ import annotations

import ast
from typing import Any

from sslcollapse.errors import RecipeError


def parse_grid(argument: str) -> tuple[str, list[Any]]:
    """``"encoder.hidden=[64],[128, 64]"`` → ``("encoder.hidden", [[64], [128, 64]])``.

    Values are Python literals at top-level commas; bare words are strings.
    """
    path, equals, text = argument.partition("=")
    if not equals or not path.strip() or not text.strip():
        raise RecipeError(f"--grid {argument!r}: write it as path=value,value,... (encoder.hidden=[64],[128])")
    return path.strip(), [_value(piece, argument) for piece in _split(text)]


def show(value: Any) -> str:
    """A value as one writes it on the command line."""
    return value if isinstance(value, str) else repr(value)


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


def _value(text: str, argument: str) -> Any:
    text = text.strip()
    if not text:
        raise RecipeError(f"--grid {argument!r}: an empty value; remove the extra comma or write ''")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        if text[0] in "[{('\"":
            raise RecipeError(
                f"--grid {argument!r}: {text!r} is no Python literal; close brackets and quotes"
            ) from error
        return text
