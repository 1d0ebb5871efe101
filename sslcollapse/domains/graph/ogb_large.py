"""The two large node graphs of the Open Graph Benchmark, read from their raw files a piece at a time."""

from __future__ import annotations

import gzip
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from sslcollapse.core.errors import DataError, MissingDataError, RecipeError
from sslcollapse.core.texts import printable
from sslcollapse.core.untrusted import check_regular
from sslcollapse.domains.download import missing_files, missing_text
from sslcollapse.domains.graph.data import GraphDataset
from sslcollapse.domains.graph.stored import Sizes, check_name
from sslcollapse.domains.graph.stream import GraphStream, Numbers

PIECE = 1 << 23
"""Bytes of unpacked text, or numbers of an array, that are read at a time."""
LONGEST_LINE = 1 << 20
"""Bytes; a row of features has some thousand."""


class LargeOGBN:
    """ogbn-products and ogbn-papers100M, for ``graph pack``: from OGB's own raw files, in bounded memory.

    Edges are made undirected, each once. Labels that a file does not give are -1.

    Args:
        data_root: the data root; files in ``graph/OGB/ogbn_products`` and ``graph/OGB/ogbn_papers100M``, as they are in
            OGB's archives (``raw/`` and ``split/``). They are not downloaded.
        name: which dataset.

    Source: Hu et al. 2020, arXiv 2005.00687.
    """

    SIZES: ClassVar = {  # edges as the files list them, once each
        "ogbn-products": Sizes(2449029, 61859140, 100, 47, (196615, 39323, 2213091)),
        "ogbn-papers100M": Sizes(111059956, 1615685872, 128, 172, (1207179, 125265, 214338)),
    }
    PARTS = ("train", "valid", "test")

    def __init__(self, data_root: Path, *, name: Literal["ogbn-products", "ogbn-papers100M"]) -> None:
        check_name(name, list(self.SIZES), "OGB")
        self.data_root, self.name, self.sizes = Path(data_root).expanduser(), name, self.SIZES[name]
        self.root = self.data_root / "graph" / "OGB" / name.replace("-", "_")
        self._binary = name == "ogbn-papers100M"

    @property
    def num_features(self) -> int:
        """Width of the node features, known without reading."""
        return self.sizes.features

    def files(self) -> list[Path]:
        """The raw files that are read."""
        raw = (
            ["data.npz", "node-label.npz"] if self._binary else ["edge.csv.gz", "node-feat.csv.gz", "node-label.csv.gz"]
        )
        split = "time" if self._binary else "sales_ranking"
        return [
            *(self.root / "raw" / file for file in raw),
            *(self.root / "split" / split / f"{part}.csv.gz" for part in self.PARTS),
        ]

    def describe(self) -> str:
        """One line for a dry run."""
        missing = len(missing_files(self.files()))
        state = f"{missing} of {len(self.files())} files missing" if missing else "all files there"
        return f"OGB {self.name}: {self.sizes}, to be packed; in {self.root} ({state})"

    def load(self) -> GraphDataset:
        """Refused: parsing it for every run would take hours, and much memory."""
        raise RecipeError(
            f"domain.dataset: {self.name} is trained on from disk; write it once with: sslcollapse graph pack RECIPE "
            'DIR, then use domain.dataset={"type": "stored", "path": "DIR"}'
        )

    def stream(self) -> GraphStream:
        """The graph, a piece at a time.

        Raises:
            MissingDataError: a file is not there.
        """
        missing = missing_files(self.files())
        if missing:
            raise MissingDataError(
                f"OGB {self.name} was not found; it is not downloaded here, get its archive from OGB. "
                f"{missing_text(missing, self.data_root, 'recipes/quickstart.py')}"
            )
        edges, features, labels = self._arrays() if self._binary else self._tables()
        parts = [self._numbers(file) for file in self.files()[-3:]]
        return GraphStream(
            name=f"OGB {self.name}",
            classes=self.sizes.classes,
            nodes=self.sizes.nodes,
            width=self.sizes.features,
            features=features,
            labels=labels,
            edges=edges,
            edges_about=2 * self.sizes.edges,
            splits={"public": [(parts[0], parts[1], parts[2])]},
            undirected=True,
            unique=True,
        )

    def _tables(self) -> tuple[Any, Any, Numbers]:
        """Edges, features and labels of text files."""
        edge, feature, label = self.files()[:3]

        def edges(skip: int) -> Iterator[np.ndarray]:
            listed = 0
            for number, (count, rows) in enumerate(_table(edge, 2, np.int64)):
                listed += count
                if number >= skip:
                    yield both_ways(rows().T)
            self._check_edges(listed, edge)

        def features(start: int) -> Iterator[np.ndarray]:
            row = 0
            for count, rows in _table(feature, self.sizes.features, np.float32):
                if row + count > start:
                    yield rows()[max(0, start - row) :]
                row += count

        return edges, features, lambda: (classes_of(rows(), label) for _, rows in _table(label, 1, np.float32))

    def _arrays(self) -> tuple[Any, Any, Numbers]:
        """Edges, features and labels of packed arrays."""
        data, label = self.files()[:2]

        def edges(skip: int) -> Iterator[np.ndarray]:
            with _member(data, "edge_index") as source, _member(data, "edge_index") as target:
                shape = source.shape
                if len(shape) != 2 or shape[0] != 2 or source.kind != "i":
                    raise DataError(f"{data}: edge_index is {list(shape)}, where [2, E] whole numbers should be")
                self._check_edges(shape[1], data)
                pieces = range(skip * PIECE, shape[1], PIECE)
                source.go(skip * PIECE)
                target.go(shape[1] + skip * PIECE)
                for start in pieces:
                    count = min(PIECE, shape[1] - start)
                    yield both_ways(np.stack([source.take(count), target.take(count)]).astype(np.int64))

        def features(start: int) -> Iterator[np.ndarray]:
            with _member(data, "node_feat") as x:
                self._check_rows(x, self.sizes.features, data)
                x.go(start * x.shape[1])
                rows = max(1, PIECE // x.shape[1])
                for row in range(start, x.shape[0], rows):
                    count = min(rows, x.shape[0] - row)
                    yield x.take(count * x.shape[1]).reshape(count, -1).astype(np.float32)

        def labels() -> Iterator[np.ndarray]:
            with _member(label, "node_label") as y:
                self._check_rows(y, 1, label)
                for row in range(0, y.shape[0], PIECE):
                    yield classes_of(y.take(min(PIECE, y.shape[0] - row)), label)

        return edges, features, labels

    def _numbers(self, file: Path) -> Numbers:
        """Nodes of a part of the split, sorted."""

        def numbers() -> Iterator[np.ndarray]:
            pieces = [rows().ravel() for _, rows in _table(file, 1, np.int64)]
            yield np.sort(np.concatenate([np.zeros(0, np.int64), *pieces]))

        return numbers

    def _check_edges(self, listed: int, file: Path) -> None:
        if listed != self.sizes.edges:  # a text that was cut between two lines parses well
            raise DataError(f"{file}: lists {listed:,} edges instead of {self.sizes.edges:,}; it is incomplete")

    def _check_rows(self, array: _Member, width: int, file: Path) -> None:
        if array.shape != (self.sizes.nodes, width):
            raise DataError(f"{file}: an array of {list(array.shape)} instead of {[self.sizes.nodes, width]}")


def both_ways(edges: np.ndarray) -> np.ndarray:
    """Edges [2, e] and their reverse."""
    return np.concatenate([edges, edges[::-1]], axis=1)


def classes_of(values: np.ndarray, file: Path) -> np.ndarray:
    """Whole numbers, -1 where a label is not a number."""
    flat = values.ravel()
    known = ~np.isnan(flat)
    labels = np.full(len(flat), -1, np.int64)
    labels[known] = flat[known]
    if (labels[known] != flat[known]).any():
        raise DataError(f"{file}: a label is no whole number")
    return labels


def _table(file: Path, width: int, kind: Any) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
    """Pieces of a packed table of numbers: how many rows, and what parses them [n, width]."""
    for block in _lines(file):

        def rows(block: bytes = block) -> np.ndarray:
            with _explained(file), warnings.catch_warnings():
                warnings.simplefilter("error")
                found = np.loadtxt(block.decode("ascii").splitlines(), dtype=kind, delimiter=",", ndmin=2)
                if found.shape[1] != width:
                    raise ValueError(f"{found.shape[1]} columns instead of {width}")
                return found

        yield block.count(b"\n"), rows


def _lines(file: Path) -> Iterator[bytes]:
    """Pieces of a packed text, of whole lines each with its end; always the same ones."""
    check_regular(file)
    rest = b""
    with gzip.open(file) as stream:
        while True:
            with _explained(file):
                piece = stream.read(PIECE)
            if not piece:
                break
            whole, end, begun = (rest + piece).rpartition(b"\n")
            if len(begun) > LONGEST_LINE:
                raise DataError(f"{file}: a line of more than {LONGEST_LINE:,} bytes; it is not the dataset's")
            rest = begun
            if end:
                yield whole + end
    if rest:
        yield rest + b"\n"


class _Member:
    """An array in an ``.npz`` file, of which so many numbers are read at a time."""

    def __init__(self, stream: Any, place: str) -> None:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        header: tuple[tuple[int, ...], bool, Any] = read(stream) if read else ((), True, np.dtype(object))
        self.shape, fortran, self._type = header
        self.kind, self._stream, self._place, self._begin = self._type.kind, stream, place, stream.tell()
        if self.kind not in "if" or (fortran and len(self.shape) > 1):
            raise DataError(f"{place}: an array of {self._type} that is not read; get the file again")

    def go(self, number: int) -> None:
        """Go on with the number of this position."""
        self._stream.seek(self._begin + number * self._type.itemsize)

    def take(self, count: int) -> np.ndarray:
        """The next so many numbers."""
        data = self._stream.read(count * self._type.itemsize)
        if len(data) != count * self._type.itemsize:
            raise EOFError(f"{self._place} ends early")
        return np.frombuffer(data, self._type)


@contextmanager
def _member(file: Path, name: str) -> Iterator[_Member]:
    check_regular(file)
    with _explained(file), zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
        yield _Member(stream, f"{file}, array {name!r}")


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """What a damaged file makes of its reader, in a sentence."""
    try:
        yield
    except DataError:
        raise
    except (ValueError, EOFError, KeyError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile, Warning) as error:
        raise DataError(
            f"{file}: truncated or corrupt ({printable(str(error))}); put the file there again, then give the same "
            "command again"
        ) from error
