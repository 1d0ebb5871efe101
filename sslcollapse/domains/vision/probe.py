"""Un-augmented images, made one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sslcollapse.domains.vision.augment import plain
from sslcollapse.domains.vision.data import Images
from sslcollapse.domains.vision.decode import decoding_threads

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
