"""The vision domain: batches of augmented images, and un-augmented ones with labels for probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.registry import VISION_DATASETS, VISION_VIEWS
from sslcollapse.core.seeding import generator
from sslcollapse.core.types import Batch, Context, ProbeSet
from sslcollapse.domains.base import Domain, Order, flat_rows
from sslcollapse.domains.vision.augment import plain
from sslcollapse.domains.vision.data import ImageDataset, Images, ImageSource, MemoryImages
from sslcollapse.domains.vision.decode import decoding_threads
from sslcollapse.domains.vision.feed import resident, streamed
from sslcollapse.domains.vision.views import ImageViews, contact_sheet
from sslcollapse.recipe.schema import AtLeast, Between, Component, FieldsOrComponent

RESIDENT_BYTES = 4 << 30
"""Datasets whose decoded images take at most this much (4 GiB) are resident with ``feed="auto"``."""

DEFAULT_VIEWS = ImageViews()
CPU = torch.device("cpu")


class VisionDomain(Domain):
    """Images: views by random crops, flips, colour changes and the like.

    Args:
        data_root: folder in which the dataset's files are looked for.
        dataset: which images.
        views: how the views are made; with a ``type`` by a component of the kind ``vision_views`` (``torchvision``).
        batch_size: images a step over all ranks, each of which makes the views of its share.
        size: height and width of a view; None is the dataset's own.
        feed: ``"resident"`` keeps all images decoded, as uint8, on the device; ``"streamed"`` reads and decodes
            them in worker processes as they are needed. Both give the same batches. ``"auto"`` is resident for up
            to 4 GiB of decoded images.
        workers: worker processes of each rank that a streamed feed has; 0 decodes in the training process.
    """

    kind = "image"

    def __init__(
        self,
        data_root: Path,
        *,
        dataset: Annotated[dict[str, Any], Component("vision_dataset")],
        views: Annotated[ImageViews, FieldsOrComponent("vision_views")] = DEFAULT_VIEWS,
        batch_size: Annotated[int, AtLeast(2)],
        size: Annotated[int, Between(1, 65_535)] | None = None,
        feed: Literal["auto", "resident", "streamed"] = "auto",
        workers: Annotated[int, Between(0, 1024)] = 2,
    ) -> None:
        if batch_size < 2:
            raise RecipeError(f"domain.batch_size: must be >= 2, got {batch_size}")
        self.source: ImageSource = VISION_DATASETS.build(dataset, data_root)
        self.views = _views(views)
        self.batch_size, self.size, self.feed, self.workers = batch_size, size, feed, workers
        self._dataset: ImageDataset | None = None

    @property
    def view_size(self) -> int:
        """Height and width of a view."""
        return self.source.size if self.size is None else self.size

    @property
    def in_shape(self) -> tuple[int, ...]:  # type: ignore[override]  # some data sets must be looked at for it
        """(C, S, S) of a view.

        Raises:
            MissingDataError, DataError: only the data could tell, and they cannot be read.
        """
        return self.source.channels, self.view_size, self.view_size

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        """Number of classes."""
        return self.source.num_classes

    def describe(self) -> str:
        """One line on the data that will be read."""
        return self.source.describe()

    def check(self, world_size: int) -> None:
        """Raise RecipeError for a batch size that ranks cannot share."""
        if self.batch_size % world_size:
            raise RecipeError(
                f"domain.batch_size: {self.batch_size} images cannot be shared equally by {world_size} ranks; "
                f"use a multiple of {world_size}"
            )

    def load(self) -> None:
        """Read the dataset; decode all of it where it is to be resident.

        Raises:
            MissingDataError, DataError: see the dataset.
            RecipeError: the batch is larger than the set of images to pre-train on.
        """
        _ = self.dataset

    @property
    def dataset(self) -> ImageDataset:
        """The images, read on first use."""
        if self._dataset is None:
            dataset = self.source.load()
            if self.batch_size > len(dataset.pretrain):
                raise RecipeError(
                    f"domain.batch_size: {self.batch_size} is more than the {len(dataset.pretrain)} images to "
                    "pre-train on; lower it"
                )
            self._dataset = self._decoded(dataset) if self._is_resident(dataset) else dataset
        return self._dataset

    def batches(self, start_step: int, context: Context) -> Iterator[Batch]:
        """Endless batches; batch k depends on (seed, k, rank) only.

        View v of step k is drawn from (seed, k, rank, v). Labels are -1 for images that have none.
        """
        self.check(context.world_size)
        dataset, device = self.dataset, context.device
        source, labels = self.source, dataset.all_labels().to(device)
        augmentations = self.views.augmentations(self.view_size, source.channels, source.mean, source.std)
        order = Order(dataset.pretrain, self.batch_size, context)
        if isinstance(dataset.images, MemoryImages) and self.feed != "streamed":
            stream = resident(dataset.images.pixels.to(device), order, start_step)
        else:
            stream = streamed(dataset.images, order, start_step, self.workers)
        for place, images in stream:
            index = place.rows.to(device, non_blocking=True)
            key = context.seed, place.step, context.rank
            # Parameters are drawn on the CPU: the device is not waited for, and every device has the same views.
            views = [augment(images, generator(CPU, "view", *key, k)) for k, augment in enumerate(augmentations)]
            yield Batch(views, index, labels[index], self.replicated, equal=True)

    def probe_set(self) -> ProbeSet:
        """Every labelled image un-augmented, training rows first, made a batch at a time; labels and splits."""
        dataset, source = self.dataset, self.source
        rows = torch.arange(len(dataset.labels))
        views = ImageBatches(dataset.images, rows, self.view_size, source.mean, source.std)
        return ProbeSet(views, dataset.labels, dataset.num_classes, dataset.splits)

    def measurable(self, view: Tensor) -> Tensor | None:
        """Samples as rows, or None for large images."""
        return flat_rows(view)

    def baselines(self) -> Mapping[str, Callable[[Tensor], Tensor | None]]:
        """The pixels of an image, normalised; not of large images."""
        return {"pixels": flat_rows}

    def draw(self, path: Path, samples: int, seed: int) -> None:
        """Write a contact sheet of ``samples`` images at most, evenly spaced, and of several draws of each view."""
        dataset, source = self.dataset, self.source
        samples = min(samples, len(dataset.pretrain))
        augmentations = self.views.augmentations(self.view_size, source.channels, source.mean, source.std)
        rows = dataset.pretrain[torch.linspace(0, len(dataset.pretrain) - 1, samples).long()]
        contact_sheet(dataset.images.read(rows), augmentations, source.mean, source.std, path, seed)

    def _is_resident(self, dataset: ImageDataset) -> bool:
        channels, height, width = dataset.images.shape
        small = len(dataset.images) * channels * height * width <= RESIDENT_BYTES
        return self.feed == "resident" or (self.feed == "auto" and small)

    @staticmethod
    def _decoded(dataset: ImageDataset) -> ImageDataset:
        if isinstance(dataset.images, MemoryImages):
            return dataset
        pixels = dataset.images.read(torch.arange(len(dataset.images)), decoding_threads())
        return replace(dataset, images=MemoryImages(pixels))


def _views(given: ImageViews | Mapping[str, Any]) -> Any:
    """What makes an augmentation of each view: ours, or a component."""
    if isinstance(given, ImageViews):
        return given
    return VISION_VIEWS.build(given) if "type" in given else ImageViews(**given)


PROBE_BATCH = 512


@dataclass(frozen=True)
class ImageBatches:
    """Images of some rows in order, resized where need be and normalised, ``batch`` at a time.

    Args:
        images: of the dataset.
        rows: which of them, in order.
        size: height and width.
        mean: of each channel.
        std: of each channel.
        batch: images an item, the last item has the rest.
        device: of the items.

    Shapes:
        rows: [N] int64.
        item: [batch, C, size, size] float32.
    """

    images: Images
    rows: Tensor
    size: int
    mean: Sequence[float]
    std: Sequence[float]
    batch: int = PROBE_BATCH
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch)

    def __getitem__(self, index: int) -> Tensor:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        rows = self.rows[position * self.batch : (position + 1) * self.batch]
        pixels = self.images.read(rows, decoding_threads()).to(self.device)
        return plain(pixels, self.size, self.mean, self.std)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def to(self, device: torch.device) -> ImageBatches:
        """The same images, made on another device."""
        return replace(self, device=device)

    def subset(self, samples: int) -> ImageBatches:
        """At most this many images, evenly spaced over the rows, always the same ones."""
        if samples >= len(self.rows):
            return self
        return replace(self, rows=self.rows[torch.linspace(0, len(self.rows) - 1, samples, dtype=torch.float64).long()])
