"""The graph dataset ``stored``: a folder of arrays that are mapped into memory, and a description of them.

``pack`` writes such a folder; this is the one place that reads it. Opening reads the description and the headers alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import DataError, MissingDataError, RecipeError
from sslcollapse.core.texts import printable
from sslcollapse.core.types import Split
from sslcollapse.core.untrusted import check_arrays, check_regular, read_regular
from sslcollapse.domains.graph.data import Graph, GraphDataset
from sslcollapse.domains.graph.mapped import MappedFeatures, MappedGraph, MappedStructure
from sslcollapse.domains.graph.neighbours import InEdges

FORMAT, VERSION = "sslcollapse graph", 1
DESCRIPTION, UNFINISHED = "graph.json", "packing.json"
"""Files of a folder that is complete, and of one that is not."""

PARTS = ("train", "validation", "test")
KINDS = {
    "indptr": ("int64",),
    "indices": ("int32", "int64"),
    "loops": ("int32", "int64"),
    "x": ("float32", "float16", "int8"),
    "x_scale": ("float32",),
    "y": ("int64", "float32"),
}
"""Array → the types that it may have; splits are int64."""

AT_ONCE = 1 << 26
"""Bytes of a file that are looked at at a time where all of it is checked; a multiple of the size of a number."""


class Description(NamedTuple):
    """What ``graph.json`` says.

    Attributes:
        graphs: number of nodes of each graph; arrays have the nodes of all in order, and number them so.
        splits: name → how many divisions.
        arrays: name → shape, type and SHA-256 of the file.
    """

    name: str
    classes: int
    undirected: bool
    graphs: tuple[int, ...]
    train_graphs: tuple[int, ...]
    splits: Mapping[str, int]
    arrays: Mapping[str, tuple[tuple[int, ...], str, str]]


class PackedGraph:
    """A graph that was written by ``sslcollapse graph pack`` and stays on disk while it is trained on.

    Args:
        data_root: relative paths are looked for below it.
        path: of the folder.
    """

    def __init__(self, data_root: Path, *, path: str) -> None:
        if not path:
            raise RecipeError("path: names no folder")
        self.folder = Path(data_root) / Path(path).expanduser()
        self.given = path

    @property
    def num_features(self) -> int:
        """Width of the node features, as the description says it."""
        return self.description.arrays["x"][0][1]

    @cached_property
    def description(self) -> Description:
        """What the folder says that it holds.

        Raises:
            MissingDataError: there is none.
            DataError: another version, or not as ``graph pack`` writes it.
        """
        path = self.folder / DESCRIPTION
        if not path.exists():
            if (self.folder / UNFINISHED).exists():
                raise DataError(
                    f"{self.folder}: a graph that was not packed to its end; give the same `sslcollapse graph pack` "
                    "command again, which goes on where it stopped"
                )
            here = Path(self.given).expanduser().resolve()
            found = (here / DESCRIPTION).exists()
            raise MissingDataError(
                f"{self.folder}: holds no stored graph ({DESCRIPTION} is not there); "
                + (
                    f"a relative path is one below the data root, and {here} holds one: give that path"
                    if found
                    else f"write it with: sslcollapse graph pack RECIPE {self.folder}"
                )
            )
        try:
            return _described(json.loads(read_regular(path)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{path}: {printable(str(error)) if type(error) is ValueError else 'not as graph pack writes it'}; "
                "pack the graph again"
            ) from error

    def files(self) -> list[Path]:
        """The description and the arrays."""
        return [self.folder / DESCRIPTION, *(self._file(name) for name in self.description.arrays)]

    def describe(self) -> str:
        """One line for a dry run."""
        found = self.description
        edges = found.arrays["indices"][0][0] + found.arrays.get("loops", ((0,), "", ""))[0][0]
        return (
            f"{printable(found.name)}, stored: {sum(found.graphs):,} nodes, {edges:,} edges, {self.num_features} "
            f"features ({found.arrays['x'][1]}), {found.classes} classes; in {self.folder}"
        )

    def load(self) -> GraphDataset:
        """Map the arrays; of them only where nodes begin and end is looked at.

        Raises:
            MissingDataError, DataError: a file is missing, truncated or of another type than the description says.
        """
        found = self.description
        arrays = {name: self._mapped(name, shape, kind) for name, (shape, kind, _) in found.arrays.items()}
        self._check_shapes(arrays)
        graphs, start = [], 0
        for nodes in found.graphs:
            graphs.append(self._graph(arrays, start, start + nodes))
            start += nodes
        splits = {
            name: tuple(Split(*(arrays[f"split.{name}.{k}.{part}"] for part in PARTS)) for k in range(count))
            for name, count in found.splits.items()
        }
        return GraphDataset(found.name, tuple(graphs), found.classes, splits, found.train_graphs)

    def verify(self, progress: Callable[[str], None] = lambda text: None) -> None:
        """Read everything once and compare it with its checksums; look that numbers are where they may be.

        Raises:
            MissingDataError, DataError: names the file, and the first number that is wrong.
        """
        dataset, found = self.load(), self.description
        for name, (_, _, expected) in found.arrays.items():
            progress(f"{name}.npy")
            if digest(self._file(name)) != expected:
                raise DataError(
                    f"{self._file(name)}: its checksum is not the one that it was packed with: it was changed or "
                    "damaged since; copy it again, or pack the graph again"
                )
        arrays = {name: self._mapped(name, shape, kind) for name, (shape, kind, _) in found.arrays.items()}
        nodes, edges = sum(found.graphs), len(arrays["indices"])
        self._check_numbers("indptr", arrays["indptr"], 0, edges + 1)
        for start in range(0, nodes, AT_ONCE // 8):
            if (np.diff(arrays["indptr"][start : start + AT_ONCE // 8 + 1]) < 0).any():
                raise DataError(f"{self._file('indptr')}: goes down after node {start}; pack the graph again")
        for name in found.arrays:
            if name in ("indices", "loops") or name.startswith("split."):
                self._check_numbers(name, arrays[name], 0, nodes)
        if not dataset.multilabel:
            self._check_numbers("y", arrays["y"], -1, found.classes)
        for name in ("x", "x_scale"):
            if name in arrays and found.arrays[name][1] != "int8":
                for row, block in _blocks(arrays[name]):
                    check_finite_rows(block, row, str(self._file(name)))

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _mapped(self, name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
        path = self._file(name)
        if not path.exists():
            raise MissingDataError(f"{path}: is not there, but {DESCRIPTION} names it; copy it again")
        try:
            check_arrays(path)
            if math.prod(shape) == 0:  # which cannot be mapped
                array = np.load(path, allow_pickle=False)
            else:
                array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except DataError:
            raise
        except (ValueError, OSError, EOFError) as error:
            why = printable(str(error)).removeprefix(f"{path}: ")
            raise DataError(f"{path}: truncated or damaged ({why}); copy it again") from error
        if array.shape != shape or array.dtype.name != kind or not array.flags.c_contiguous:
            raise DataError(
                f"{path}: holds {array.dtype.name} {list(array.shape)}, and {DESCRIPTION} says {kind} {list(shape)}; "
                "the files of two graphs were mixed, copy them again"
            )
        return array

    def _check_shapes(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Whether arrays fit each other; raises DataError."""
        nodes, pointers = sum(self.description.graphs), arrays["indptr"]
        wrong = [
            name
            for name, fits in (
                ("indptr", pointers.shape == (nodes + 1,) and pointers[0] == 0),
                ("indices", arrays["indices"].shape == (int(pointers[-1]),)),
                ("x", arrays["x"].ndim == 2 and len(arrays["x"]) == nodes),
                ("y", arrays["y"].ndim in (1, 2) and len(arrays["y"]) == nodes),
                ("y", (arrays["y"].ndim == 2) == (arrays["y"].dtype == np.float32)),
                ("x_scale", ("x_scale" in arrays) == (arrays["x"].dtype == np.int8)),
                ("x_scale", "x_scale" not in arrays or arrays["x_scale"].shape == (nodes,)),
            )
            if not fits
        ]
        if wrong:
            raise DataError(f"{self._file(wrong[0])}: does not fit a graph of {nodes:,} nodes; pack the graph again")

    def _graph(self, arrays: Mapping[str, np.ndarray], start: int, end: int) -> Graph:
        """The nodes from one number to another, which are a graph of their own."""
        tensors = {name: _tensor(array) for name, array in arrays.items() if not name.startswith("split.")}
        pointers, sources, loops = tensors["indptr"], tensors["indices"], tensors.get("loops")
        if (start, end) != (0, len(pointers) - 1):  # of several graphs, which together are small
            pointers = pointers[start : end + 1]
            sources = sources[int(pointers[0]) : int(pointers[-1])] - start
            pointers = pointers - pointers[0]
            loops = None if loops is None else loops[(loops >= start) & (loops < end)] - start
        scale = tensors["x_scale"][start:end] if "x_scale" in tensors else None
        features = MappedFeatures(tensors["x"][start:end], scale, name=str(self.folder))
        structure = MappedStructure(InEdges(pointers, sources), loops, str(self.folder))
        return MappedGraph(features, structure, tensors["y"][start:end])

    def _check_numbers(self, name: str, numbers: np.ndarray, low: int, end: int) -> None:
        for start, block in _blocks(numbers):
            outside = (block < low) | (block >= end)
            if outside.any():
                first = int(outside.argmax())
                raise DataError(
                    f"{self._file(name)}: has {block[first]} at position {start + first}, where numbers are from {low} "
                    f"to {end - 1}; pack the graph again"
                )


