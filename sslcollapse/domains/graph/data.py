"""Graphs: the types, the checks every graph passes, and feature preparation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import DataError
from sslcollapse.core.types import Split
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView
from sslcollapse.nn.sparse import SparseMatrix

SPARSE_BELOW = 0.25
"""Features with a smaller share of non-zeros than this are stored as CSR."""

_CHUNK_ELEMENTS = 1 << 22  # 16 MB of float32 at a time


@dataclass(frozen=True)
class Graph:
    """One graph with labelled nodes.

    Shapes:
        x: [N, F] float32, dense or ``torch.sparse_csr``.
        edge_index: [2, E] int64, rows (source, target); an undirected edge is listed in both directions.
        y: [N] int64 classes, or [N, C] float32 in {0, 1} for multi-label graphs.
    """

    x: Tensor
    edge_index: Tensor
    y: Tensor

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.x.shape[0]

    @property
    def num_features(self) -> int:
        """F."""
        return self.x.shape[1]

    @property
    def num_edges(self) -> int:
        """E."""
        return self.edge_index.shape[1]

    def view(self) -> GraphView:
        """The graph as it is. A step takes ``InEdges.of(view.structure)`` and ``view.features.rows(nodes)`` of it."""
        x = self.x
        features = Features(SparseMatrix.from_csr(x) if x.layout == torch.sparse_csr else x)
        return GraphView(GraphStructure(self.edge_index, self.num_nodes), features)

    def check_whole(self) -> None:
        """Raise RunError where all of the graph does not fit into memory; in memory it is already."""


@dataclass(frozen=True)
class GraphDataset:
    """Graphs of one dataset, the ones to pre-train on, and the fixed splits of their nodes.

    Args:
        name: as shown to people.
        graphs: one, or several for inductive datasets.
        num_classes: classes, or labels of a multi-label dataset.
        splits: name → divisions into train, validation and test; indices are rows of all graphs concatenated.
        train_graphs: positions of the graphs that self-supervised pre-training sees.
    """

    name: str
    graphs: tuple[Graph, ...]
    num_classes: int
    splits: Mapping[str, tuple[Split, ...]]
    train_graphs: tuple[int, ...] = (0,)

    @property
    def num_features(self) -> int:
        """F, the width of the node features."""
        return self.graphs[0].num_features

    @property
    def multilabel(self) -> bool:
        """Whether a node can have several labels."""
        return self.graphs[0].y.dim() == 2


def make_graph(x: Tensor, edge_index: Tensor, y: Tensor, *, name: str, normalize: bool) -> Graph:
    """Check raw tensors and prepare the features: the one way from a file to a ``Graph``.

    Raises:
        DataError: see ``check_graph``.
    """
    graph = Graph(x, edge_index, y)
    check_graph(graph, name)  # before normalising: one NaN would spread over its row
    return Graph(prepare_features(x, normalize), edge_index, y)


def prepare_features(x: Tensor, normalize: bool) -> Tensor:
    """Row-normalise node features and store them as CSR where few are non-zero.

    ``x ← x − min(x)``, then every row is divided by ``max(its sum, 1)``, as PyTorch Geometric's
    ``NormalizeFeatures`` does (the minimum of bag-of-words features is 0). Works on blocks of rows, so that
    next to ``x`` itself only the result and one block are in memory. ``x`` is left unchanged.

    Args:
        x: dense or ``torch.sparse_csr`` features.
        normalize: whether to normalise.

    Shapes:
        x, result: [N, F]; the result is float32 and ``torch.sparse_csr`` where density < ``SPARSE_BELOW``.
    """
    if x.layout == torch.sparse_csr:
        stored = x.values()
        few = stored.numel() < SPARSE_BELOW * x.shape[0] * x.shape[1]
        if few and not (normalize and bool((stored < 0).any())):
            return _normalize_csr(x) if normalize else x.float()
        x = x.to_dense()
    low = float(x.min()) if normalize and x.numel() else 0.0
    nonzeros = sum(int((block != low).sum()) for block in _row_blocks(x))
    if nonzeros >= SPARSE_BELOW * x.numel():
        result = torch.empty(x.shape, dtype=torch.float32)
        for target, block in zip(_row_blocks(result), _row_blocks(x), strict=True):
            target.copy_(_normalize_rows(block, low) if normalize else block)
        return result
    counts, columns, values = [], [], []
    for block in _row_blocks(x):
        ready = _normalize_rows(block, low) if normalize else block
        row, column = ready.nonzero(as_tuple=True)
        counts.append(torch.bincount(row, minlength=ready.shape[0]))
        columns.append(column)
        values.append(ready[row, column].float())
    return csr_tensor(torch.cat(counts), torch.cat(columns), torch.cat(values), (x.shape[0], x.shape[1]))


def csr_tensor(row_counts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A ``torch.sparse_csr`` tensor from the entries of each row counted [N], columns [nnz], values [nnz]."""
    pointers = torch.cat([row_counts.new_zeros(1), row_counts.cumsum(0)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        # Checked, because a column beyond the shape would read foreign memory in products.
        return torch.sparse_csr_tensor(pointers, columns, values, size=shape, check_invariants=True)


def split_from_masks(train: Tensor, validation: Tensor, test: Tensor, nodes: int, name: str) -> tuple[Split, ...]:
    """One split for masks [N], or K splits for masks [N, K]; a mask [N] among wider ones holds for all K.

    Raises:
        DataError: when a mask does not fit the nodes, a part is empty, or a node is in two parts of a split.
    """
    masks = [mask.bool().reshape(mask.shape[0], -1) for mask in (train, validation, test)]
    for mask in masks:
        if mask.shape[0] != nodes:
            raise DataError(f"{name}: a split mask has {mask.shape[0]} rows for {nodes} nodes")
    width = max(mask.shape[1] for mask in masks)
    splits = []
    for k in range(width):
        parts = [mask[:, k if mask.shape[1] > 1 else 0] for mask in masks]
        if not all(bool(part.any()) for part in parts):
            raise DataError(f"{name}: split {k} has an empty part")
        if int(torch.stack(parts).sum(dim=0).max()) > 1:
            raise DataError(f"{name}: in split {k} a node is in more than one of train, validation and test")
        splits.append(Split(*(np.flatnonzero(part.numpy()) for part in parts)))
    return tuple(splits)


def check_graph(graph: Graph, name: str) -> None:
    """Refuse a graph that cannot be trained on.

    Raises:
        DataError: no edges, an edge to a node that is not there, a NaN or infinite feature, labels that do
            not fit the nodes; the message quotes the first bad value and its place.
    """
    nodes, edges = graph.num_nodes, graph.edge_index
    if edges.dim() != 2 or edges.shape[0] != 2 or edges.dtype != torch.int64:
        raise DataError(f"{name}: edge_index must be [2, E] int64, got {list(edges.shape)} {edges.dtype}")
    if edges.shape[1] == 0:
        raise DataError(
            f"{name}: the graph has no edges, so there is nothing to propagate over or to drop; check that "
            "the edge file is complete"
        )
    outside = ((edges < 0) | (edges >= nodes)).any(dim=0)
    if bool(outside.any()):
        first = int(outside.nonzero()[0])
        raise DataError(
            f"{name}: {int(outside.sum())} of {edges.shape[1]} edges point outside the {nodes} nodes, first "
            f"edge {first}: {edges[0, first].item()} -> {edges[1, first].item()}"
        )
    if graph.y.shape[0] != nodes:
        raise DataError(f"{name}: {graph.y.shape[0]} labels for {nodes} nodes")
    _check_finite(graph.x, name)


def _check_finite(x: Tensor, name: str) -> None:
    sparse = x.layout == torch.sparse_csr
    values = x.values() if sparse else x
    if values.numel() == 0 or bool(torch.isfinite(values.sum(dtype=torch.float64))):
        return
    bad = ~torch.isfinite(values)
    first = bad.nonzero()[0]
    if sparse:
        entry = int(first)
        node = int(torch.searchsorted(x.crow_indices(), entry, right=True)) - 1
        column, value = int(x.col_indices()[entry]), float(values[entry])
    else:
        node, column = first.tolist()
        value = float(values[node, column])
    raise DataError(
        f"{name}: {int(bad.sum())} NaN or infinite features, first {value} at node {node}, column {column}; "
        "repair or replace the feature file"
    )


def _row_blocks(x: Tensor) -> list[Tensor]:
    return list(x.split(max(1, _CHUNK_ELEMENTS // max(1, x.shape[1]))))  # views, no copies


def _normalize_rows(block: Tensor, low: float) -> Tensor:
    shifted = block.float() - low
    return shifted.div_(shifted.sum(dim=-1, keepdim=True).clamp_(min=1.0))


def _normalize_csr(x: Tensor) -> Tensor:
    counts = x.crow_indices().diff()
    row = torch.repeat_interleave(torch.arange(x.shape[0]), counts)  # [nnz]
    values = x.values().float()
    sums = values.new_zeros(x.shape[0]).index_add_(0, row, values).clamp_(min=1.0)
    return csr_tensor(counts, x.col_indices(), values / sums[row], (x.shape[0], x.shape[1]))
