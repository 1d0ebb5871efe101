"""An encoder from a description that somebody else wrote: no network, no other file, no more memory than its tensors.

The description says how large the encoder is, and the tensors have their sizes; the two are compared on a plan
(``sslcollapse.runs.planning``) before anything is built for good.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sslcollapse.core.errors import RunError, SSLCollapseError
from sslcollapse.core.files import PACKAGE
from sslcollapse.core.registry import ENCODERS
from sslcollapse.recipe.schema import Component
from sslcollapse.runs.planning import LARGEST_TENSOR, UnplannedError, bounded, planning

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
        raise RunError(f"{folder / files[0]}: its encoder cannot be built: {_reason(error)}") from error
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
