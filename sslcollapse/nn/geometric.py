"""PyTorch Geometric, imported where it is needed and without a warning that no user of this package can act on."""

from __future__ import annotations

import importlib
import warnings
from typing import Any


def import_geometric(name: str = "") -> Any:
    """``torch_geometric``, or the module of it with this dotted name.

    Importing it the first time compiles functions with ``torch.jit.script``, which recent torch warns about.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.* is deprecated")
        return importlib.import_module(f"torch_geometric.{name}" if name else "torch_geometric")
