"""Files: written whole or not at all, and locked by one process at a time.

The system lets go of a lock when the process that holds it ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from sslcollapse.core.errors import ADVICE, RunError, WriteError

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of this package, for whoever needs it; counting folders from a file goes wrong when the file moves."""

POLL_SECONDS = 0.1
ORPHAN_SECONDS = 15.0
"""How long the worker processes of a holder that was killed, which inherited its lock, may take to end after it."""


class InUseError(RunError):
    """Somebody else holds a lock."""


def run_lock(run: Path, patience: float = 0.0) -> AbstractContextManager[None]:
    """The lock of a run directory, which lies beside it; see ``locked``."""
    return locked(run.with_name(f".{run.name}.lock"), f"{run}: this run", patience)


def holder(run: Path) -> str | None:
    """Who holds the lock of a run directory, as it wrote; None if nobody does. Nothing is made or waited for."""
    path = run.with_name(f".{run.name}.lock")
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
    except OSError:  # no lock, or a file system without locks
        return None
    return None


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
                if path.is_symlink():  # to a folder that is not there
                    raise
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


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes ``path``: an error of the system becomes a sentence that says what to do.

    Raises:
        WriteError: it could not be written.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, "see to that")
        reason = error.strerror or str(error)
        told = WriteError(f"{path}: cannot be written ({reason}); {advice}, then give the same command again")
        told.errno, told.strerror = error.errno, error.strerror
        raise told from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file under a temporary name in the same folder, then rename it; a crash leaves the old one or the new.

    Raises:
        WriteError: it could not be written; the old one is still there.
    """
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}")
    try:
        with writing(path):
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):  # its file system may have become read-only
            temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Delete what processes that were killed while they wrote have left in a folder."""
    for path in folder.glob(".*"):
        found = re.search(r"\.(?:tmp|writable)(\d+)$", path.name)
        if found and not is_alive(int(found[1])):
            with suppress(OSError):
                path.unlink()


def is_alive(pid: int) -> bool:
    """Whether this machine has a process of this number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Wait until names are on disk too, so that a machine that crashes keeps the order of what was renamed."""
    with suppress(OSError):  # some file systems do not let folders be synchronised
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
