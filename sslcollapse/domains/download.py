"""Downloads that leave nothing half-written: into a folder of their own, moved into place when complete."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sslcollapse.core.untrusted import check_regular

DOWNLOAD_SILENCE_SECONDS = 30.0
"""A download server that says nothing for this long is given up on."""


@contextmanager
def staging_folder(root: Path) -> Iterator[Path]:
    """A temporary folder below ``root``; it, and folders made for it that stay empty, are removed again."""
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=root) as staging:
            yield Path(staging)
    finally:
        for folder in made:
            try:
                folder.rmdir()
            except OSError:  # not empty: the download succeeded, or another rank is at it
                break


def publish(files: Iterable[Path], staging: Path, root: Path) -> None:
    """Move files below ``staging`` to the same places below ``root``; files already there stay."""
    for file in files:
        target = root / file.relative_to(staging)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, target)


@contextmanager
def socket_timeout(seconds: float = DOWNLOAD_SILENCE_SECONDS) -> Iterator[None]:
    """Connections opened inside give up after this much silence."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def missing_files(files: Iterable[Path]) -> list[Path]:
    """Those that are not there.

    Raises:
        DataError: one is there and no regular file, so that neither reading nor downloading can help.
    """
    missing = []
    for file in files:
        try:
            check_regular(file)
        except OSError:
            missing.append(file)
    return missing


def reason(error: BaseException) -> str:
    """An error's type and the first line of its text, for messages."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def missing_text(files: Sequence[Path], data_root: Path, embedded_recipe: str) -> str:
    """What to do about missing files: where to put them, what the data root is, which recipe needs none."""
    folders = " and ".join(sorted({str(file.parent) for file in files}))
    return (
        f"Put {', '.join(file.name for file in files)} into {folders}. The data root {data_root} comes from the "
        "recipe's data_root, else the environment variable SSLCOLLAPSE_DATA, else ./data. "
        f"{embedded_recipe} needs no download."
    )
