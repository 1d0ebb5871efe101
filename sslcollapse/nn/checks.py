"""Checks that several components make on their arguments, and on what they are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.errors import RecipeError, suggest


def check_widths(hidden: Sequence[int], name: str = "hidden") -> list[int]:
    """Return layer widths as a list.

    Raises:
        ValueError: when there is none or one is not positive; quotes them.
    """
    if not hidden or any(width < 1 for width in hidden):
        raise ValueError(f"{name} must be a non-empty list of positive widths, got {list(hidden)}")
    return list(hidden)


def check_norm_momentum(momentum: float) -> float:
    """The momentum of a BatchNorm's running statistics, in torch's convention.

    Raises:
        ValueError: outside [0, 1], where statistics leave the range of what was seen; quotes it.
    """
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"norm_momentum must be in [0, 1], got {momentum}")
    return momentum


def graph_features(in_shape: int | Sequence[int], encoder: str) -> int:
    """Number of node features, from a number or an ``in_shape`` (F,).

    Raises:
        ValueError: for a shape of more dimensions; names encoders that read any.
    """
    shape = _shape(in_shape)
    if len(shape) != 1:
        raise ValueError(
            f"{encoder} reads samples of in_shape (features,), as nodes of a graph have it, got {shape}; mlp and "
            "linear read samples of any shape"
        )
    return shape[0]


def image_shape(in_shape: int | Sequence[int], encoder: str) -> tuple[int, int, int]:
    """(channels, height, width) of an image.

    Raises:
        ValueError: for any other shape; names encoders that read any.
    """
    shape = _shape(in_shape)
    if len(shape) != 3:
        raise ValueError(
            f"{encoder} reads samples of in_shape (channels, height, width), as images have it, got {shape}; mlp and "
            "linear read samples of any shape"
        )
    return shape[0], shape[1], shape[2]


def check_samples(name: str, samples: int, minimum: int = 2) -> None:
    """Refuse a batch with fewer samples, over all ranks, than an objective can use.

    Raises:
        RecipeError: says how many there are and how many are needed.
    """
    if samples < minimum:
        raise RecipeError(
            f"{name} compares samples with each other and needs at least {minimum} in a batch, got {samples}; "
            "use a larger batch"
        )


def unreadable(tensor: Tensor) -> str | None:
    """What keeps the values of a tensor from being measured, and what to do; None for a dense one with values."""
    if tensor.is_nested:
        return "is nested; use the tensors of its unbind()"
    if tensor.layout != torch.strided:
        return f"has the layout {tensor.layout}; use its to_dense()"
    if tensor.is_quantized:
        return "is quantised; use its dequantize()"
    if tensor.is_meta:
        return "is on the meta device, where it has no values; load its values first"
    return None


def _shape(in_shape: int | Sequence[int]) -> tuple[int, ...]:
    shape = (in_shape,) if isinstance(in_shape, int) else tuple(in_shape)
    if not shape or any(size < 1 for size in shape):
        raise ValueError(f"in_shape must be positive numbers, got {shape}")
    return shape


def check_arguments(
    place: str, name: str, make: Callable[..., Any], given: Mapping[str, Any], ours: Mapping[str, str]
) -> None:
    """Refuse arguments that a class of another library does not have, or that a recipe does not give.

    Args:
        place: of the arguments in the recipe.
        name: of the class.
        make: the class.
        given: name → value.
        ours: name → why a recipe does not give it.

    Raises:
        ValueError: names the argument, and what was meant or is known.
    """
    takes = [key for key in inspect.signature(make).parameters if key not in ours]
    for key in given:
        if key in ours:
            raise ValueError(f"{place}.{key}: {ours[key]}; leave it out")
        if key not in takes:
            raise ValueError(
                f"{place}.{key}: {name} has no such argument{suggest(key, takes)} (known: {', '.join(takes)})"
            )
