"""Image datasets through torchvision's own loaders.

Each has the official test set for testing; its split ``"public"`` takes a fixed random part of the official
training set (``validation``) for validation and the rest for training a probe. Pre-training sees the images of the
whole official training set, validation included, without labels, and never a test image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.untrusted import check_regular, unpickle
from sslcollapse.domains.vision.data import StoredImages
from sslcollapse.recipe.schema import Share


class _CIFAR(StoredImages):
    counts: ClassVar = (50000, 10000)
    channels, size = 3, 32

    def fetch(self, root: Path) -> None:
        """Download and unpack the archive, whose checksum torchvision knows."""
        from torchvision.datasets.utils import download_and_extract_archive

        loader = self._loader()
        download_and_extract_archive(loader.url, root, filename=loader.filename, md5=loader.tgz_md5)

    def parts(self, root: Path) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Training and test images, from pickles of which nothing is run."""
        from torchvision.datasets.utils import check_integrity

        loader = self._loader()
        for part in (loader.train_list, loader.test_list):
            pixels, labels = [], []
            for name, checksum in part:
                path = Path(root, loader.base_folder, name)
                check_regular(path)
                if not check_integrity(str(path), checksum):
                    raise ValueError(f"{path}: its checksum is not that of the published file")
                entry = unpickle(path)
                pixels.append(entry["data"])
                labels += entry["labels"] if "labels" in entry else entry["fine_labels"]
            yield torch.from_numpy(np.vstack(pixels)).view(-1, 3, 32, 32), torch.tensor(labels)

    def _loader(self) -> Any:
        from torchvision import datasets

        return getattr(datasets, type(self).__name__)


class CIFAR10(_CIFAR):
    """CIFAR-10: 50,000 + 10,000 colour images 32x32 of 10 classes.

    Args:
        data_root: the data root; files in ``vision/cifar-10-batches-py``.
        validation: share of the official training images that is for validation.

    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    """

    title = "CIFAR10"
    raw = tuple(
        f"cifar-10-batches-py/{name}"
        for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta")
    )
    num_classes = 10
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

    def __init__(self, data_root: Path, *, validation: Share = 0.1) -> None:
        super().__init__(data_root, validation)


class CIFAR100(_CIFAR):
    """CIFAR-100: 50,000 + 10,000 colour images 32x32 of 100 classes.

    Args:
        data_root: the data root; files in ``vision/cifar-100-python``.
        validation: share of the official training images that is for validation.

    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    """

    title = "CIFAR100"
    raw = ("cifar-100-python/train", "cifar-100-python/test", "cifar-100-python/meta")
    num_classes = 100
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)

    def __init__(self, data_root: Path, *, validation: Share = 0.1) -> None:
        super().__init__(data_root, validation)


class STL10(StoredImages):
    """STL-10: 5,000 + 8,000 labelled and 100,000 unlabelled colour images 96x96 of 10 classes.

    Args:
        data_root: the data root; files in ``vision/stl10_binary``.
        pretrain: the images that pre-training sees; never test images.
        validation: share of the official training images that is for validation.

    Source: Coates et al. 2011, An Analysis of Single-Layer Networks in Unsupervised Feature Learning.
    """

    title = "STL10"
    raw = tuple(f"stl10_binary/{name}.bin" for name in ("train_X", "train_y", "test_X", "test_y", "unlabeled_X"))
    counts = (5000, 8000, 100000)
    channels, size, num_classes = 3, 96, 10
    mean, std = (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)

    def __init__(
        self,
        data_root: Path,
        *,
        pretrain: Literal["unlabeled+train", "train"] = "unlabeled+train",
        validation: Share = 0.1,
    ) -> None:
        super().__init__(data_root, validation, pretrain_unlabeled=pretrain == "unlabeled+train")

    def fetch(self, root: Path) -> None:
        """Download and unpack the archive."""
        from torchvision import datasets

        datasets.STL10(str(root), split="test", download=True)

    def parts(self, root: Path) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Training and test images, and unlabelled ones where pre-training sees them."""
        from torchvision import datasets

        for split in ("train", "test", "unlabeled")[: 3 if self.pretrain_unlabeled else 2]:
            loader = datasets.STL10(str(root), split=split)
            labels = None if split == "unlabeled" else torch.from_numpy(np.asarray(loader.labels))
            yield torch.from_numpy(loader.data), labels


class SVHN(StoredImages):
    """SVHN: 73,257 + 26,032 colour images 32x32 of house-number digits.

    Args:
        data_root: the data root; files ``vision/train_32x32.mat`` and ``vision/test_32x32.mat``.
        validation: share of the official training images that is for validation.

    Source: Netzer et al. 2011, Reading Digits in Natural Images with Unsupervised Feature Learning.
    """

    title = "SVHN"
    raw = ("train_32x32.mat", "test_32x32.mat")
    counts = (73257, 26032)
    channels, size, num_classes = 3, 32, 10
    mean, std = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)

    def __init__(self, data_root: Path, *, validation: Share = 0.1) -> None:
        super().__init__(data_root, validation)

    def fetch(self, root: Path) -> None:
        """Download both files."""
        from torchvision import datasets

        for split in ("train", "test"):
            datasets.SVHN(str(root), split=split, download=True)

    def parts(self, root: Path) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Training and test images."""
        from torchvision import datasets

        for split in ("train", "test"):
            loader = datasets.SVHN(str(root), split=split)
            yield torch.from_numpy(loader.data), torch.from_numpy(loader.labels)


class MNIST(StoredImages):
    """MNIST: 60,000 + 10,000 grey images 28x28 of handwritten digits.

    Args:
        data_root: the data root; files in ``vision/MNIST/raw``.
        validation: share of the official training images that is for validation.

    Source: LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition.
    """

    title = "MNIST"
    raw = tuple(
        f"MNIST/raw/{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    )
    counts = (60000, 10000)
    channels, size, num_classes = 1, 28, 10
    mean, std = (0.1307,), (0.3081,)

    def __init__(self, data_root: Path, *, validation: Share = 0.1) -> None:
        super().__init__(data_root, validation)

    def fetch(self, root: Path) -> None:
        """Download and unpack the files."""
        from torchvision import datasets

        datasets.MNIST(root, train=False, download=True)

    def parts(self, root: Path) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Training and test images, never from the ``processed`` folder of an old torchvision."""
        from torchvision.datasets.mnist import read_image_file, read_label_file

        images, labels, test_images, test_labels = (str(root / name) for name in self.raw)
        for pixels, classes in ((images, labels), (test_images, test_labels)):
            check_regular(Path(pixels))
            check_regular(Path(classes))
            yield read_image_file(pixels)[:, None], read_label_file(classes)
