"""A file that one process at a time may hold; the system lets go of it when that process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from sslcollapse.checkpoint import is_alive
from sslcollapse.errors import RunError

POLL_SECONDS = 0.1
ORPHAN_SECONDS = 15.0
"""How long the worker processes of a holder that was killed, which inherited its lock, may take to end after it."""


class InUseError(RunError):
    """Somebody else holds a lock."""


def run_lock(run: Path, patience: float = 0.0) -> AbstractContextManager[None]:
    """The lock of a run directory, which lies beside it; see ``locked``."""
    return locked(run.with_name(f".{run.name}.lock"), f"{run}: this run", patience)


@contextmanager
def locked(path: Path, what: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path``, which is removed afterwards; wait for it ``patience`` seconds.

    Folders that are made for it, and in which nothing else was put, are removed too. A file system without locks (some
    cluster ones) lets everybody in.

    Raises:
        InUseError: somebody else holds it; ``what`` begins the message, which says who.
        OSError: the file cannot be made.
    """
    deadline = time.monotonic() + patience
    made: list[Path] = []
    try:
        while True:
            made += [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:
                continue  # another process has removed the folders that it had made
            try:
                _lock(descriptor, path, what, deadline)
                # The holder before us may have removed the file after we opened it: then another can hold the new file.
                if _is_file(path, descriptor):
                    try:
                        os.truncate(descriptor, 0)
                        os.write(descriptor, _who().encode())
                        yield
                    finally:
                        with suppress(OSError):
                            path.unlink()
                    return
            finally:
                os.close(descriptor)
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _lock(descriptor: int, path: Path, what: str, deadline: float) -> None:
    began = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = ""
            with suppress(OSError):  # let go of in between
                holder = path.read_text(encoding="utf-8", errors="replace").strip()
            until = max(deadline, began + ORPHAN_SECONDS) if _is_dead(holder) else deadline
            if time.monotonic() >= until:
                raise InUseError(f"{what} is in use by {holder or 'another process'}") from None
            time.sleep(POLL_SECONDS)
        except OSError:
            return


def _is_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _who() -> str:
    return f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"


def _is_dead(holder: str) -> bool:
    """Whether who wrote this was a process of this machine and is no more."""
    found = re.match(r"process (\d+) on (\S*) since", holder)
    if not found or found[2] != platform.node():
        return False
    return not is_alive(int(found[1]))
