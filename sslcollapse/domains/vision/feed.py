"""Two ways from a dataset to batches of uint8 images on the device: resident, and streamed.

Both give the same batches. Resident images are one tensor on the device, indexed there. Streamed ones are read and
decoded by worker processes a few batches ahead; there is nothing to replay on resuming, since the order of an
epoch is a function of (seed, epoch) and workers start at the batch that is due.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sslcollapse.domains.vision.data import Images
from sslcollapse.errors import SSLCollapseError
from sslcollapse.seeding import generator
from sslcollapse.types import Context

PREFETCH = 4
"""Batches that each worker process prepares ahead."""


class Place(NamedTuple):
    """Where a batch is: its step, and the dataset rows [B] of this rank (on the CPU)."""

    step: int
    rows: Tensor


@dataclass(frozen=True)
class Order:
    """Which rows each batch has.

    An epoch is a permutation of ``pretrain`` drawn from (seed, epoch); a last incomplete batch is left out. Each
    rank takes its slice of every batch, so that the ranks' slices in turn are the batch of one process.

    Args:
        pretrain: rows to pre-train on [P].
        batch_size: over all ranks; at most P.
        context: seed, rank and world size.
    """

    pretrain: Tensor
    batch_size: int
    context: Context

    def places(self, start_step: int) -> Iterator[Place]:
        """Endless places from a step on."""
        context, per_epoch = self.context, len(self.pretrain) // self.batch_size
        share = self.batch_size // context.world_size
        epoch, step = -1, start_step
        while True:
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                rng = generator(torch.device("cpu"), "order", context.seed, epoch)
                order = self.pretrain[torch.randperm(len(self.pretrain), generator=rng)]
            start = step % per_epoch * self.batch_size + context.rank * share
            yield Place(step, order[start : start + share])
            step += 1


def resident(pixels: Tensor, order: Order, start_step: int) -> Iterator[tuple[Place, Tensor]]:
    """Batches of images that are all on the device.

    Shapes:
        pixels: [N, C, H, W] uint8, on the device.
        result: each [B, C, H, W] uint8, on the device.
    """
    for place in order.places(start_step):
        yield place, pixels[place.rows.to(pixels.device, non_blocking=True)]


def streamed(images: Images, order: Order, start_step: int, workers: int) -> Iterator[tuple[Place, Tensor]]:
    """Batches of images that worker processes read and decode ahead; 0 workers do it here.

    Shapes:
        result: each [B, C, H, W] uint8, on the device.
    """
    device = order.context.device
    loader = torch.utils.data.DataLoader(
        _Rows(images),
        batch_size=None,  # a "sample" is a batch already
        sampler=_Sampler(order, start_step),
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # else each loader draws a number from the global one
    )
    for place, batch in zip(order.places(start_step), loader, strict=False):
        if isinstance(batch, SSLCollapseError):
            raise batch
        yield place, batch.to(device, non_blocking=True)


class _Rows(torch.utils.data.Dataset):
    """Rows → images, or the error that reading them met: workers would wrap a raised one in their traceback."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __getitem__(self, rows: Tensor) -> Tensor | SSLCollapseError:
        try:
            return self.images.read(rows)
        except SSLCollapseError as error:
            return error


class _Sampler(torch.utils.data.Sampler):
    """The rows of each batch from a step on."""

    def __init__(self, order: Order, start_step: int) -> None:
        self.order, self.start_step = order, start_step

    def __iter__(self) -> Iterator[Tensor]:
        return (place.rows for place in self.order.places(self.start_step))
