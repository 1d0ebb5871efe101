"""Graphs that stay on disk: arrays that are mapped into memory, of which a step reads the rows that it has.

Whoever samples or walks over a graph takes a view's ``InEdges.of(structure)`` and ``features.rows(nodes)``, which read
no more than they are asked for. What needs a whole graph makes it, where this machine's memory has room for it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.errors import DataError, RunError, in_units
from sslcollapse.core.memory import machine_memory
from sslcollapse.domains.graph.data import Graph
from sslcollapse.domains.graph.neighbours import InEdges
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView

ROWS_AT_ONCE = 1 << 24
"""Numbers of features that are converted at a time where all of them are made."""


class MappedFeatures(Features):
    """Node features [N, F] as they are stored, with an optional column mask [F]; float32 wherever they are read.

    Args:
        stored: of float32, float16 or int8; never written to.
        scale: of int8 features, what each row is multiplied by.
        mask: see ``Features``.
        name: of the graph, for messages.

    Shapes:
        stored: [N, F].
        scale: [N] float32.
    """

    def __init__(
        self, stored: Tensor, scale: Tensor | None = None, mask: Tensor | None = None, name: str = "the graph"
    ) -> None:
        self.stored, self.scale, self.mask, self._name = stored, scale, mask, name

    @property
    def shape(self) -> tuple[int, int]:
        """(N, F)."""
        return (self.stored.shape[0], self.stored.shape[1])

    @property
    def sparse(self) -> bool:
        """Never."""
        return False

    @property
    def dtype(self) -> torch.dtype:
        """Of the values that are read."""
        return torch.float32

    @cached_property
    def _x(self) -> Tensor:  # type: ignore[override]  # what ``Features`` reads where all rows are needed
        rows, width = self.shape
        check_whole(4 * rows * width, self._name, "features of all nodes")
        if self.stored.dtype == torch.float32:
            return self.stored
        x = torch.empty(rows, width)
        step = max(1, ROWS_AT_ONCE // max(1, width))
        for start in range(0, rows, step):
            x[start : start + step] = self._read(slice(start, start + step))
        return x

    def rows(self, index: Tensor) -> Features:
        """Those of some nodes [n], in memory: [n, F]."""
        return Features(self._read(index), self.mask)

    def first(self, nodes: int) -> Features:
        """Those of the first nodes, in memory."""
        return Features(self._read(slice(nodes)), self.mask)

    def masked(self, mask: Tensor | None) -> Features:
        """The same features under another column mask."""
        return MappedFeatures(self.stored, self.scale, mask, self._name)

    def to(self, device: torch.device) -> Features:
        """The same features on the host; on another device all of them are in its memory."""
        return self if device.type == "cpu" else super().to(device)

    def _read(self, index: Tensor | slice) -> Tensor:
        x = self.stored[index] if isinstance(index, slice) else self.stored.index_select(0, index)  # which is faster
        x = x.float()
        return x if self.scale is None else x.mul_(self.scale[index, None])


class MappedStructure(GraphStructure):
    """The edges of a graph as they are stored: by target, without self-loops, which are kept beside them.

    Args:
        in_edges: of each node, as stored; a node without any has none.
        loops: nodes with an edge to themselves, as often as they have it.
        name: of the graph, for messages.

    ``edge_index`` is made where it is read, sorted by target, self-loops last.
    """

    in_edges: InEdges

    def __init__(self, in_edges: InEdges, loops: Tensor | None = None, name: str = "the graph") -> None:
        self.in_edges, self.loops, self._name = in_edges, loops, name
        self.num_nodes, self.graph_index = len(in_edges.pointers) - 1, None

    @cached_property
    def edge_index(self) -> Tensor:  # type: ignore[override]
        """[2, E] all edges, in memory."""
        count = len(self.in_edges.sources)
        check_whole(16 * count, self._name, "a list of all edges")
        target = torch.repeat_interleave(torch.arange(self.num_nodes), self.in_edges.pointers.diff())
        edges = torch.stack([self.in_edges.sources.long(), target])
        return edges if self.loops is None else torch.cat([edges, self.loops.long().repeat(2, 1)], dim=1)

    def to(self, device: torch.device) -> GraphStructure:
        """The same structure on the host; on another device all edges are in its memory."""
        return self if device.type == "cpu" else super().to(device)


class MappedGraph(Graph):
    """One graph that stays on disk.

    Args:
        features: of the nodes.
        structure: its edges.
        y: labels, mapped as well.

    Shapes:
        y: see ``Graph``.
    """

    def __init__(self, features: MappedFeatures, structure: MappedStructure, y: Tensor) -> None:
        self.__dict__.update(y=y, _features=features, _structure=structure)  # the fields of a ``Graph`` are frozen

    @property
    def x(self) -> Tensor:  # type: ignore[override]
        """[N, F] all features, in memory."""
        return self.view().x

    @property
    def edge_index(self) -> Tensor:  # type: ignore[override]
        """[2, E] all edges, in memory."""
        return self.view().structure.edge_index

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.view().num_nodes

    @property
    def num_features(self) -> int:
        """F."""
        return self.view().features.shape[1]

    @property
    def num_edges(self) -> int:
        """E."""
        structure: MappedStructure = self.__dict__["_structure"]
        return len(structure.in_edges.sources) + (0 if structure.loops is None else len(structure.loops))

    def view(self) -> GraphView:
        """The graph as it is; nothing of it is read."""
        return GraphView(self.__dict__["_structure"], self.__dict__["_features"])

    def check_whole(self) -> None:
        """Refuse to make all of it where memory has no room for it; raises as ``check_whole``."""
        needed = 4 * self.num_nodes * self.num_features + 16 * self.num_edges
        check_whole(needed, self.__dict__["_features"]._name, "all of it")

    def __deepcopy__(self, memo: Any) -> MappedGraph:
        return self  # a copy would be in memory, and nobody writes to it


class StoreFeatures(MappedFeatures):
    """Node features [N, F] in a ``FeatureStore`` of PyTorch Geometric, which is asked for the rows of a step.

    Args:
        store: where they are.
        mask: see ``Features``.
        attribute: which they are there: ``attr_name="x"``, and ``group_name`` where the store has several.
    """

    def __init__(self, store: Any, mask: Tensor | None = None, **attribute: Any) -> None:
        self.mask, self._store, self._attribute, self._name = mask, store, attribute, "features of a store"
        size = store.get_tensor_size(**attribute, index=None)
        if size is None or len(size) != 2:
            raise DataError(f"features {attribute} of {type(store).__name__} are {size}, where [N, F] should be")
        self._size = (int(size[0]), int(size[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """(N, F)."""
        return self._size

    @cached_property
    def _x(self) -> Tensor:  # type: ignore[override]
        check_whole(4 * self.shape[0] * self.shape[1], self._name, "features of all nodes")
        return torch.as_tensor(self._store.get_tensor(**self._attribute, index=None)).float()

    def masked(self, mask: Tensor | None) -> Features:
        """The same features under another column mask."""
        return StoreFeatures(self._store, mask, **self._attribute)

    def _read(self, index: Tensor | slice) -> Tensor:
        rows = torch.arange(self.shape[0])[index] if isinstance(index, slice) else index.long()
        return torch.as_tensor(self._store.get_tensor(**self._attribute, index=rows)).float()


def graph_of_stores(features: Any, edges: Any, y: Tensor, **attribute: Any) -> MappedGraph:
    """A graph in the stores of PyTorch Geometric, for the ``load`` of a dataset of one's own.

    The graph store is asked once for all edges by target, which it may hold so; the feature store in each step for the
    rows of its nodes.

    Args:
        features: a ``FeatureStore``.
        edges: a ``GraphStore`` with one type of edges.
        y: labels, see ``Graph``.
        attribute: which features; ``attr_name="x"`` where nothing is said.

    Raises:
        DataError: no features [N, F], several types of edges, or edges of another number of nodes.
    """
    x = StoreFeatures(features, **(attribute or {"attr_name": "x"}))
    row, pointers, _ = edges.csc()
    if isinstance(row, dict):
        if len(row) != 1:
            raise DataError(f"a graph store with {len(row)} types of edges, where one should be")
        (row,), (pointers,) = row.values(), pointers.values()
    if len(pointers) - 1 != x.shape[0]:
        raise DataError(f"a graph store with edges of {len(pointers) - 1:,} nodes, and features of {x.shape[0]:,}")
    target = torch.repeat_interleave(torch.arange(x.shape[0]), pointers.diff())
    loops, kept = row[row == target], row != target
    if len(loops):  # which ``InEdges`` has not
        pointers = torch.cat([pointers.new_zeros(1), torch.bincount(target[kept], minlength=x.shape[0]).cumsum(0)])
        row = row[kept]
    structure = MappedStructure(InEdges(pointers.long(), row), loops if len(loops) else None, "edges of a store")
    return MappedGraph(x, structure, y)


def check_whole(needed: int, name: str, what: str) -> None:
    """Refuse to read all of a stored graph into memory where there is too little of it.

    Raises:
        RunError: says what needs how many bytes, and what to do.
    """
    if needed > machine_memory():
        raise RunError(
            f"{name}: {what} at once needs at least {in_units(needed)} of memory, and this machine has "
            f"{in_units(machine_memory())}; train with domain.batching of type 'neighbours' or 'parts'"
        )
