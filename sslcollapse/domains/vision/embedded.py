"""Images that need no files: scikit-learn's digits, and torchvision's random images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.memory import check_size
from sslcollapse.domains.base import DIGITS, SMALLEST_DIGIT_CLASS, check_parts, stratified_split
from sslcollapse.domains.vision.data import ImageDataset, MemoryImages, check_dataset, check_fraction, official_split
from sslcollapse.recipe.schema import AtLeast, Between, Share, Width


class Digits:
    """Scikit-learn's 1,797 handwritten digits as grey images 8x8.

    The samples, their order and the split ``"public"`` are those of the graph dataset of the same name, so that the
    two domains can be compared on the same data. Grey levels 0 to 16 become 0 to 255.

    Pre-training on the graph sees all nodes. Here it sees, by default, the images of the training and validation
    parts (500 of them) and no test image, as with every other image dataset; ``pretrain="all"`` is like the graph.

    Args:
        data_root: ignored; the digits come with scikit-learn.
        pretrain: the images that pre-training sees: all but test images, or all.
        train_per_class: training images of each digit.
        validation_per_class: validation images of each digit; the rest is test.

    Source: Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits.
    """

    title = "Digits"
    channels, size, num_classes = 1, 8, 10
    mean, std = (0.3053,), (0.3759,)

    def __init__(
        self,
        data_root: Path,
        *,
        pretrain: Literal["train", "all"] = "train",
        train_per_class: Width = 20,
        validation_per_class: Width = 30,
    ) -> None:
        check_parts(train_per_class, validation_per_class, SMALLEST_DIGIT_CLASS, "images")
        self.pretrain = pretrain
        self.per_class = train_per_class, validation_per_class

    def files(self) -> list[Path]:
        """None."""
        return []

    def describe(self) -> str:
        """One line for a dry run."""
        seen = DIGITS if self.pretrain == "all" else self.num_classes * sum(self.per_class)
        return (
            f"Digits: {DIGITS:,} images 1x8x8, {seen:,} of them to pre-train on, 10 classes (embedded in "
            "scikit-learn, no files)"
        )

    def load(self) -> ImageDataset:
        """Make the images."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8))[:, None]  # [N, 1, 8, 8]
        split = stratified_split(digits.target, *self.per_class, seed=0)
        seen = np.arange(DIGITS) if self.pretrain == "all" else np.sort(np.concatenate([split.train, split.validation]))
        dataset = ImageDataset(
            self.title,
            MemoryImages(pixels),
            torch.from_numpy(digits.target).long(),
            self.num_classes,
            {"public": (split,)},
            torch.from_numpy(seen),
        )
        return check_dataset(dataset)


class FakeData:
    """Random colour images with random labels, for trying things out: there is nothing to learn in them.

    Args:
        data_root: ignored; the images are drawn, not read.
        train: number of training images.
        test: number of test images.
        size: height and width.
        classes: number of classes.
        seed: of the images; independent of the model's.
        validation: share of the training images that is for validation.
    """

    title = "FakeData"
    channels = 3
    mean, std = (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)

    def __init__(
        self,
        data_root: Path,
        *,
        train: Annotated[int, AtLeast(2)] = 512,
        test: Annotated[int, AtLeast(1)] = 128,
        size: Annotated[int, Between(1, 65_535)] = 32,
        classes: Annotated[int, AtLeast(2)] = 10,
        seed: Annotated[int, AtLeast(0)] = 0,
        validation: Share = 0.1,
    ) -> None:
        for name, value, least in (("train", train, 2), ("test", test, 1), ("size", size, 1), ("classes", classes, 2)):
            if value < least:
                raise RecipeError(f"{name} must be >= {least}, got {value}")
        self.train, self.test, self.size, self.num_classes, self.seed = train, test, size, classes, seed
        self.validation = check_fraction(validation)

    def files(self) -> list[Path]:
        """None."""
        return []

    def describe(self) -> str:
        """One line for a dry run."""
        return (
            f"FakeData: {self.train:,} training, {self.test:,} test images 3x{self.size}x{self.size} of noise, "
            f"{self.num_classes} classes (drawn with seed {self.seed}, no files)"
        )

    def load(self) -> ImageDataset:
        """Draw the images."""
        from torchvision.datasets import FakeData as Drawn
        from torchvision.transforms.functional import pil_to_tensor

        count = self.train + self.test
        check_size(3 * count * self.size**2, f"domain.dataset: {count} images of size={self.size}")
        # torchvision seeds image k with k + offset: far apart, so that two seeds share no image.
        drawn = Drawn(count, (3, self.size, self.size), self.num_classes, random_offset=self.seed * 1_000_003)
        images, labels = zip(*(drawn[row] for row in range(count)), strict=True)
        dataset = ImageDataset(
            self.title,
            MemoryImages(torch.stack([pil_to_tensor(image) for image in images])),
            torch.tensor([int(label) for label in labels]),
            self.num_classes,
            {"public": (official_split(self.train, self.test, self.validation),)},
            torch.arange(self.train),
        )
        return check_dataset(dataset)
