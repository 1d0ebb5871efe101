"""Values on a command line: Python literals, of which ``dict(type="werank")`` is one too, as in a recipe."""

import ast
from typing import Any


def literal(text: str) -> Any:
    """The value of a Python literal or of a ``dict(key=literal)``, at any depth; nothing is executed.

    Raises:
        ValueError: no literal: no expression at all, one that computes, a key of no use, too deep or too long.
    """
    try:
        return ast.literal_eval(_DictCalls().visit(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


class _DictCalls(ast.NodeTransformer):
    """``dict(a=1)`` → ``{"a": 1}``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        names = [keyword.arg for keyword in node.keywords]
        if not isinstance(node.func, ast.Name) or node.func.id != "dict" or node.args or None in names:
            return node
        return ast.Dict([ast.Constant(name) for name in names], [keyword.value for keyword in node.keywords])
