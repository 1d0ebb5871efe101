"""An encoder's constructor run for its shapes alone: small tensors have values, large ones have no memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

LARGEST_TENSOR = 2**28
"""Numbers in one tensor that building needs, or as many as the largest stored one has."""

LARGEST_REAL = 2**16
"""A tensor of at most so many numbers has values in a plan, so that a constructor can read them."""

ALL_REAL = 2**24
"""Numbers of all tensors that a plan makes with values: 64 MiB of float32. What is made later has shapes only."""

_VALUE_SIZED = ("aten::repeat_interleave", "aten::bincount")  # a small input may give an output of any size
_READS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class UnplannedError(ValueError):
    """A constructor needs the values of a tensor that has only a shape in a plan."""


@contextmanager
def planning(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """What is built inside has its shapes, and takes little memory; far more than ``tensors`` ends with an error.

    The random state of torch is as before at the end.
    """
    most = max((LARGEST_TENSOR, *(tensor.numel() for tensor in tensors.values())))
    with torch.random.fork_rng(devices=[]), bounded(tensors), _Plan(most):
        yield


@contextmanager
def bounded(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Building inside ends with an error at far more parameters or modules than are stored."""
    mine, counts = threading.get_ident(), {"parameters": 0, "modules": 0}
    most = {"parameters": 4 * len(tensors) + 1000, "modules": 20 * len(tensors) + 5000}

    def count(what: str) -> None:
        if threading.get_ident() != mine:  # the hooks are those of the whole process
            return
        counts[what] += 1
        if counts[what] > most[what]:
            raise ValueError(f"it has more than {most[what]:,} {what}, where {len(tensors)} tensors are stored")

    hooks = [
        register_module_parameter_registration_hook(lambda *_: count("parameters")),
        register_module_module_registration_hook(lambda *_: count("modules")),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Plan(TorchDispatchMode):
    """Each operation is tried on shapes; it is computed as well where all of its tensors are small and have values.

    Raises ValueError where an operation gives a tensor of more than ``most`` numbers, before it is made.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.left = ALL_REAL

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        known = not any(isinstance(value, Tensor) and value.is_meta for value in tree_leaves((args, kwargs)))
        originals: dict[int, tuple[Tensor, Tensor]] = {}  # stand-in → itself, which keeps its id, and what it is for

        def shape_of(value: Any) -> Any:
            if isinstance(value, Tensor) and not value.is_meta:
                shape = (
                    torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
                    if value.layout == torch.strided
                    else torch.empty_like(value, device="meta")
                )
                originals[id(shape)] = shape, value
                return shape
            if isinstance(value, torch.Generator):
                return None
            return torch.device("meta") if isinstance(value, torch.device) else value

        shaped_args, shaped_kwargs = tree_map(shape_of, (args, kwargs))
        if any(argument.name == "device" for argument in function._schema.arguments):
            shaped_kwargs["device"] = torch.device("meta")
        reads = any(tag in function.tags for tag in _READS)
        if reads and function._schema.name not in _VALUE_SIZED:
            if not known:
                shapes = [list(value.shape) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
                raise UnplannedError(
                    f"its constructor reads numbers of a tensor of shape {shapes[0]}, by {function._schema.name}; only "
                    f"numbers of a tensor of at most {LARGEST_REAL:,}, made of none that is larger, can be read there"
                )
            return function(*args, **kwargs)
        result = function(*shaped_args, **shaped_kwargs)
        sizes = [value.numel() for value in tree_leaves(result) if isinstance(value, Tensor)]
        if max(sizes, default=0) > self.most:
            shape = next(list(v.shape) for v in tree_leaves(result) if isinstance(v, Tensor) and v.numel() > self.most)
            raise ValueError(f"it makes a tensor of shape {shape}, more than {self.most:,} numbers")
        cost = 0 if function._schema.is_mutable or function.is_view else sum(sizes)
        if known and max(sizes, default=0) <= LARGEST_REAL and cost <= self.left:
            self.left -= cost
            return function(*args, **kwargs)
        return tree_map(lambda value: originals[id(value)][1] if id(value) in originals else value, result)