def check_finite_rows(block: np.ndarray, start: int, place: str) -> None:
    """Refuse a NaN or infinite number in rows of features, the first of which has this number.

    Raises:
        DataError: names the row and the column.
    """
    if np.isfinite(block).all():
        return
    row, *column = first = tuple(int(n) for n in np.argwhere(~np.isfinite(block))[0])
    where = f"row {start + row}" + (f", column {column[0]}" if column else "")
    raise DataError(
        f"{place}: {block[first]} at {where}; NaN or infinite features cannot be trained on: repair or replace them"
    )


def digest(path: Path) -> str:
    """SHA-256 of a file, read a piece at a time."""
    check_regular(path)
    summed = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 22):
            summed.update(piece)
    return summed.hexdigest()


def _blocks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of a mapped array, and the number of the first, a piece at a time."""
    rows = max(1, AT_ONCE // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def _tensor(array: np.ndarray) -> Tensor:
    with warnings.catch_warnings():  # that it must not be written to, which nobody does
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _described(found: Any) -> Description:
    """Raises whatever comes of something else than ``graph pack`` writes; a ValueError with a message says what."""
    if found["format"] != FORMAT:
        raise ValueError("describes no stored graph")
    if found["version"] != VERSION:
        raise ValueError(
            f"has version {found['version']!r:.20} of the format, and this version of sslcollapse reads {VERSION}"
        )
    arrays = {
        name: (_sizes(entry["shape"]), str(entry["dtype"]), str(entry["sha256"]))
        for name, entry in found["arrays"].items()
    }
    splits = {str(name): _sizes([count])[0] for name, count in found["splits"].items()}
    if len(PARTS) * sum(splits.values()) > len(arrays):
        raise ValueError("has more splits than arrays")
    parts = [f"split.{name}.{k}.{part}" for name, count in splits.items() for k in range(count) for part in PARTS]
    wanted: dict[str, tuple[str, ...]] = dict.fromkeys(parts, ("int64",))
    wanted |= {name: kinds for name, kinds in KINDS.items() if name not in ("loops", "x_scale") or name in arrays}
    if missing := sorted(wanted.keys() - arrays.keys()):
        raise ValueError(f"names no array {missing[0]!r}")
    for name, (_, kind, _) in arrays.items():
        if name not in wanted or not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"names an array {name!r:.80}, which graphs do not have")
        if kind not in wanted[name]:
            raise ValueError(f"says that {name} is {kind:.20}, which is none of {', '.join(wanted[name])}")
    graphs, chosen = _sizes(found["graphs"]), _sizes(found["train_graphs"])
    if not graphs or not chosen or max(chosen) >= len(graphs) or len(arrays["x"][0]) != 2:
        raise ValueError("describes no graph to train on")
    return Description(
        str(found["name"]), _sizes([found["classes"]])[0], bool(found["undirected"]), graphs, chosen, splits, arrays
    )


def _sizes(values: Sequence[Any]) -> tuple[int, ...]:
    if not all(type(value) is int and 0 <= value < 1 << 48 for value in values):
        raise ValueError(f"has {str(values)[:40]} where whole numbers should be")
    return tuple(values)
