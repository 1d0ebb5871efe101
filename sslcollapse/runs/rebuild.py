"""An encoder from a description that somebody else wrote: no network, no other file, no more memory than its tensors.

Its constructor is run for its shapes alone: small tensors have values, large ones have no memory.
"""

from __future__ import annotations

import math
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from sslcollapse.core.errors import RunError, SSLCollapseError
from sslcollapse.core.files import PACKAGE
from sslcollapse.core.registry import ENCODERS, remedy
from sslcollapse.recipe.schema import Component

LARGEST_COUNT = 2**16
"""An integer in the arguments of a library may be as large as this, or as the longest side of a stored tensor: nothing
says which of them are lengths, and a list or a loop is of no operation that could be bounded."""

_SOURCES = ("checkpoint_path", "cache_dir")


def offline(spec: Any) -> Any:
    """A description of an encoder without what would fetch weights from the network or another file.

    Those are ``pretrained`` (False where it is an argument of the encoder itself), everything that begins with it,
    ``checkpoint_path`` and ``cache_dir``, at any depth: the weights are in the export.
    """
    if not isinstance(spec, Mapping):
        return spec
    kept = {key: _without_sources(value) for key, value in spec.items() if not _is_source(key)}
    return kept | ({"pretrained": False} if "pretrained" in spec else {})


def rebuild(spec: Any, in_shape: Any, tensors: Mapping[str, Tensor], folder: Path, files: tuple[str, str]) -> nn.Module:
    """The encoder of a description, with these tensors in it.

    Args:
        spec: ``{"type": name, ...}``, as in a recipe.
        in_shape: shape of one input.
        tensors: its state dict.
        folder: where both are, for messages.
        files: of the description and of the tensors, for messages.

    Raises:
        RunError: no such encoder, it cannot be built, or does not fit the tensors; nothing larger than them was built.
    """
    try:
        described, shape, misfit = _plan(spec, in_shape, tensors)
        if misfit is None:
            with bounded(tensors):
                encoder = ENCODERS.construct(described, shape)
            misfit = _misfit(encoder, tensors)
    except Exception as error:  # a description may hold anything, and libraries check it in many ways, some by failing
        raise RunError(f"{folder / files[0]}: its encoder cannot be built: {_reason(error)}{remedy(error)}") from error
    if misfit is not None:
        raise RunError(f"{folder}: {files[1]} does not fit {files[0]}: {misfit}")
    encoder.load_state_dict(tensors, strict=False)  # a tensor under two names may be stored under one
    return encoder.eval()


def why_not_loadable(spec: Any, in_shape: Any, tensors: Mapping[str, Tensor]) -> str | None:
    """Why ``rebuild`` would refuse an encoder with these tensors; None where it would not. Nothing large is built."""
    try:
        return _plan(spec, in_shape, tensors)[2]
    except Exception as error:  # as in rebuild
        return _reason(error)


def _plan(
    spec: Any, in_shape: Any, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], tuple[int, ...], str | None]:
    """What to build, for which shape, and the first difference from the tensors that it would have."""
    shape = _shape(in_shape, max((LARGEST_TENSOR, *(tensor.numel() for tensor in tensors.values()))))
    described = Component("encoder").check(offline(spec), dict, "encoder")
    longest = max((size for tensor in tensors.values() for size in tensor.shape), default=1)
    for key, value in described.items():
        if isinstance(value, Mapping):
            _check_counts(value, max(LARGEST_COUNT, longest), f"encoder.{key}")
    with planning(tensors):
        return described, shape, _misfit(ENCODERS.construct(described, shape), tensors)


def _reason(error: BaseException) -> str:
    """One line on an error; where a library failed, with the line of the constructor that it failed in."""
    text = str(error) or type(error).__name__
    if not isinstance(error, SSLCollapseError):
        text = f"{type(error).__name__}: {text.partition(chr(10))[0]}"
    while error.__cause__ is not None:
        error = error.__cause__
    own = (str(Path(torch.__file__).parent), str(PACKAGE))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(own)]
    if frames and frames[-1].line and isinstance(error, (UnplannedError, RuntimeError, TypeError)):
        text = f"{text[:800]} (in line {frames[-1].lineno} of {Path(frames[-1].filename).name}: {frames[-1].line})"
    return text[:1000]


def _is_source(key: Any) -> bool:
    return isinstance(key, str) and (key.startswith("pretrained") or key in _SOURCES)


def _without_sources(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_sources(item) for key, item in value.items() if not _is_source(key)}
    return [_without_sources(item) for item in value] if isinstance(value, list) else value


def _shape(in_shape: Any, most: int) -> tuple[int, ...]:
    """Raises ValueError for what is no shape of an input that fits into memory."""
    valid = isinstance(in_shape, Sequence) and all(type(size) is int and size > 0 for size in in_shape)
    if not valid or not 1 <= len(in_shape) <= 8:
        raise ValueError(f"in_shape must be a list of positive numbers, got {str(in_shape)[:80]}")
    if math.prod(in_shape) > most:
        raise ValueError(f"in_shape {str(list(in_shape))[:80]} is more than {most:,} numbers for one input")
    return tuple(in_shape)


def _check_counts(value: Any, most: int, place: str) -> None:
    """Refuse a number of a library's arguments, such as a depth, that no stored tensor can have."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _check_counts(item, most, f"{place}.{key}")
    if isinstance(value, int) and abs(value) > most:
        raise ValueError(f"{place} is {str(value)[:40]}, where no stored tensor is longer than {most:,}")


def _misfit(planned: nn.Module, tensors: Mapping[str, Tensor]) -> str | None:
    """The first difference between the state dict that an encoder has and stored tensors; None where there is none."""
    wanted = planned.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        if name not in wanted:
            return f"the encoder has no {name!r}"
        if not is_lazy(wanted[name]) and tensor.shape != wanted[name].shape:
            return f"{name} is stored as {list(tensor.shape)}, the encoder has {list(wanted[name].shape)}"
    stored = {id(wanted[name]) for name in tensors}
    missing = next((name for name, value in wanted.items() if id(value) not in stored), None)  # but for second names
    return missing and f"{missing} is not stored"


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
