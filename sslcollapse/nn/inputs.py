"""What encoder layers may be given: a tensor, or the features and edges of a graph view; and GCN's matrix of edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from sslcollapse.nn.norm import NormAct
from sslcollapse.nn.sparse import Pattern, SparseMatrix


class Edges(Protocol):
    """What the normalisation of a convolution reads of a graph; its structures are sorted once a graph."""

    @property
    def plain(self) -> Pattern:
        """Edges as they are; rows are targets."""

    @property
    def with_loops(self) -> Pattern:
        """Edges without self-loops, then one loop a node; rows are targets."""

    @property
    def proper_edges(self) -> Tensor:
        """[E'] positions of the edges that are not self-loops."""

    @property
    def weight(self) -> Tensor | None:
        """[E] how many edges of the graph each stands for, where some were drawn; None where all are there."""

    @property
    def unseen(self) -> Tensor | None:
        """[N] how many edges of each node were not looked for, which its degree has all the same; None for none."""


@runtime_checkable
class LayerWise(Protocol):
    """An encoder of graphs whose forward pass is its convolutions in turn, so that all nodes can be encoded in chunks.

    Layer l is ``combine(l, norm_acts[l](convs[l](state[0], A)), state, features)`` from ``state = (features,)`` on, A
    being what ``propagation`` makes of the edges. Its rows depend on others through A and ``norm_acts`` alone.

    Attributes:
        propagation: what a convolution makes of edges, those kept and a type of numbers: a sparse [N, N] matrix.
        convs: the convolutions; each reads features or [N, d], and [M, N] rows of the matrix.
        norm_acts: what follows each.
    """

    propagation: Callable[[Any, Any, torch.dtype], SparseMatrix]
    convs: nn.ModuleList
    norm_acts: nn.ModuleList

    def combine(self, depth: int, out: Tensor, state: tuple[Any, ...], features: Any) -> tuple[Tensor, ...]:
        """What the next layer reads, and what else later ones need of the same nodes, from what a layer puts out.

        Args:
            depth: of the layer, from 0.
            out: [M, d] of the first M nodes.
            state: what this returned for the layer before; its rows belong to these nodes.
            features: of these nodes.
        """
        ...


def layer_wise(encoder: Any) -> bool:
    """Whether an encoder offers the protocol, with one normalisation a convolution."""
    if not isinstance(encoder, LayerWise) or len(encoder.convs) != len(encoder.norm_acts):
        return False
    return all(isinstance(each, NormAct) for each in encoder.norm_acts)


def gcn_matrix(edges: Edges, keep: Tensor | None, dtype: torch.dtype) -> SparseMatrix:
    """``D^-1/2 (A + I) D^-1/2`` with in-degrees (Kipf & Welling 2017, eq. 2); rows are targets.

    Of drawn edges it is an estimate of the graph's: A has each with its ``weight``, and D the degrees of the graph.

    Args:
        edges: of a graph of N nodes.
        keep: which of its edges A has; None for all. A self-loop of the graph is dropped for the one of I.
        dtype: of the values.

    Shapes:
        keep: [E] bool.
        result: [N, N].
    """
    pattern, proper = edges.with_loops, edges.proper_edges
    present = torch.ones(pattern.row.numel(), dtype=dtype, device=pattern.row.device)
    if keep is not None:
        present[: proper.numel()] = keep[proper].to(dtype)  # the loops of I come after them, and stay
    if edges.weight is not None:
        present[: proper.numel()] *= edges.weight[proper].to(dtype)
    if keep is not None or edges.weight is not None:
        present = present[pattern.order]
    degree = pattern.row_sums(present)
    if edges.unseen is not None:
        degree = degree + edges.unseen.to(dtype)
    scale = degree.rsqrt()
    return SparseMatrix(pattern, scale[pattern.row] * present * scale[pattern.col])


def linear(x: Any, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` for a tensor [N, in] or a graph view's ``Features``: → [N, out]."""
    if isinstance(x, Tensor):
        return functional.linear(x, weight, bias)
    out = x.linear(weight)
    return out if bias is None else out + bias


def propagate_and_transform(x: Any, weight: Tensor, adjacency: Any) -> Tensor:
    """``A x Wᵀ`` [N, out] with the sparse product on the narrower side."""
    narrow_input = getattr(adjacency, "before_weights", False) or weight.shape[1] < weight.shape[0]
    if isinstance(x, Tensor):
        return linear(adjacency @ x, weight) if narrow_input else adjacency @ linear(x, weight)
    if narrow_input and not x.sparse:
        return linear(x.propagated(adjacency), weight)
    return adjacency @ linear(x, weight)


def flat_features(view: Any) -> Any:
    """The features of a graph view, or a tensor with all but the first dimension flattened."""
    return view.flatten(1) if isinstance(view, Tensor) else view.features


def first_rows(x: Any, rows: int) -> Any:
    """The first rows of a tensor [N, d] or of a graph view's ``Features``; these themselves where that is all."""
    if rows == x.shape[0]:
        return x
    return x[:rows] if isinstance(x, Tensor) else x.first(rows)


class FeatureLinear(nn.Linear):
    """``nn.Linear`` that also reads a graph view's features, and may propagate them on the way."""

    def forward(self, x: Any, adjacency: Any = None) -> Tensor:
        """[N, in] → [N, out]; with ``adjacency`` [N, N]: of ``A x``."""
        if adjacency is None:
            return linear(x, self.weight, self.bias)
        out = propagate_and_transform(x, self.weight, adjacency)
        return out if self.bias is None else out + self.bias
