"""A picture of views, to look at what a recipe makes of its images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from sslcollapse.core.seeding import generator
from sslcollapse.domains.vision.augment import plain

PADDING = 2
"""Pixels between pictures."""

LEGIBLE = 64
"""Smaller pictures are magnified by a whole number to about this many pixels."""


class MakesViews(Protocol):
    """What makes one view: ``Augmentation``, or that of another library."""

    size: int

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """uint8 [B, C, H, W] → normalised float32 [B, C, size, size]."""
        ...


def contact_sheet(
    images: Tensor,
    augmentations: Sequence[MakesViews],
    mean: Sequence[float],
    std: Sequence[float],
    path: Path,
    seed: int,
    draws: int = 4,
) -> None:
    """Write a PNG with one row a sample: the un-augmented image, then ``draws`` of the first view, of the second, ...

    Args:
        images: uint8 [B, C, H, W], a few.
        augmentations: of the views; smaller ones get a frame.
        mean: with which they normalise.
        std: likewise.
        path: of the picture; its folder is made.
        seed: of the draws.
        draws: pictures of each view.
    """
    from torchvision.utils import save_image

    size = max(augmentation.size for augmentation in augmentations)
    columns = [plain(images, size, mean, std)]
    for view, augmentation in enumerate(augmentations):
        columns += [
            _framed(augmentation(images, generator(torch.device("cpu"), "sheet", seed, draw, view)), size)
            for draw in range(draws)
        ]
    rows = torch.stack(columns, 1).flatten(0, 1)  # [B × columns, C, size, size]
    zoom = max(1, LEGIBLE // rows.shape[-1])
    rows = rows.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    shift, scale = (torch.tensor(values, device=rows.device)[:, None, None] for values in (mean, std))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(
        (rows * scale + shift).clamp(0, 1), path, format="png", nrow=len(columns), padding=PADDING, pad_value=1.0
    )


def _framed(views: Tensor, size: int) -> Tensor:
    """[B, C, s, s] in the middle of [B, C, size, size]."""
    left, right = (size - views.shape[-1]) // 2, (size - views.shape[-1] + 1) // 2
    return pad(views, (left, right, left, right)) if right else views
