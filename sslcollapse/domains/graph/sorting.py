"""Edges sorted by target in bounded memory: thrown into files by ranges of targets, then sorted file by file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path

import numpy as np

from sslcollapse.core.files import writing

BYTES_AN_EDGE = 48
"""Of memory while a file of edges is sorted, at most."""
MOST_FILES = 256


def number_type(nodes: int) -> type[np.signedinteger]:
    """The smallest type that numbers of nodes fit into."""
    return np.int32 if nodes <= 2**31 else np.int64


def write_all(file: FileIO, numbers: np.ndarray) -> None:
    """Write the bytes of an array to a file without a buffer, which may take a part of them at a time."""
    rest = np.ascontiguousarray(numbers).reshape(-1).view(np.uint8).data
    while len(rest):
        rest = rest[file.write(rest) :]


class EdgeFiles:
    """Files of edges, one for each range of targets, in the order in which the edges came.

    Args:
        folder: where the files are.
        nodes: targets are below this number.
        files: how many ranges of equal length.
        first: number of the first target.
    """

    def __init__(self, folder: Path, nodes: int, files: int, first: int = 0) -> None:
        self._kind = np.dtype(number_type(first + nodes))
        self.bytes_an_edge = 2 * self._kind.itemsize
        self.first, self._end = first, first + nodes
        self._width = max(1, -(-nodes // files))
        self.ranges = [
            (start, min(start + self._width, self._end)) for start in range(first, first + nodes, self._width)
        ]
        self.paths = [folder / f"edges.{start}.{end}.tmp" for start, end in self.ranges]

    def fill(self, pieces: Iterator[np.ndarray], sizes: Sequence[int] | None = None) -> Iterator[list[int]]:
        """Append pieces of edges [2, e] to files that have these sizes, or none; yields the sizes after each piece."""
        with ExitStack() as stack:
            files = [
                stack.enter_context(open(path, "r+b" if path.exists() else "w+b", buffering=0)) for path in self.paths
            ]
            for file, size in zip(files, sizes or [0] * len(files), strict=True):
                file.truncate(size)
                file.seek(size)
            for source, target in pieces:
                number = ((target - self.first) // self._width).astype(np.uint16)
                order = np.argsort(number, kind="stable")
                pairs = np.empty((len(order), 2), self._kind)
                pairs[:, 0], pairs[:, 1] = target[order], source[order]
                ends = np.bincount(number, minlength=len(files)).cumsum()
                with writing(self.paths[0].parent):
                    for file, part in zip(files, np.split(pairs, ends[:-1]), strict=True):
                        write_all(file, part)
                yield [file.tell() for file in files]

    def sync(self) -> None:
        """Wait until all files are on disk."""
        for path in self.paths:
            with writing(path), open(path, "rb") as file:
                os.fsync(file.fileno())

    def sorted(self, number: int, memory: int, unique: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Edges of one file by target: how many each of some targets has, in order, and their sources.

        Sources of a target are in the order in which they came; with ``unique`` in that of their numbers, each once.
        """
        (start, end), path = self.ranges[number], self.paths[number]
        edges = path.stat().st_size // self.bytes_an_edge
        most = max(1, memory // BYTES_AN_EDGE)
        if edges > most and end - start > 1:
            finer = EdgeFiles(path.parent, end - start, min(end - start, MOST_FILES, 2 * -(-edges // most)), start)
            for _ in finer.fill(self._read(path, most)):
                pass
            for k, part in enumerate(finer.paths):
                yield from finer.sorted(k, memory, unique)
                part.unlink()
            return
        pairs = np.fromfile(path, self._kind).reshape(-1, 2)
        target, source = pairs[:, 0].astype(np.int64) - start, pairs[:, 1]
        if not unique:
            yield np.bincount(target, minlength=end - start), source[_sorted_pairs(target, np.arange(edges))[1]]
            return
        target, source = _sorted_pairs(target, source)
        new = np.ones(edges, dtype=bool)
        new[1:] = (target[1:] != target[:-1]) | (source[1:] != source[:-1])
        yield np.bincount(target[new], minlength=end - start), source[new].astype(self._kind)

    def _read(self, path: Path, most: int) -> Iterator[np.ndarray]:
        with open(path, "rb") as file:
            while len(values := np.fromfile(file, self._kind, 2 * most)):
                yield values.reshape(-1, 2).T[::-1]


def _sorted_pairs(target: np.ndarray, then: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of numbers >= 0, sorted by the first, then by the second; as one number each, which sorts far faster."""
    bits = int(then.max(initial=0)).bit_length()
    if bits + int(target.max(initial=0)).bit_length() > 63:
        order = np.lexsort((then, target))
        return target[order], then[order]
    keys = target << bits | then
    keys.sort()
    return keys >> bits, keys & ((1 << bits) - 1)
