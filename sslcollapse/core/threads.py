"""Threads for the small products of probes and the small spectra of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep small products on one thread: threads that wait for a busy core cost far more than they save."""
    threads = torch.get_num_threads()
    try:
        with threadpool_limits(limits=1):
            torch.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(threads)


def map_on_threads(function: Callable[[Item], Result], items: Iterable[Item], limit: int | None = None) -> list[Result]:
    """``function`` of every item, in order; items are shared out over torch's threads, at most ``limit`` of them.

    Each item is computed on one thread: the eigenvalues of one small matrix on several take longer than on one, and
    far longer where cores are busy.
    """
    workers = min(torch.get_num_threads(), limit or torch.get_num_threads())
    with one_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(function, items))
