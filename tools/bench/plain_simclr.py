"""SimCLR as one would write it with lightly's parts, the yardstick of ``bench vision-step``.

As in lightly's own examples and benchmark of CIFAR-10: PIL images through ``SimCLRTransform`` in the worker processes
of a ``DataLoader``, ``SimCLRProjectionHead``, ``NTXentLoss``, SGD, a plain loop. Precision and memory format of
convolutions are those of our step, which their examples leave out and which make theirs faster too; so is the encoder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


def loader_workers() -> int:
    """Worker processes of the loader: as many as there are cores, since more would only wait for each other."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class PILImages(torch.utils.data.Dataset):
    """Images as torchvision's CIFAR-10 gives them: a PIL image made from an array, then the transform."""

    def __init__(self, pixels: Tensor, transform: Callable[[Any], Any]) -> None:
        self.arrays = pixels.cpu().permute(0, 2, 3, 1).contiguous().numpy()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        return self.transform(Image.fromarray(self.arrays[index]))


class PlainSimCLR:
    """Model, loader, optimiser and step.

    Args:
        encoder: to be trained, with ``out_dim``.
        pixels: uint8 [N, 3, S, S].
        batch: images a step.
        widths: of the projection head.
        device: where the network is.
        half: whether forward passes are in bfloat16.
        workers: processes that make views.
    """

    def __init__(
        self,
        encoder: nn.Module,
        pixels: Tensor,
        batch: int,
        widths: tuple[int, int],
        device: torch.device,
        *,
        half: bool,
        workers: int,
    ) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules.heads import SimCLRProjectionHead
        from lightly.transforms import SimCLRTransform

        width: Any = encoder.out_dim
        self.device = device
        self.model: Any = nn.Sequential(encoder, SimCLRProjectionHead(width, *widths))
        self.model.to(device).to(memory_format=torch.channels_last).train()
        self.criterion = NTXentLoss(temperature=0.5)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=half)
        transform = SimCLRTransform(input_size=pixels.shape[-1], gaussian_blur=0.0)
        self.loader = torch.utils.data.DataLoader(
            PILImages(pixels, transform),
            batch_size=batch,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )
        self.batches = self._endless()

    def __call__(self) -> None:
        """The next batch, forward, backward, update."""
        first, second = (view.to(self.device, non_blocking=True) for view in next(self.batches))
        with self.autocast:
            loss = self.criterion(self.model(first), self.model(second))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _endless(self) -> Iterator[list[Tensor]]:
        while True:
            yield from self.loader
