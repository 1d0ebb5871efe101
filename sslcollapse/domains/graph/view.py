"""One view of a graph: which edges and feature columns it keeps, and what encoders read from it.

Two faces of the same view: ``x`` and ``edge_index`` (dropped edges really absent, made on demand) for any
PyTorch Geometric module; ``features`` and ``adjacency(...)`` (one static CSR structure shared by all views,
values per view) for the encoders of this package. Both see exactly the same dropped edges and columns.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from sslcollapse.core.memory import onto
from sslcollapse.core.types import Hidden
from sslcollapse.nn.sparse import Pattern, SparseMatrix

if TYPE_CHECKING:
    from sslcollapse.domains.graph.neighbours import InEdges


class Features:
    """Node features [N, F], dense or sparse, with an optional column mask [F] of zeros and ones.

    ``linear(weight)`` is ``x @ weight.T`` without making the masked features: a sparse matrix masks its
    values, a dense one masks the columns of the weight, which is much smaller than the features.
    """

    def __init__(self, x: Tensor | SparseMatrix, mask: Tensor | None = None) -> None:
        self._x = x
        self.mask = mask

    @property
    def shape(self) -> tuple[int, int]:
        """(N, F)."""
        return (self._x.shape[0], self._x.shape[1])

    @cached_property
    def _masked_sparse(self) -> SparseMatrix:
        stored: Any = self._x
        return stored if self.mask is None else stored.scale_columns(self.mask)

    def linear(self, weight: Tensor) -> Tensor:
        """``x @ weight.T``: [N, F] × [D, F] → [N, D]."""
        if isinstance(self._x, SparseMatrix):
            return self._masked_sparse @ weight.t()
        return functional.linear(self._x, weight if self.mask is None else weight * self.mask)

    @property
    def sparse(self) -> bool:
        """Whether the features are stored as a sparse matrix."""
        return isinstance(self._x, SparseMatrix)

    @property
    def dtype(self) -> torch.dtype:
        """Of the values."""
        return self._x.values.dtype if isinstance(self._x, SparseMatrix) else self._x.dtype

    def dropout(self, p: float) -> Features:
        """The same features with a share of their entries dropped, and the others scaled by 1 / (1 − p)."""
        x = self._x
        if isinstance(x, SparseMatrix):  # an entry that is zero is the same when it is dropped
            return Features(SparseMatrix(x.pattern, functional.dropout(x.values, p)), self.mask)
        return Features(functional.dropout(x, p), self.mask)

    def propagated(self, adjacency: SparseMatrix) -> Features:
        """``adjacency @ x`` for dense features, [N, F]; the mask commutes with it and stays pending."""
        stored: Any = self._x
        return Features(adjacency @ stored, self.mask)

    @cached_property
    def dense(self) -> Tensor:
        """The masked features as a dense [N, F] tensor."""
        if isinstance(self._x, SparseMatrix):
            return self._masked_sparse.dense()
        return self._x if self.mask is None else self._x * self.mask

    def rows(self, index: Tensor) -> Features:
        """Those of some nodes [n], on the host or the device where they are: [n, F]."""
        x = self._x.rows(index) if isinstance(self._x, SparseMatrix) else self._x.index_select(0, index)
        return Features(x, self.mask)

    def first(self, nodes: int) -> Features:
        """Those of the first nodes."""
        x = self._x
        return Features(x.corner(nodes, x.shape[1]) if isinstance(x, SparseMatrix) else x[:nodes], self.mask)

    def masked(self, mask: Tensor | None) -> Features:
        """The same features under another column mask."""
        return Features(self._x, mask)

    def to(self, device: torch.device) -> Features:
        """The same features on another device."""
        stored: Any = self._x
        moved = stored.to(device) if isinstance(stored, SparseMatrix) else onto(device, stored)
        return Features(moved, None if self.mask is None else onto(device, self.mask))


class GraphStructure:
    """The edges of one graph (or of a disjoint union), with the CSR structures that products need.

    Shapes:
        edge_index: [2, E], source and target of each edge.
        graph_index: [N] which graph a node belongs to, or None for a single graph.

    Attributes:
        hops: of sampled surroundings, how many nodes are at most h hops from the samples, for each h; else None.
        weight: [E] how many edges of the graph each edge stands for; None for 1.
        unseen: [N] how many edges a node has beside those that are here; None for 0.
        in_edges: of a graph that is stored by target, these edges as they are stored, which ``InEdges.of`` then gives.
        samples: how many of the first nodes are samples, where others were put between them; None for all.
    """

    hops: tuple[int, ...] | None = None
    weight: Tensor | None = None
    unseen: Tensor | None = None
    in_edges: InEdges | None = None
    samples: int | None = None

    def __init__(self, edge_index: Tensor, num_nodes: int, graph_index: Tensor | None = None) -> None:
        self.edge_index = edge_index
        self.num_nodes = num_nodes
        self.graph_index = graph_index

    @cached_property
    def with_loops(self) -> Pattern:
        """Edges without self-loops, then one loop a node (GCN's A + I); rows are targets."""
        source, target = self.edge_index[:, self.proper_edges]
        loops = torch.arange(self.num_nodes, device=source.device)
        shape = (self.num_nodes, self.num_nodes)
        return Pattern.from_indices(torch.cat([target, loops]), torch.cat([source, loops]), shape)

    @cached_property
    def proper_edges(self) -> Tensor:
        """[E'] positions of the edges that are not self-loops."""
        source, target = self.edge_index
        return (source != target).nonzero().flatten()

    @cached_property
    def undirected_edges(self) -> Tensor:
        """[E] number of the undirected edge that each edge is a direction of."""
        low, high = self.edge_index.min(dim=0).values, self.edge_index.max(dim=0).values
        return torch.unique(low * self.num_nodes + high, return_inverse=True)[1]

    @cached_property
    def num_undirected_edges(self) -> int:
        """How many different ones there are."""
        return int(self.undirected_edges.max()) + 1 if self.undirected_edges.numel() else 0

    @cached_property
    def plain(self) -> Pattern:
        """Edges as they are; rows are targets."""
        source, target = self.edge_index
        return Pattern.from_indices(target, source, (self.num_nodes, self.num_nodes))

    def to(self, device: torch.device) -> GraphStructure:
        """The same structure on another device.

        What a device could not make without the host's waiting for how much there is of it is made before and taken
        along: which edges are no self-loops, and which are one undirected edge, if that was asked for.
        """
        if self.edge_index.device == device:
            return self
        graph_index = None if self.graph_index is None else onto(device, self.graph_index)
        moved = GraphStructure(onto(device, self.edge_index), self.num_nodes, graph_index)
        moved.proper_edges = onto(device, self.proper_edges)
        if "undirected_edges" in vars(self):
            moved.num_undirected_edges = self.num_undirected_edges
            moved.undirected_edges = onto(device, self.undirected_edges)
        return moved


Traces: TypeAlias = frozenset[tuple["Propagation", int, int, str]]
"""What was made of a view: a convolution's matrix, of so many layers, which of them, and which of its forms."""

Propagation: TypeAlias = Callable[[GraphStructure, Tensor | None, torch.dtype], SparseMatrix]
"""What a convolution makes of a graph, the edges kept [E] (None for all) and a type of numbers: an [N, N] matrix."""


class GraphView:
    """A graph with some edges dropped and some feature columns masked.

    Shapes:
        keep: [E] bool, which edges the view has, or None for all.

    Attributes:
        hidden: what of some nodes an encoder does not see; None where it sees all.
    """

    def __init__(
        self, structure: GraphStructure, features: Features, keep: Tensor | None = None, hidden: Hidden | None = None
    ) -> None:
        self.structure = structure
        self.features = features
        self.keep = keep
        self.hidden = hidden
        self._adjacency: dict[Propagation, SparseMatrix] = {}
        self._corners: dict[tuple[Propagation, int], list[SparseMatrix]] = {}

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.structure.num_nodes

    @property
    def graph_index(self) -> Tensor | None:
        """[N] which graph of a batch a node belongs to, or None for a single graph."""
        return self.structure.graph_index

    @property
    def x(self) -> Tensor:
        """[N, F] dense features with masked columns set to zero."""
        return self.features.dense

    @cached_property
    def edge_index(self) -> Tensor:
        """[2, E'] the edges that are left; the host waits for a device to say how many, if some were dropped."""
        edges = self.structure.edge_index
        return edges if self.keep is None else edges[:, self.keep]

    def adjacency(self, normalized: Propagation) -> SparseMatrix:
        """The [N, N] matrix that a convolution's normalisation makes of the edges that are left; made once a view.

        Rows are targets. See ``encoders.gcn.gcn_matrix`` and ``encoders.sage.mean_matrix``.
        """
        if normalized not in self._adjacency:
            self._adjacency[normalized] = normalized(self.structure, self.keep, self.features.dtype)
        return self._adjacency[normalized]

    @property
    def sample_rows(self) -> int | None:
        """How many of the first nodes are samples; None for all."""
        return self.structure.samples if self.structure.hops is None else self.structure.hops[0]

    def adjacencies(self, normalized: Propagation, layers: int) -> list[SparseMatrix]:
        """The matrix of each of so many convolutions, the first one's first: the same [N, N] one for a whole graph.

        Of sampled surroundings each layer has the rows that later ones read, which are nearer to the samples the later
        the layer: the last has a row a sample. Rows and columns are prefixes of those of the [N, N] matrix.
        """
        if (normalized, layers) not in self._corners:
            whole, hops = self.adjacency(normalized), self.structure.hops
            if hops is None:
                self._corners[normalized, layers] = [whole] * layers
                return self._corners[normalized, layers]
            rows = [hops[min(left, len(hops) - 1)] for left in reversed(range(layers))]
            shapes = zip(rows, [whole.shape[1], *rows[:-1]], strict=True)
            self._corners[normalized, layers] = [whole.corner(*shape) for shape in shapes]
        return self._corners[normalized, layers]

    def traces(self) -> Traces:
        """What has been made for convolutions so far."""
        return frozenset(
            (normalized, layers, place, form)
            for (normalized, layers), matrices in self._corners.items()
            for place, matrix in enumerate(matrices)
            for form in ("forward_matrix", "backward_matrix")
            if form in vars(matrix)
        )

    def prepare(self, traces: Traces) -> None:
        """Make what was made of another view, so that it is there when it is asked for."""
        for normalized, layers, place, form in traces:
            getattr(self.adjacencies(normalized, layers)[place], form)

    def with_features(self, features: Features | Tensor) -> GraphView:
        """The same edges with other features of the nodes; a tensor is [N, d]."""
        other = copy.copy(self)  # shares what was made of the edges
        other.features = features if isinstance(features, Features) else Features(features)
        return other

    def undropped(self, x: Tensor) -> GraphView:
        """All edges of the graph, with other features [N, d] of its nodes."""
        return GraphView(self.structure, Features(x))

    def with_token(self, token: Tensor) -> GraphView:
        """The same view with a vector [F] in the place of features that are hidden by none."""
        features: Any = self.features
        return self.with_features(features.with_token(token))

    def to(self, device: torch.device) -> GraphView:
        """The same view on another device, without what it hides."""
        keep = None if self.keep is None else onto(device, self.keep)
        return GraphView(self.structure.to(device), self.features.to(device), keep)


def augment(
    view: GraphView, edge_drop: float, feature_mask: float, rng: torch.Generator, *, undirected: bool = False
) -> GraphView:
    """A view with each edge dropped and each feature column masked independently with these probabilities.

    With ``undirected`` an edge and its reverse share one draw.
    """
    sizes = draw_sizes(view, edge_drop, feature_mask, undirected=undirected)
    device = view.structure.edge_index.device
    draws = [torch.rand(size, generator=rng, device=device) for size in sizes]
    return drawn_view(view, draws, edge_drop, feature_mask, undirected=undirected)


def draw_sizes(view: GraphView, edge_drop: float, feature_mask: float, *, undirected: bool) -> list[int]:
    """How many numbers in [0, 1) a view needs: one an edge, then one a feature column, where any may be left out."""
    structure, sizes = view.structure, []
    if edge_drop > 0:
        sizes.append(structure.num_undirected_edges if undirected else structure.edge_index.shape[1])
    if feature_mask > 0:
        sizes.append(view.features.shape[1])
    return sizes


def drawn_view(
    view: GraphView, draws: Sequence[Tensor], edge_drop: float, feature_mask: float, *, undirected: bool
) -> GraphView:
    """The view without the edges and feature columns whose number is below their probability."""
    left, keep, mask = list(draws), None, None
    if edge_drop > 0:
        keep = left.pop(0) >= edge_drop
        if undirected:
            keep = keep[view.structure.undirected_edges]
    if feature_mask > 0:
        mask = (left.pop(0) >= feature_mask).to(view.features.dtype)
    return GraphView(view.structure, view.features.masked(mask), keep)
