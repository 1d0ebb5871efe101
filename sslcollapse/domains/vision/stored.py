"""Image datasets kept in files: look for them, download them where they are missing, read them whole."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from sslcollapse.core.errors import DataError, MissingDataError, SSLCollapseError
from sslcollapse.domains.download import missing_files, missing_text, publish, reason, socket_timeout, staging_folder
from sslcollapse.domains.vision.data import ImageDataset, MemoryImages, check_dataset, check_fraction, official_split

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
