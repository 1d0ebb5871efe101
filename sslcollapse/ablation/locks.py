"""A file that one process at a time may hold; the system lets go of it when that process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sslcollapse.errors import RunError


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path``, which is removed afterwards.

    A file system without locks (some cluster ones) lets everybody in.

    Raises:
        RunError: somebody else holds it; ``what`` begins the message, which says who.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor, path, what)
            # The holder before us may have removed the file after we opened it: then another one can hold the new file.
            if _is_file(path, descriptor):
                os.truncate(descriptor, 0)
                os.write(descriptor, _who().encode())
                yield
                with suppress(OSError):
                    path.unlink()
                return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, path: Path, what: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
        raise RunError(f"{what} is in use by {holder}") from None
    except OSError:
        pass


def _is_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _who() -> str:
    return f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
