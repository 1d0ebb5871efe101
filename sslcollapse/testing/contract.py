"""What all checks share: the error that they raise, and whether two values are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import SSLCollapseError


class ContractError(SSLCollapseError, AssertionError):
    """A component does not keep what its kind has to keep."""


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal in all that they are made of."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.layout != torch.strided:
            first, second = first.to_dense(), second.to_dense()
        return first.shape == second.shape and torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second)
    if type(first) is not type(second):
        return False
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (str, bytes, type(None), bool, int, float)):
        return first == second
    if isinstance(first, Sequence):
        return len(first) == len(second) and all(map(same, first, second))
    if hasattr(first, "__dict__"):  # what is made later, on demand, may be there in one of them only
        keys = [key for key in vars(first).keys() & vars(second).keys() if not key.startswith("_")]
        return all(same(vars(first)[key], vars(second)[key]) for key in keys)
    return bool(first == second)


def described(value: Any) -> str:
    """What a value is, in a word or two, for messages."""
    if isinstance(value, Tensor):
        return f"{float(value.detach())}" if value.dim() == 0 else f"a tensor {list(value.shape)}"
    return f"a {type(value).__name__}"


def ensure(holds: bool, message: str) -> None:
    """Raise ``ContractError`` unless it holds."""
    if not holds:
        raise ContractError(message)
