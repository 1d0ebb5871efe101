"""The vision domain: batches of augmented images, and un-augmented ones with labels for probes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from sslcollapse.core.errors import RecipeError, in_units
from sslcollapse.core.memory import check_size, machine_memory, onto_together, processes_here
from sslcollapse.core.registry import VISION_DATASETS, VISION_VIEWS
from sslcollapse.core.seeding import generator
from sslcollapse.core.types import Batch, Context, ProbeSet
from sslcollapse.domains.base import BatchPlace, Domain, Order, dataset_key, flat_rows
from sslcollapse.domains.vision.augment import Augmentation, Prepared, plain
from sslcollapse.domains.vision.data import ImageDataset, Images, ImageSource, MemoryImages
from sslcollapse.domains.vision.decode import decoding_threads
from sslcollapse.domains.vision.feed import makes_views_ahead, stage_at, streamed, views_of
from sslcollapse.domains.vision.views import ImageViews, contact_sheet
from sslcollapse.recipe.schema import AtLeast, Between, Component, FieldsOrComponent, Width

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
        grow: ``[until, size]`` in turn, for smaller views at first, which cost less: ``[[2000, 16], [4000, 24]]`` has
            views of 16 pixels in the first 2,000 batches, then 24 up to batch 4,000, then ``size``. The encoder has
            to read all of them: convolutional networks do.
        feed: ``"resident"`` keeps all images decoded, as uint8, on the device, in each process; ``"streamed"`` reads
            and decodes them in worker processes as they are needed. Both give the same batches. ``"auto"`` is resident
            for up to 4 GiB of decoded images, if all processes of a machine together take at most half of its memory.
        workers: processes of each rank for a streamed feed, which on a CPU also make views of 128 pixels on; 0 is none.
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
        grow: Sequence[Sequence[Width]] = (),
        feed: Literal["auto", "resident", "streamed"] = "auto",
        workers: Annotated[int, Between(0, 1024)] = 2,
    ) -> None:
        if batch_size < 2:
            raise RecipeError(f"domain.batch_size: must be >= 2, got {batch_size}")
        self.grow = _growth(grow)
        self.source: ImageSource = VISION_DATASETS.build(dataset, data_root)
        self._spec = dataset
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
            self.use(self.source.load())
        assert self._dataset is not None
        return self._dataset

    def data_key(self) -> str | None:
        """By the dataset and the feed, whatever the views."""
        return dataset_key(VISION_DATASETS, self._spec, self.source, self.feed)

    def loaded(self) -> ImageDataset | None:
        """The images, if they are in memory."""
        held = self._dataset is not None and isinstance(self._dataset.images, MemoryImages)
        return self._dataset if held else None

    def use(self, data: ImageDataset) -> None:
        """Have these images, decoded where they are to be resident.

        Raises:
            RecipeError: the batch is larger than the set of images to pre-train on.
        """
        if self.batch_size > len(data.pretrain):
            raise RecipeError(
                f"domain.batch_size: {self.batch_size} is more than the {len(data.pretrain)} images to "
                "pre-train on; lower it"
            )
        resident = self._is_resident(data)
        if resident and not isinstance(data.images, MemoryImages):
            copies = processes_here()
            held = f", held by each of {copies} processes" if copies > 1 else ""
            what = f'domain.feed: {len(data.images):,} decoded images{held}, which "streamed" reads as they are needed'
            check_size(copies * _bytes(data), what)
        self._dataset = self._decoded(data) if resident else data

    def batches(self, start_step: int, context: Context) -> Iterator[Batch]:
        """Endless batches; batch k depends on (seed, k, rank) only.

        View v of step k is drawn from (seed, k, rank, v). Labels are -1 for images that have none.
        """
        self.check(context.world_size)
        dataset, device = self.dataset, context.device
        labels = dataset.all_labels().to(device)
        order = Order(dataset.pretrain, self.batch_size, context)
        pixels, stream, stages = None, None, self._stages()
        streams, largest = (
            self.loaded() is None or self.feed == "streamed",
            max(self.view_size, *dataset.images.shape[1:]),
        )
        ahead = streams and self.workers > 0 and makes_views_ahead(stages, largest, device)
        if not streams and isinstance(dataset.images, MemoryImages):
            pixels = dataset.images.pixels.to(device)
        else:
            make = partial(views_of, stages, (context.seed, context.rank)) if ahead else None
            stream = streamed(dataset.images, order, start_step, self.workers, make)
        for place, read in ((place, []) for place in order.places(start_step)) if stream is None else stream:
            if ahead:
                index, views = place.rows, read
            else:
                index, views = self._made(place, read, pixels, stage_at(stages, place.step), context)
            yield Batch(views, index, labels[index], self.replicated, equal=True)

    def _made(
        self,
        place: BatchPlace,
        read: Sequence[Tensor],
        pixels: Tensor | None,
        augmentations: Sequence[Any],
        context: Context,
    ) -> tuple[Tensor, list[Tensor]]:
        """Rows and views of one batch on the device, to which one copy is made of all that is not there.

        Args:
            place: which images.
            read: the images, on the host; empty where they are on the device.
            pixels: all images, on the device; None where they are not.
            augmentations: one a view.
            context: of the run.
        """
        # Parameters are drawn on the CPU: the device is not waited for, and every device has the same views.
        key, device = (context.seed, place.step, context.rank), context.device
        draws = [(augment, generator(CPU, "view", *key, k)) for k, augment in enumerate(augmentations)]
        prepared = [self._prepared(augment, rng, len(place.rows), device) for augment, rng in draws]
        tensors = chain.from_iterable(view.tensors for view in prepared if view is not None)
        index, *sent = onto_together(device, [place.rows, *read, *tensors])
        images, rest = (sent[0], iter(sent[1:])) if pixels is None else (pixels[index], iter(sent))
        return index, [
            augment(images, rng) if view is None else augment.make(images, view.of(islice(rest, len(view.tensors))))
            for (augment, rng), view in zip(draws, prepared, strict=True)
        ]

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
        _, augmentations = self._stages()[-1]
        rows = dataset.pretrain[torch.linspace(0, len(dataset.pretrain) - 1, samples).long()]
        contact_sheet(dataset.images.read(rows), augmentations, source.mean, source.std, path, seed)

    def _stages(self) -> list[tuple[float, list[Any]]]:
        """Up to which batch views are made how: in turn, the last for ever."""
        source = self.source
        return [
            (until, self.views.augmentations(size, source.channels, source.mean, source.std))
            for until, size in (*self.grow, (math.inf, self.view_size))
        ]

    def _prepared(self, augment: Any, rng: torch.Generator, samples: int, device: torch.device) -> Prepared | None:
        """A view's draws, for another device than the host; None of views that are made in one go, as those of others.

        On the host a batch is made in pieces that its caches hold, each of which is prepared by itself.
        """
        if device.type == "cpu" or not isinstance(augment, Augmentation):
            return None
        height, width = self.dataset.images.shape[1:]
        return augment.prepare(augment.draw(samples, height, width, rng), height, width)

    def notice(self, world_size: int) -> str | None:
        """That images are streamed, since the processes of this machine could not all hold them decoded."""
        needed, copies = _bytes(self.dataset), processes_here()
        if self.feed != "auto" or isinstance(self.dataset.images, MemoryImages) or needed > RESIDENT_BYTES:
            return None
        return (
            f"domain.feed: images are streamed: decoded they take {in_units(needed)} in each of {copies} "
            f"process{'es' if copies > 1 else ''}, more than half of this machine's {in_units(machine_memory())}"
        )

    def _is_resident(self, dataset: ImageDataset) -> bool:
        needed = _bytes(dataset)
        fits = needed <= RESIDENT_BYTES and processes_here() * needed <= machine_memory() // 2
        return self.feed == "resident" or (self.feed == "auto" and fits)

    @staticmethod
    def _decoded(dataset: ImageDataset) -> ImageDataset:
        if isinstance(dataset.images, MemoryImages):
            return dataset
        pixels = dataset.images.read(torch.arange(len(dataset.images)), decoding_threads())
        return replace(dataset, images=MemoryImages(pixels))


def _bytes(dataset: ImageDataset) -> int:
    """What all images take, decoded."""
    return len(dataset.images) * math.prod(dataset.images.shape)


def _views(given: ImageViews | Mapping[str, Any]) -> Any:
    """What makes an augmentation of each view: ours, or a component."""
    if isinstance(given, ImageViews):
        return given
    return VISION_VIEWS.build(given) if "type" in given else ImageViews(**given)


def _growth(grow: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Pairs of a batch and a size, both of which grow.

    Raises:
        RecipeError: anything else.
    """
    pairs = [tuple(each) for each in grow]
    if any(len(pair) != 2 for pair in pairs) or any(a >= c or b >= d for (a, b), (c, d) in pairwise(pairs)):
        raise RecipeError(
            f"domain.grow: needs pairs [until, size] in which both become larger, got {list(map(list, pairs))}"
        )
    return [(until, size) for until, size in pairs]


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
