"""GraphSAGE with mean pooling and residual connections, BGRL's encoder on PPI."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.nn.init import check_widths, graph_features
from sslcollapse.nn.inputs import Edges, FeatureLinear, first_rows
from sslcollapse.nn.norm import ActivationName, NormAct, NormName
from sslcollapse.nn.sparse import SparseMatrix
from sslcollapse.recipe.schema import Probability, Width


def mean_matrix(edges: Edges, keep: Tensor | None, dtype: torch.dtype) -> SparseMatrix:
    """``D^-1 A``, the mean over in-neighbours; a zero row where a node has none. Rows are targets.

    Args:
        edges: of a graph of N nodes.
        keep: which of its edges A has; None for all.
        dtype: of the values.

    Shapes:
        keep: [E] bool.
        result: [N, N].
    """
    pattern = edges.plain
    if keep is None:
        present = torch.ones(pattern.row.numel(), dtype=dtype, device=pattern.row.device)
    else:
        present = keep[pattern.order].to(dtype)
    degree = pattern.row_sums(present).clamp(min=1)
    return SparseMatrix(pattern, present / degree[pattern.row])


class SAGEConv(nn.Module):
    """``mean of neighbours · Wₙᵀ + x · Wᵣᵀ + b`` (Hamilton et al. 2017, mean aggregator)."""

    shortcuts = ("root",)

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.neighbors = FeatureLinear(in_dim, out_dim)
        self.root = FeatureLinear(in_dim, out_dim, bias=False)

    def reset_parameters(self) -> None:
        """Initialise both linear maps again."""
        self.neighbors.reset_parameters()
        self.root.reset_parameters()

    def forward(self, x: Any, adjacency: Any) -> Tensor:
        """Features or [N, in_dim], and the row-normalised adjacency [M, N] → [M, out_dim]; the first M nodes."""
        return self.neighbors(x, adjacency) + self.root(first_rows(x, adjacency.shape[0]))


class SAGE(nn.Module):
    """Mean-pooling GraphSAGE layers; layer l reads all earlier outputs plus a projection of the input.

    Formula: h_1 = f_1(x); h_l = f_l(h_1 + ... + h_{l-1} + S_{l-1} x), f being convolution, normalisation,
    activation.

    Args:
        in_shape: number of node features, or (features,).
        hidden: width of each layer; with ``residual`` all but the last must be equal.
        norm: as for ``gcn``; BGRL's authors normalise over each graph.
        norm_momentum: BatchNorm's momentum in torch's convention.
        activation: after each layer but the last.
        final_activation: after the last layer.
        residual: whether the sums and input projections above are there.

    Source: Thakoor et al., ICLR 2022, appendix (PPI).
    """

    reads = ("graph",)

    shortcuts = ("skips",)

    propagation = staticmethod(mean_matrix)

    def __init__(
        self,
        in_shape: int | Sequence[int],
        *,
        hidden: Sequence[Width] = (512, 512, 512),
        norm: NormName = "graph",
        norm_momentum: Probability = 0.99,
        activation: ActivationName = "prelu",
        final_activation: ActivationName = "prelu",
        residual: bool = True,
    ) -> None:
        super().__init__()
        in_dim = graph_features(in_shape, "sage")
        widths = [in_dim, *check_widths(hidden)]
        if residual and len(set(widths[1:-1])) > 1:
            raise ValueError(
                f"hidden: residual sums need equal widths in all layers but the last, got {list(hidden)}; "
                "make them equal or set residual=False"
            )
        self.out_dim = widths[-1]
        pairs = list(pairwise(widths))
        self.convs = nn.ModuleList(SAGEConv(narrow, wide) for narrow, wide in pairs)
        activations = [activation] * (len(pairs) - 1) + [final_activation]
        self.norm_acts = nn.ModuleList(
            NormAct(width, norm, norm_momentum, act) for width, act in zip(widths[1:], activations, strict=True)
        )
        self.skips = nn.ModuleList(
            FeatureLinear(in_dim, width, bias=False) for width in (widths[1:-1] if residual else [])
        )

    def reset_parameters(self) -> None:
        """Initialise all layers again."""
        for module in (*self.convs, *self.norm_acts, *self.skips):
            module.reset_parameters()

    def forward(self, view: Any) -> Tensor:
        """A graph view of N nodes → [N, out_dim]; with sampled surroundings, [B, out_dim] of the B samples."""
        layers = zip(self.convs, self.norm_acts, view.adjacencies(mean_matrix, len(self.convs)), strict=True)
        state: tuple[Any, ...] = (view.features,)
        for depth, (conv, norm_act, adjacency) in enumerate(layers):
            out = norm_act(conv(state[0], adjacency), view.graph_index)
            state = self.combine(depth, out, state, view.features)
        out = state[0]
        return out

    def combine(self, depth: int, out: Tensor, state: tuple[Any, ...], features: Any) -> tuple[Tensor, ...]:
        """What a layer puts out [M, d], and what it read → what the next one reads, and h_1 + ... + h_l beside it."""
        if depth >= len(self.skips):
            return (out,)
        total = first_rows(state[1], len(out)) + out if depth else out
        return total + self.skips[depth](first_rows(features, len(out))), total
