"""An encoder from a description that somebody else wrote: no network, no other file, no more memory than its tensors.

The description says how large the encoder is, and the tensors have their sizes; the two are compared on the meta
device, which has shapes and no memory, before anything is built for good.
"""

from __future__ import annotations

import math
import threading
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

from sslcollapse.errors import RunError, SSLCollapseError
from sslcollapse.registry import ENCODERS
from sslcollapse.spec import Component

LARGEST_INPUT = 2**24
"""Numbers in one input of an encoder: an RGB image of 2,364 × 2,364."""

LARGEST_NUMBER = 2**16
"""An argument may be as large as this, or as the longest side of a stored tensor."""

LARGEST_TENSOR = 2**28
"""Numbers in one tensor that building needs, or as many as the largest stored one has."""

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
        shape = _shape(in_shape)
        described = Component("encoder").check(offline(spec), dict, "encoder")
        longest = max((size for tensor in tensors.values() for size in tensor.shape), default=1)
        _check_numbers(described, max(LARGEST_NUMBER, longest), "encoder")
        with torch.device("meta"), _bounded(tensors):
            planned = ENCODERS.build(described, shape)
        misfit = _misfit(planned, tensors)
        if misfit is None:
            encoder = ENCODERS.build(described, shape)
    except Exception as error:  # a description may hold anything, and libraries check it in many ways, some by failing
        text = str(error) or type(error).__name__
        if not isinstance(error, SSLCollapseError):
            text = f"{type(error).__name__}: {text.partition(chr(10))[0]}"
        raise RunError(f"{folder / files[0]}: its encoder cannot be built: {text[:1000]}") from error
    if misfit is not None:
        raise RunError(f"{folder}: {files[1]} does not fit {files[0]}: {misfit}")
    encoder.load_state_dict(tensors, strict=False)  # a tensor under two names may be stored under one
    return encoder.eval()


def _is_source(key: Any) -> bool:
    return isinstance(key, str) and (key.startswith("pretrained") or key in _SOURCES)


def _without_sources(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_sources(item) for key, item in value.items() if not _is_source(key)}
    return [_without_sources(item) for item in value] if isinstance(value, list) else value


def _shape(in_shape: Any) -> tuple[int, ...]:
    """Raises ValueError for what is no shape of an input that fits into memory."""
    valid = isinstance(in_shape, Sequence) and all(type(size) is int and size > 0 for size in in_shape)
    if not valid or not 1 <= len(in_shape) <= 8:
        raise ValueError(f"in_shape must be a list of positive numbers, got {str(in_shape)[:80]}")
    if math.prod(in_shape) > LARGEST_INPUT:
        raise ValueError(f"in_shape {str(list(in_shape))[:80]} is more than {LARGEST_INPUT:,} numbers for one input")
    return tuple(in_shape)


def _check_numbers(value: Any, most: int, place: str) -> None:
    """Refuse an argument, such as a width or a depth, that no stored tensor can have."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _check_numbers(item, most, f"{place}.{key}")
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


@contextmanager
def _bounded(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Building inside ends with an error at far more parameters or larger tensors than are stored."""
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
        with _Sizes(max(LARGEST_TENSOR, *(tensor.numel() for tensor in tensors.values()), 0)):
            yield
    finally:
        for hook in hooks:
            hook.remove()


class _Sizes(TorchDispatchMode):
    """Raises ValueError where an operation gives a tensor of more than ``most`` numbers."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor) and value.numel() > self.most:
                raise ValueError(f"it makes a tensor of shape {list(value.shape)}, more than {self.most:,} numbers")
        return result
