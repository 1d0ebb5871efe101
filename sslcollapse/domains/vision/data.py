"""Images in memory or still encoded: the types, and the checks every image dataset passes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.core.types import Split

IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY_STATISTICS = ((0.5,), (0.5,))


class Images(Protocol):
    """N images of one shape that can be read by row, from memory or from encoded files."""

    def __len__(self) -> int:
        """N."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        ...

    def read(self, rows: Tensor, threads: int = 1) -> Tensor:
        """Images at rows [B], uint8 [B, C, H, W], on the CPU; DataError for one that cannot be read."""
        ...


class MemoryImages:
    """Images that are a tensor.

    Shapes:
        pixels: [N, C, H, W] uint8.
    """

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return self.pixels.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def read(self, rows: Tensor, threads: int = 1) -> Tensor:
        """Images at rows [B]."""
        return self.pixels[rows]


@dataclass(frozen=True)
class ImageDataset:
    """Images of one dataset, their labels, the rows to pre-train on, and fixed splits.

    Args:
        name: as shown to people.
        images: labelled images first, then unlabelled ones.
        labels: of the labelled images.
        num_classes: number of classes.
        splits: name → divisions of the labelled rows into train, validation and test.
        pretrain: rows whose images pre-training sees; their labels are never used by an objective.

    Shapes:
        labels: [L] int64, L <= N.
        pretrain: [P] int64.
    """

    name: str
    images: Images
    labels: Tensor
    num_classes: int
    splits: Mapping[str, tuple[Split, ...]]
    pretrain: Tensor

    def all_labels(self) -> Tensor:
        """Labels of all rows [N]; -1 where there is none."""
        labels = torch.full((len(self.images),), -1)
        labels[: len(self.labels)] = self.labels
        return labels


class ImageSource(Protocol):
    """A registered image dataset: what is known before reading, and ``load``."""

    title: str
    channels: int
    mean: Sequence[float]
    std: Sequence[float]

    @property
    def size(self) -> int:
        """Height and width of the images, read from cheap metadata at most."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes, read from cheap metadata at most."""
        ...

    def files(self) -> list[Path]:
        """Files or folders that are read."""
        ...

    def describe(self) -> str:
        """One line for a dry run."""
        ...

    def load(self) -> ImageDataset:
        """Read the dataset, or raise MissingDataError or DataError."""
        ...


def check_dataset(dataset: ImageDataset) -> ImageDataset:
    """The dataset itself, if it can be trained on.

    Raises:
        DataError: no images, labels that do not fit the images or classes, an empty part of a split, or an image in
            two parts.
    """
    name, labels = dataset.name, dataset.labels
    if not len(dataset.images):
        raise DataError(f"{name}: no images")
    if len(labels) > len(dataset.images):
        raise DataError(f"{name}: {len(labels)} labels for {len(dataset.images)} images")
    outside = (labels < 0) | (labels >= dataset.num_classes)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise DataError(f"{name}: label {int(labels[row])} of row {row} is not one of {dataset.num_classes} classes")
    for splits in dataset.splits.values():
        for split in splits:
            parts = (split.train, split.validation, split.test)
            if not all(len(part) for part in parts):
                raise DataError(f"{name}: a split has an empty part ({', '.join(str(len(part)) for part in parts)})")
            together = np.concatenate(parts)
            if len(np.unique(together)) != len(together):
                raise DataError(f"{name}: an image is in more than one of train, validation and test")
    return dataset


def official_split(train: int, test: int, validation: float) -> Split:
    """The official test set, and a fixed random part of the official training set for validation.

    Rows are those of all training images, then all test images. The draw depends on ``train`` and
    ``validation`` only, so that it is the same in every run.

    Raises:
        DataError: too few images for every part to have one.
    """
    held_out = max(1, round(validation * train))
    if held_out >= train or test < 1:
        raise DataError(
            f"{train} training and {test} test images cannot be divided into train, validation ({validation:g} of "
            "the training images) and test"
        )
    order = np.random.default_rng(0).permutation(train)
    return Split(np.sort(order[held_out:]), np.sort(order[:held_out]), np.arange(train, train + test))


def check_apart(train: Path, test: Path) -> tuple[Path, Path]:
    """Both places themselves; RecipeError if they are the same, also by a link: the test images would be trained on."""
    one, other = os.path.realpath(train), os.path.realpath(test)
    if one == other or (os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)):
        raise RecipeError(
            f"train and test are both {one}, so that the test images would be trained on; give test images of their own"
        )
    return train, test


def check_fraction(validation: float) -> float:
    """The validation share itself; RecipeError unless it is strictly between 0 and 1."""
    if not 0 < validation < 1:
        raise RecipeError(f"validation must be between 0 and 1, got {validation:g}")
    return validation


def statistics_of(
    mode: str, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel: given, or ImageNet's for RGB and 0.5 for grey images.

    Raises:
        RecipeError: not one number a channel, or a deviation that is not positive.
    """
    defaults = IMAGENET_STATISTICS if mode == "RGB" else GREY_STATISTICS
    chosen = tuple(tuple(given or default) for given, default in zip((mean, std), defaults, strict=True))
    for name, values, default in zip(("mean", "std"), chosen, defaults, strict=True):
        if len(values) != len(default):
            raise RecipeError(f"{name} needs {len(default)} numbers for mode {mode}, got {list(values)}")
    if not all(value > 0 for value in chosen[1]):
        raise RecipeError(f"std must be > 0 in every channel, got {list(chosen[1])}")
    return chosen[0], chosen[1]
