"""A graph that is given a piece at a time, so that it need not fit into memory to be written to disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from sslcollapse.core.errors import DataError
from sslcollapse.core.types import Split
from sslcollapse.domains.graph.data import Graph, GraphDataset

BLOCK = 1 << 22
"""Numbers of features, or edges, that a graph in memory gives at a time."""

Numbers = Callable[[], Iterator[np.ndarray]]
"""Gives an array a piece at a time, from its begin on."""


@dataclass(frozen=True)
class GraphStream:
    """A graph that is given a piece at a time, always the same pieces.

    Args:
        name: as shown to people.
        classes: or labels of a multi-label graph.
        nodes: of all graphs together, which number them in order.
        width: of the features.
        features: pieces [n, F] of the features from a row on.
        labels: pieces of y, see ``Graph``.
        edges: pieces [2, e] of the edges (source, target), from a piece of this number on.
        edges_about: how many edges there are, roughly.
        splits: name → divisions into train, validation and test.
        undirected: whether an edge comes in both directions.
        unique: whether an edge that comes more than once is one edge; sources are then stored in their order.
        graphs: nodes of each graph; () for one graph.
        train_graphs: see ``GraphDataset``.
    """

    name: str
    classes: int
    nodes: int
    width: int
    features: Callable[[int], Iterator[np.ndarray]]
    labels: Numbers
    edges: Callable[[int], Iterator[np.ndarray]]
    edges_about: int
    splits: Mapping[str, Sequence[tuple[Numbers, Numbers, Numbers]]]
    undirected: bool
    unique: bool = False
    graphs: tuple[int, ...] = ()
    train_graphs: tuple[int, ...] = (0,)


@runtime_checkable
class Streamed(Protocol):
    """A dataset that need not be in memory to be packed."""

    def stream(self) -> GraphStream:
        """The graph, a piece at a time."""
        ...


def stream_of(dataset: GraphDataset) -> GraphStream:
    """A dataset that is in memory, as a stream."""
    sizes = tuple(graph.num_nodes for graph in dataset.graphs)
    starts = np.cumsum([0, *sizes]).tolist()
    rows = max(1, BLOCK // max(1, dataset.num_features))

    def features(start: int) -> Iterator[np.ndarray]:
        for graph, first in zip(dataset.graphs, starts, strict=False):
            for row in range(max(0, start - first), graph.num_nodes, rows):
                index = torch.arange(row, min(row + rows, graph.num_nodes))
                yield graph.view().features.rows(index).dense.numpy()

    def edges(skip: int) -> Iterator[np.ndarray]:
        pieces = (
            (graph.edge_index[:, k : k + BLOCK], first)
            for graph, first in zip(dataset.graphs, starts, strict=False)
            for k in range(0, graph.num_edges, BLOCK)
        )
        yield from (piece.numpy() + first for piece, first in islice(pieces, skip, None))

    return GraphStream(
        name=dataset.name,
        classes=dataset.num_classes,
        nodes=starts[-1],
        width=dataset.num_features,
        features=features,
        labels=lambda: (graph.y.numpy() for graph in dataset.graphs),
        edges=edges,
        edges_about=sum(graph.num_edges for graph in dataset.graphs),
        splits={name: [parts_of(split) for split in splits] for name, splits in dataset.splits.items()},
        undirected=all(_is_undirected(graph) for graph in dataset.graphs),
        graphs=sizes,
        train_graphs=dataset.train_graphs,
    )


def parts_of(split: Split) -> tuple[Numbers, Numbers, Numbers]:
    """A split that is in memory, as a stream has it."""
    return lambda: iter([split.train]), lambda: iter([split.validation]), lambda: iter([split.test])


def _is_undirected(graph: Graph) -> bool:
    source, target = graph.edge_index
    forth, back = source * graph.num_nodes + target, target * graph.num_nodes + source
    return torch.equal(forth.sort().values, back.sort().values)


def encoded(block: np.ndarray, kind: str, start: int, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows of features as they are stored, and their scales; raises DataError where float16 cannot hold them."""
    if kind == "int8":
        scale = (np.abs(block).max(axis=1, initial=0.0) / 127).astype(np.float32)
        whole = np.divide(block, scale[:, None], out=np.zeros(block.shape, np.float32), where=scale[:, None] > 0)
        return np.rint(whole).clip(-127, 127).astype(np.int8), scale
    if kind == "float16" and (large := np.abs(block).max(axis=1, initial=0.0) > 65504).any():
        row = int(large.argmax())
        raise DataError(
            f"{name}: row {start + row} has a feature of {np.abs(block[row]).max():g}, which float16 cannot hold; pack "
            "with --features float32 or int8"
        )
    return block, None
