"""Images in memory or still encoded: types, checks that every dataset passes, and files that are read whole."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import DataError, MissingDataError, RecipeError, SSLCollapseError
from sslcollapse.core.types import Split
from sslcollapse.domains.download import missing_files, missing_text, publish, reason, socket_timeout, staging_folder

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


EMBEDDED_RECIPE = "recipes/simclr_digits.py"


class StoredImages(ABC):
    """A dataset whose files lie below ``data_root/vision`` as torchvision lays them out.

    Rows are those of the official training set, then of the official test set, then unlabelled ones.

    Args:
        data_root: the data root.
        validation: share of the official training set that is for validation.
        pretrain_unlabeled: whether pre-training sees unlabelled images, besides all official training images.
    """

    title: ClassVar[str]
    raw: ClassVar[Sequence[str]]
    """Files that are read, relative to ``vision/``."""
    counts: ClassVar[tuple[int, ...]]
    """Published numbers of training, test and, where there are any, unlabelled images."""
    channels: ClassVar[int]
    size: ClassVar[int]
    num_classes: ClassVar[int]
    mean: ClassVar[Sequence[float]]
    std: ClassVar[Sequence[float]]

    def __init__(self, data_root: Path, validation: float, pretrain_unlabeled: bool = False) -> None:
        self.data_root = Path(data_root).expanduser()
        self.root = self.data_root / "vision"
        self.validation = check_fraction(validation)
        self.pretrain_unlabeled = pretrain_unlabeled

    @abstractmethod
    def fetch(self, root: Path) -> None:
        """Download below ``root``, an empty folder, with torchvision's own download."""

    @abstractmethod
    def parts(self, root: Path) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Images [n, C, H, W] uint8 and labels [n]: training, test, then unlabelled (None for labels)."""

    def files(self) -> list[Path]:
        """The files that are read."""
        return self._files_below(self.root)

    def describe(self) -> str:
        """One line for a dry run: name, published sizes, folder, and whether the files are there."""
        missing = len(self._missing())
        state = f"{missing} of {len(self.raw)} files to be downloaded" if missing else "all files there"
        names = ("training", "test", "unlabelled")
        counts = ", ".join(f"{n:,} {name}" for n, name in zip(self.counts, names, strict=False))
        shape = f"{self.channels}x{self.size}x{self.size}"
        return f"{self.title}: {counts} images {shape}, {self.num_classes} classes; in {self._folder} ({state})"

    def load(self) -> ImageDataset:
        """Read the dataset; download it first where files are missing.

        Raises:
            MissingDataError: files are missing and the download fails; nothing of the attempt is left behind.
            DataError: a file is truncated, corrupt, or not the dataset's.
        """
        missing = self._missing()
        if missing:
            self._download(missing)
        try:
            return self._read(self.root)
        except (SSLCollapseError, MemoryError, ImportError):
            raise
        except Exception as error:  # whatever a parser makes of a damaged file
            raise DataError(
                f"{self.title} cannot be read ({reason(error)}): one of the files "
                f"{', '.join(file.name for file in self.files())} in {self._folder} is truncated or corrupt. Delete "
                "them and run again with a network, or copy them there again."
            ) from error

    def _read(self, root: Path) -> ImageDataset:
        images, labels = [], []
        for pixels, classes in self.parts(root):
            images.append(pixels)
            if classes is not None:
                labels.append(classes.long())
        train, test = (len(part) for part in labels)
        everything = torch.empty((sum(map(len, images)), *images[0].shape[1:]), dtype=torch.uint8)
        torch.cat(images, out=everything)  # loaders give strided views; this is the one copy, and contiguous
        pretrain = torch.arange(train)
        if self.pretrain_unlabeled:
            pretrain = torch.cat([pretrain, torch.arange(train + test, len(everything))])
        dataset = ImageDataset(
            self.title,
            MemoryImages(everything),
            torch.cat(labels),
            self.num_classes,
            {"public": (official_split(train, test, self.validation),)},
            pretrain,
        )
        return check_dataset(dataset)

    def _download(self, missing: Sequence[Path]) -> None:
        # Into a folder of its own, and moved into place only once complete (torchvision compares checksums): an
        # interrupted download is never mistaken for the dataset, and ranks downloading at once do not meet.
        try:
            with staging_folder(self.root) as staging, socket_timeout():
                self.fetch(staging)
                publish(self._files_below(staging), staging, self.root)
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # anything from URLError to a tar error
            raise MissingDataError(
                f"{self.title} was not found and its download failed ({reason(error)}). "
                f"{missing_text(missing, self.data_root, EMBEDDED_RECIPE)}"
            ) from error

    def _missing(self) -> list[Path]:
        return missing_files(self.files())

    def _files_below(self, root: Path) -> list[Path]:
        return [root / name for name in self.raw]

    @property
    def _folder(self) -> Path:
        return Path(os.path.commonpath([file.parent for file in self.files()]))
