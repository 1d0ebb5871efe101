"""Plain values before anything is known of them: as text on a command line, and how much there is of them.

Text is a Python literal, of which ``dict(type="werank")`` is one too, as in a recipe.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from sslcollapse.core.errors import RecipeError
from sslcollapse.recipe.check import join

MAX_DEPTH = 50
"""Levels of dicts and lists in one another; recipes have about six."""

MAX_VALUES = 2_000_000
"""Values of one recipe, those of a list that is in several places counted at each."""


def literal(text: str) -> Any:
    """The value of a Python literal or of a ``dict(key=literal)``, at any depth; nothing is executed.

    Raises:
        ValueError: no literal: no expression at all, one that computes, a key of no use, too deep or too long.
    """
    try:
        return ast.literal_eval(_DictCalls().visit(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def check_nesting(value: Any, path: str) -> None:
    """Refuse what is nested so deeply that no function could follow it, such as a list that contains itself.

    Raises:
        RecipeError: names the place, or the part of the whole that it is in.
    """
    count, level = 0, [(path, value)]
    for _ in range(MAX_DEPTH):
        below: list[tuple[str, Any]] = []
        for place, part in level:
            items = part.items() if isinstance(part, Mapping) else enumerate(part)
            count += len(part)
            if count > MAX_VALUES:
                raise RecipeError(f"{place or 'a recipe'}: more than {MAX_VALUES:,} values; leave most of them out")
            below += [
                (place or (join("", key) if isinstance(part, Mapping) else f"[{key}]"), item)
                for key, item in items
                if isinstance(item, (Mapping, list, tuple))
            ]
        if not below:
            return
        level = below
    raise RecipeError(
        f"{level[0][0]}: nested more than {MAX_DEPTH} levels deep, or a dict or list that contains itself; "
        "write it with fewer levels"
    )


class _DictCalls(ast.NodeTransformer):
    """``dict(a=1)`` → ``{"a": 1}``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        names = [keyword.arg for keyword in node.keywords]
        if not isinstance(node.func, ast.Name) or node.func.id != "dict" or node.args or None in names:
            return node
        return ast.Dict([ast.Constant(name) for name in names], [keyword.value for keyword in node.keywords])
