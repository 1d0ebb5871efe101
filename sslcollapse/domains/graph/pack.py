"""Writing a graph as the dataset ``stored`` reads it, a piece at a time, so that it need not fit into memory.

Whatever ends the process, the same command goes on: ``packing.json`` says how much of each file counts, and the
description, without which no folder is read, is written last.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from sslcollapse.core.errors import DataError, RunError
from sslcollapse.core.files import locked, write_atomic, writing
from sslcollapse.core.untrusted import read_regular
from sslcollapse.domains.graph.packed import (
    DESCRIPTION,
    FORMAT,
    KINDS,
    PARTS,
    UNFINISHED,
    VERSION,
    check_finite_rows,
    digest,
)
from sslcollapse.domains.graph.sorting import BYTES_AN_EDGE, MOST_FILES, EdgeFiles, number_type, write_all
from sslcollapse.domains.graph.stream import GraphStream, encoded

SAVE_EVERY = 1 << 28
"""After so many bytes it is written down how far the packing is, so that at most these are written again."""

HEADER = 128
"""Bytes of the header of an array: more than any needs, so that it can be written when the shape is known."""


def pack(
    stream: GraphStream, folder: Path, *, key: str, kind: str, memory: int, progress: Callable[[str], None]
) -> bool:
    """Write a graph to a folder that is empty, not there, or has an unfinished one of the same graph, and go on.

    Args:
        stream: the graph.
        folder: where it goes.
        key: what decides which graph it is; another one is not mixed with it.
        kind: that features are stored as: ``float32``, ``float16`` or ``int8`` with a scale a row.
        memory: bytes that edges are sorted in.
        progress: is told what is done.

    Returns:
        False where the same graph is there, complete.

    Raises:
        RunError: the folder has something else, or is in use.
        WriteError: the disk is full; the same command goes on.
        DataError: a feature is not finite, an edge leads nowhere, or there are none.
    """
    folder = folder.resolve()  # so that two names of one folder, such as a link, have one lock
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: is no folder; give a new one, in which nothing else is")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock"), f"{folder}: this folder"):
        key = hashlib.sha256(json.dumps([key, kind, VERSION]).encode()).hexdigest()
        packing = _begun(folder, key)
        if packing is None:
            return False
        _Packer(stream, folder, kind, memory, packing, progress).run()
    return True


def _begun(folder: Path, key: str) -> _Packed | None:
    """How far an earlier packing of the same graph has come; None where it is complete."""
    for name in (DESCRIPTION, UNFINISHED):
        if (folder / name).exists():
            try:
                found = json.loads(read_regular(folder / name))
                same = found["key"] == key
            except (ValueError, KeyError, TypeError):
                same = False
            if not same:
                raise RunError(f"{folder}: has another graph, or was packed with other options; give another folder")
            return _Packed(**found) if name == UNFINISHED else None
    if any(folder.iterdir()):
        raise RunError(f"{folder}: is not empty; give a new folder, in which nothing else is")
    return _Packed(key)


@dataclass
class _Packed:
    """How far a packing is: all that is below these numbers is on disk.

    Attributes:
        done: arrays that are complete.
        rows: of the features.
        files: into how many files edges are thrown.
        pieces: of edges that were thrown into files, which then have these sizes.
        loops: nodes with a self-loop.
        thrown: whether these were all pieces.
        merged: files of edges that are sorted and in the arrays, with so many targets and edges.
    """

    key: str
    done: list[str] = field(default_factory=list)
    rows: int = 0
    files: int = 0
    pieces: int = 0
    sizes: list[int] = field(default_factory=list)
    loops: int = 0
    thrown: bool = False
    merged: int = 0
    targets: int = 0
    edges: int = 0


class _GrowingArray:
    """A file of an array that rows are appended to; its header, which says the shape, is written when it is closed."""

    def __init__(self, folder: Path, name: str, kind: str, row: tuple[int, ...] = (), length: int = 0) -> None:
        self.path, self._kind, self._row, self.length = folder / f"{name}.npy", np.dtype(kind), row, length
        with writing(self.path):
            self._file = open(self.path, "r+b" if self.path.exists() else "w+b", buffering=0)  # noqa: SIM115
            size = HEADER + length * math.prod(row) * self._kind.itemsize
            self._file.truncate(size)
            self._file.seek(size)

    def append(self, rows: np.ndarray) -> int:
        """Add rows; how many bytes that were."""
        data = np.ascontiguousarray(rows, self._kind)
        with writing(self.path):
            write_all(self._file, data)
        self.length += len(data)
        return data.nbytes

    def sync(self) -> None:
        """Wait until all of it is on disk."""
        with writing(self.path):
            os.fsync(self._file.fileno())

    def complete(self) -> None:
        """Write the header."""
        shape = (self.length, *self._row)
        text = str({"descr": self._kind.str, "fortran_order": False, "shape": shape}).encode()
        begin = np.lib.format.magic(1, 0) + (HEADER - 10).to_bytes(2, "little")
        with writing(self.path):
            self._file.seek(0)
            self._file.write(begin + text.ljust(HEADER - 11) + b"\n")
        self.sync()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class _Packer:
    """The steps of a packing; each goes on where its state says."""

    def __init__(
        self,
        stream: GraphStream,
        folder: Path,
        kind: str,
        memory: int,
        state: _Packed,
        progress: Callable[[str], None],
    ) -> None:
        self._stream, self._folder, self._kind, self._memory = stream, folder, kind, memory
        self._state, self._progress = state, progress
        about = max(1, stream.edges_about * BYTES_AN_EDGE // memory + 1)
        state.files = state.files or min(MOST_FILES, stream.nodes, about)
        self._number = np.dtype(number_type(stream.nodes)).name
        self._unsaved = 0

    def run(self) -> None:
        """All of them."""
        self._save()
        self._small_arrays()
        self._features()
        files = EdgeFiles(self._folder, self._stream.nodes, self._state.files)
        if not self._state.thrown:
            self._throw(files)
        self._merge(files)
        self._describe()

    def _save(self, *arrays: _GrowingArray | EdgeFiles) -> None:
        for array in arrays:
            array.sync()
        write_atomic(self._folder / UNFINISHED, json.dumps(asdict(self._state)).encode())
        self._unsaved = 0

    def _small_arrays(self) -> None:
        stream = self._stream
        parts = {
            f"split.{name}.{k}.{part}": numbers
            for name, splits in stream.splits.items()
            for k, split in enumerate(splits)
            for part, numbers in zip(PARTS, split, strict=True)
        }
        for name, numbers in {"y": stream.labels, **parts}.items():
            if name in self._state.done:
                continue
            array = None
            for block in numbers():
                kind = "float32" if name == "y" and block.ndim == 2 else "int64"
                array = array or _GrowingArray(self._folder, name, kind, block.shape[1:])
                array.append(block)
            array = array or _GrowingArray(self._folder, name, "int64")
            if name == "y" and array.length != stream.nodes:
                raise DataError(f"{stream.name}: {array.length:,} labels for {stream.nodes:,} nodes")
            array.complete()
            array.close()
            self._state.done.append(name)
        self._save()

    def _features(self) -> None:
        stream, state = self._stream, self._state
        if "x" in state.done:
            return
        x = _GrowingArray(self._folder, "x", self._kind, (stream.width,), state.rows)
        scales = _GrowingArray(self._folder, "x_scale", "float32", (), state.rows) if self._kind == "int8" else None
        arrays = [x] if scales is None else [x, scales]
        try:
            for block in stream.features(state.rows) if state.rows < stream.nodes else ():
                check_finite_rows(block, state.rows, stream.name)
                stored, scale = encoded(block, self._kind, state.rows, stream.name)
                self._unsaved += x.append(stored)
                if scales is not None and scale is not None:
                    scales.append(scale)
                state.rows += len(block)
                if self._unsaved >= SAVE_EVERY:
                    self._save(*arrays)
                    self._progress(f"features of {state.rows:,} of {stream.nodes:,} nodes")
            if state.rows != stream.nodes:
                raise DataError(f"{stream.name}: features of {state.rows:,} nodes, where there are {stream.nodes:,}")
            for array in arrays:
                array.complete()
        finally:
            for array in arrays:
                array.close()
        state.done.append("x")
        self._save()

    def _throw(self, files: EdgeFiles) -> None:
        state = self._state
        loops = _GrowingArray(self._folder, "loops", self._number, (), state.loops)
        try:
            for sizes in files.fill(self._pieces(loops), state.sizes):
                self._unsaved += sum(sizes) - sum(state.sizes)
                state.pieces, state.sizes, state.loops = state.pieces + 1, sizes, loops.length
                if self._unsaved >= SAVE_EVERY:
                    self._save(files, loops)
                    self._progress(f"edges: {sum(sizes) // files.bytes_an_edge:,} read")
            if not sum(state.sizes) + state.loops:
                raise DataError(
                    f"{self._stream.name}: the graph has no edges, so there is nothing to propagate over or to drop; "
                    "check that the edge file is complete"
                )
            state.thrown = True
            self._save(files, loops)
        finally:
            loops.close()

    def _pieces(self, loops: _GrowingArray) -> Iterator[np.ndarray]:
        """Edges that are no self-loops; these are put aside."""
        nodes = self._stream.nodes
        for piece in self._stream.edges(self._state.pieces):
            outside = ((piece < 0) | (piece >= nodes)).any(axis=0)
            if outside.any():
                source, target = piece[:, int(outside.argmax())]
                raise DataError(f"{self._stream.name}: an edge {source} -> {target} points outside the {nodes:,} nodes")
            proper = piece[0] != piece[1]
            loops.append(piece[0, ~proper])
            yield piece[:, proper]

    def _merge(self, files: EdgeFiles) -> None:
        state = self._state
        if "indices" in state.done:
            return
        begun = state.targets + 1 if state.merged else 0
        pointers = _GrowingArray(self._folder, "indptr", "int64", (), begun)
        sources = _GrowingArray(self._folder, "indices", self._number, (), state.edges)
        if not begun:
            pointers.append(np.zeros(1))
        try:
            for number in range(state.merged, len(files.paths)):
                for counts, part in files.sorted(number, self._memory, self._stream.unique):
                    sources.append(part)
                    pointers.append(state.edges + counts.cumsum())
                    state.edges += len(part)
                    state.targets += len(counts)
                    self._unsaved += part.nbytes + counts.nbytes
                state.merged = number + 1
                if self._unsaved >= SAVE_EVERY or state.merged == len(files.paths):
                    self._save(pointers, sources)
                    for path in files.paths[: state.merged]:
                        path.unlink(missing_ok=True)
                    self._progress(f"edges of {state.targets:,} of {self._stream.nodes:,} nodes sorted")
            pointers.complete()
            sources.complete()
        finally:
            pointers.close()
            sources.close()
        self._put_aside()
        state.done.append("indices")
        self._save()

    def _put_aside(self) -> None:
        """Complete the self-loops, which are few; those that were thrown are there until they are complete."""
        path = self._folder / "loops.npy"
        if not path.exists():  # there were none
            return
        loops = np.fromfile(path, self._number, self._state.loops, offset=HEADER)
        loops = np.unique(loops) if self._stream.unique else loops
        array = _GrowingArray(self._folder, "loops.complete", self._number)
        array.append(loops)
        array.complete()
        array.close()
        with writing(path):
            os.replace(array.path, path)
            if not len(loops):
                path.unlink()

    def _describe(self) -> None:
        stream, arrays = self._stream, {}
        for name in (*self._state.done, *KINDS):
            path = self._folder / f"{name}.npy"
            if name not in arrays and path.exists():
                self._progress(f"checksum of {path.name}")
                array = np.load(path, mmap_mode="r") if path.stat().st_size > HEADER else np.load(path)
                arrays[name] = {"shape": list(array.shape), "dtype": array.dtype.name, "sha256": digest(path)}
        found = {
            "format": FORMAT,
            "version": VERSION,
            "key": self._state.key,
            "name": stream.name,
            "classes": stream.classes,
            "undirected": stream.undirected,
            "graphs": list(stream.graphs or (stream.nodes,)),
            "train_graphs": list(stream.train_graphs),
            "splits": {name: len(splits) for name, splits in stream.splits.items()},
            "arrays": arrays,
        }
        write_atomic(self._folder / DESCRIPTION, (json.dumps(found, indent=2) + "\n").encode())
        for path in [self._folder / UNFINISHED, *self._folder.glob("edges.*.tmp")]:
            path.unlink(missing_ok=True)
