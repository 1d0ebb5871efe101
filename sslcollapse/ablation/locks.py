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

POLL_SECONDS = 0.1


class InUseError(RunError):
    """Somebody else holds a lock."""


@contextmanager
def locked(path: Path, what: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path``, which is removed afterwards; wait for it ``patience`` seconds.

    A file system without locks (some cluster ones) lets everybody in.

    Raises:
        InUseError: somebody else holds it; ``what`` begins the message, which says who.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor, path, what, time.monotonic() + patience)
            # The holder before us may have removed the file after we opened it: then another one can hold the new file.
            if _is_file(path, descriptor):
                os.truncate(descriptor, 0)
                os.write(descriptor, _who().encode())
                try:
                    yield
                finally:
                    with suppress(OSError):
                        path.unlink()
                return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, path: Path, what: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                who = ""
                with suppress(FileNotFoundError):  # let go of in between
                    who = path.read_text(encoding="utf-8", errors="replace").strip()
                holder = who or "another process"
                raise InUseError(f"{what} is in use by {holder}") from None
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
