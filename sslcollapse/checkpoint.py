"""Exact save and resume: one file a checkpoint, atomic and checksummed."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from sslcollapse.errors import RunError


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write ``state`` as the checkpoint of ``step`` completed steps and delete all but the newest ``keep``.

    The file is written under a temporary name and renamed, its SHA-256 beside it first; a crash at any moment
    leaves the previous checkpoint usable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    path = folder / f"step{step:08d}.pt"
    write_atomic(path.with_suffix(".sha256"), hashlib.sha256(data).hexdigest().encode())
    write_atomic(path, data)
    for old in sorted(folder.glob("step*.pt"))[:-keep]:
        old.unlink()
        old.with_suffix(".sha256").unlink(missing_ok=True)
    return path


def load_latest_checkpoint(folder: Path) -> dict[str, Any]:
    """The newest checkpoint whose checksum is right; tensors only, no code is unpickled.

    Raises:
        RunError: when there is none, naming those that are damaged.
    """
    damaged = []
    for path in sorted(folder.glob("step*.pt"), reverse=True):
        data = path.read_bytes()
        checksum = path.with_suffix(".sha256")
        if checksum.exists() and checksum.read_text() == hashlib.sha256(data).hexdigest():
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        damaged.append(path.name)
    if damaged:
        raise RunError(
            f"{folder}: every checkpoint is damaged ({', '.join(damaged)}); start again with --overwrite, or "
            f"delete {folder.parent}"
        )
    raise RunError(f"{folder}: no checkpoint was written yet; start again with --overwrite")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file under a temporary name in the same folder, then rename it; a crash leaves the old one or the new."""
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
