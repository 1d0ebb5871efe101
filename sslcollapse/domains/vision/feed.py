"""Two ways from a dataset to batches of uint8 images: resident, and streamed.

Both give the same batches. Resident images are one tensor on the device, of which the domain takes rows there. Streamed
ones are read and decoded by worker processes a few batches ahead, and sent to the device with all else that a batch
needs; of large ones the workers make the views as well. There is nothing to replay on resuming, since the order of an
epoch is a function of (seed, epoch) and workers start at the batch that is due.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.errors import RunError, SSLCollapseError
from sslcollapse.core.seeding import generator
from sslcollapse.domains.base import BatchPlace, Order
from sslcollapse.domains.vision.augment import LARGE, Augmentation
from sslcollapse.domains.vision.data import Images

PREFETCH = 4
"""Batches that each worker process prepares ahead."""


Stages = Sequence[tuple[float, Sequence[Any]]]
"""Up to which batch views are made how: in turn, the last for ever."""

Make = Callable[[int, Tensor], list[Tensor]]
"""The views of a step from its images, uint8 [B, C, H, W]."""


def streamed(
    images: Images, order: Order, start_step: int, workers: int, make: Make | None = None
) -> Iterator[tuple[BatchPlace, list[Tensor]]]:
    """Batches that worker processes read and decode ahead; 0 workers do it here.

    Args:
        images: of the dataset.
        order: which rows each batch has.
        start_step: the first batch.
        workers: how many processes.
        make: makes the views of a batch where its images are decoded; None leaves that to the process that trains.

    Shapes:
        result: the images alone, [B, C, H, W] uint8, or what ``make`` makes of them; on the host.

    Raises:
        RunError: worker processes have no room to pass batches on, or one has ended.
    """
    if workers:
        try:
            multiprocessing.Lock()  # what the queues of worker processes need first
        except OSError as error:
            raise _no_room(str(error.strerror)) from error
    loader = torch.utils.data.DataLoader(
        _Rows(images, make),
        batch_size=None,  # a "sample" is a batch already
        sampler=_Sampler(order, start_step),
        num_workers=workers,
        prefetch_factor=(PREFETCH if make is None else 1) if workers else None,  # views take eight times the room
        worker_init_fn=_ignore_signals_to_all,
        generator=torch.Generator(),  # else each loader draws a number from the global one
    )
    batches = iter(loader)
    try:
        for place in order.places(start_step):
            batch = next(batches)
            if isinstance(batch, SSLCollapseError):
                raise batch
            yield place, batch
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
        if not workers or isinstance(error, SSLCollapseError):
            raise
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise RunError(
            f"domain.feed: a worker process that reads images has ended ({' '.join(str(error).split())}); it may "
            "have run out of memory: use fewer domain.workers, or domain.workers=0, which reads in this process"
        ) from error
    finally:
        del batches  # which ends the workers, whoever still holds this frame


def makes_views_ahead(stages: Stages, largest: int, device: torch.device) -> bool:
    """Whether worker processes make the views too: of large images on a CPU, where they take most of the time.

    Those of small images take no longer than sending them to the training process, and a GPU makes its own.
    """
    ours = all(isinstance(augment, Augmentation) for _, augmentations in stages for augment in augmentations)
    return ours and largest >= LARGE and device.type == "cpu"


def stage_at(stages: Stages, step: int) -> Sequence[Any]:
    """What makes the views of a step."""
    return next(made for until, made in stages if step < until)


def views_of(stages: Stages, key: tuple[int, int], step: int, images: Tensor) -> list[Tensor]:
    """The views of a step, as the process that trains would draw them: view k from (seed, step, rank, k).

    Args:
        stages: what makes views.
        key: seed and rank.
        step: number of the batch.
        images: uint8 [B, C, H, W].
    """
    (seed, rank), augmentations, host = key, stage_at(stages, step), torch.device("cpu")
    return [augment(images, generator(host, "view", seed, step, rank, k)) for k, augment in enumerate(augmentations)]


def _ignore_signals_to_all(worker: int) -> None:
    """In a worker: leave signals to the parent, which on one to all processes of a job finishes a step and saves.

    That step needs the workers' batches. SIGTERM from the parent itself ends a worker, as it always does.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_at_the_parents_sigterm, args=(os.getppid(),), daemon=True).start()


def _end_at_the_parents_sigterm(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)


def _no_room(reason: str) -> RunError:
    return RunError(
        f"domain.feed: batches cannot be passed on through /dev/shm ({reason}); make it larger (docker run "
        "--shm-size=8g, or mount -o remount,size=8g /dev/shm), or use domain.workers=0, which reads in this process"
    )


class _Rows(torch.utils.data.Dataset):
    """Rows → images, or the error that reading them met: workers would wrap a raised one in their traceback."""

    def __init__(self, images: Images, make: Make | None) -> None:
        self.images, self.make = images, make

    def __getitem__(self, place: tuple[int, Tensor]) -> list[Tensor] | SSLCollapseError:
        step, rows = place
        try:
            images = self.images.read(rows)
            batch = [images] if self.make is None else self.make(step, images)
        except SSLCollapseError as error:
            return error
        if torch.utils.data.get_worker_info() is None:
            return batch
        try:
            # The queue would do it later, and lose the error: the batch would never come.
            return [part.share_memory_() for part in batch]
        except RuntimeError as error:
            return _no_room(str(error))


class _Sampler(torch.utils.data.Sampler):
    """Step and rows of each batch from a step on."""

    def __init__(self, order: Order, start_step: int) -> None:
        self.order, self.start_step = order, start_step

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        return ((place.step, place.rows) for place in self.order.places(self.start_step))
