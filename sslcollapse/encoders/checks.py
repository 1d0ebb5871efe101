"""Checks that several encoders make on their arguments."""

from __future__ import annotations

from collections.abc import Sequence


def check_widths(hidden: Sequence[int], name: str = "hidden") -> list[int]:
    """Return layer widths as a list.

    Raises:
        ValueError: when there is none or one is not positive; quotes them.
    """
    if not hidden or any(width < 1 for width in hidden):
        raise ValueError(f"{name} must be a non-empty list of positive widths, got {list(hidden)}")
    return list(hidden)


def graph_features(in_shape: int | Sequence[int], encoder: str) -> int:
    """Number of node features, from a number or an ``in_shape`` (F,).

    Raises:
        ValueError: for the shape of an image; names encoders that read one.
    """
    shape = _shape(in_shape)
    if len(shape) != 1:
        raise ValueError(
            f"{encoder} reads graphs, in_shape (features,), got {shape}; use resnet18, mlp or timm for images"
        )
    return shape[0]


def image_shape(in_shape: int | Sequence[int], encoder: str) -> tuple[int, int, int]:
    """(channels, height, width) of an image.

    Raises:
        ValueError: for any other shape; names encoders that read a graph.
    """
    shape = _shape(in_shape)
    if len(shape) != 3:
        raise ValueError(
            f"{encoder} reads images, in_shape (channels, height, width), got {shape}; use gcn, sage or mlp for graphs"
        )
    return shape[0], shape[1], shape[2]


def _shape(in_shape: int | Sequence[int]) -> tuple[int, ...]:
    shape = (in_shape,) if isinstance(in_shape, int) else tuple(in_shape)
    if not shape or any(size < 1 for size in shape):
        raise ValueError(f"in_shape must be positive numbers, got {shape}")
    return shape
