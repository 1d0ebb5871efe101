"""Two ways from a dataset to batches of uint8 images: resident, and streamed.

Both give the same batches. Resident images are one tensor on the device, of which the domain takes rows there. Streamed
ones are read and decoded by worker processes a few batches ahead, and sent to the device with all else that a batch
needs; there is nothing to replay on resuming, since the order of an epoch is a function of (seed, epoch) and workers
start at the batch that is due.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from sslcollapse.core.errors import RunError, SSLCollapseError
from sslcollapse.domains.base import BatchPlace, Order
from sslcollapse.domains.vision.data import Images

PREFETCH = 4
"""Batches that each worker process prepares ahead."""


def streamed(images: Images, order: Order, start_step: int, workers: int) -> Iterator[tuple[BatchPlace, Tensor]]:
    """Batches of images that worker processes read and decode ahead; 0 workers do it here.

    Shapes:
        result: each [B, C, H, W] uint8, on the host.

    Raises:
        RunError: worker processes have no room to pass batches on, or one has ended.
    """
    if workers:
        try:
            multiprocessing.Lock()  # what the queues of worker processes need first
        except OSError as error:
            raise _no_room(str(error.strerror)) from error
    loader = torch.utils.data.DataLoader(
        _Rows(images),
        batch_size=None,  # a "sample" is a batch already
        sampler=_Sampler(order, start_step),
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
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

    def __init__(self, images: Images) -> None:
        self.images = images

    def __getitem__(self, rows: Tensor) -> Tensor | SSLCollapseError:
        try:
            images = self.images.read(rows)
        except SSLCollapseError as error:
            return error
        if torch.utils.data.get_worker_info() is None:
            return images
        try:
            return images.share_memory_()  # the queue would do it later, and lose the error: the batch would never come
        except RuntimeError as error:
            return _no_room(str(error))


class _Sampler(torch.utils.data.Sampler):
    """The rows of each batch from a step on."""

    def __init__(self, order: Order, start_step: int) -> None:
        self.order, self.start_step = order, start_step

    def __iter__(self) -> Iterator[Tensor]:
        return (place.rows for place in self.order.places(self.start_step))
