"""Items that a thread makes while others are worked on: torch and NumPy let go of the interpreter meanwhile."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import closing
from queue import SimpleQueue
from threading import Event, Semaphore, Thread, current_thread
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import torch

Item = TypeVar("Item")


def read_ahead(make: Callable[[], Iterator[Item]], ahead: int) -> Iterator[Item]:
    """The items of ``make()``, in their order, made by a thread before they are asked for.

    An error that making an item meets is raised where that item is asked for. The thread ends when the iterator is
    closed or no longer used, after the item in hand; at the end of the program nobody waits for it longer than that.

    Args:
        make: begins to make them, in that thread.
        ahead: how many are made at most beside those that were given out; 0 makes each when it is asked for.
    """
    if not ahead:
        yield from make()
        return
    with closing(_Reader(make, ahead)) as reader:
        while True:
            item = reader.next()
            if item is _END:
                return
            yield item
            del item  # which may be large


_END: Any = object()


class _Reader(Thread, Generic[Item]):
    """The thread, which takes few of the processor's cores from those that work on the items."""

    def __init__(self, make: Callable[[], Iterator[Item]], ahead: int) -> None:
        super().__init__(name="reading ahead", daemon=True)
        self._make = make
        self._room, self._made, self._ended = Semaphore(ahead), SimpleQueue[tuple[Item, BaseException | None]](), False
        self._ready, threads = Event(), torch.get_num_threads()
        self._threads = max(1, min(4, threads // 4))
        _readers.add(self)
        self.start()
        self._ready.wait()
        torch.set_num_threads(threads)  # some of what the thread has set for itself, it has set for all

    def next(self) -> Item:
        """The next item, as soon as it is made."""
        item, error = self._made.get()
        if error is not None:
            raise error
        self._room.release()
        return item

    def close(self) -> None:
        """End after the item in hand."""
        self._ended = True
        self._room.release()
        if self is not current_thread():  # which may collect what refers to it
            self.join()

    def run(self) -> None:
        """Make one item after the other, while there is room."""
        torch.get_num_threads()  # a new thread's first look at it would undo what is set
        torch.set_num_threads(self._threads)
        self._ready.set()
        try:
            items = self._make()
            while self._room.acquire() and not self._ended:
                self._made.put((next(items, _END), None))
            if (close := getattr(items, "close", None)) is not None:
                close()
        except BaseException as error:
            self._made.put((_END, error))


_readers: WeakSet[_Reader[Any]] = WeakSet()


@atexit.register
def _end_all() -> None:
    """An interpreter that ends while a thread is inside torch would abort."""
    for reader in list(_readers):
        reader.close()
