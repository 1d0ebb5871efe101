"""Graph attention network (Veličković et al. 2018), as GraphMAE uses it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sslcollapse.nn.init import check_widths, graph_features
from sslcollapse.nn.inputs import Edges, FeatureLinear
from sslcollapse.nn.norm import ActivationName, NormAct, NormName
from sslcollapse.nn.sparse import SparseMatrix, weighted_sum
from sslcollapse.recipe.schema import Momentum, Probability, Width


def present_matrix(edges: Edges, keep: Tensor | None, dtype: torch.dtype) -> SparseMatrix:
    """``A + I``: 1 for each edge that is kept, or as many as it stands for, and for a loop a node. Rows are targets.

    Shapes:
        keep: [E] bool, or None for all.
        result: [N, N].
    """
    pattern, proper = edges.with_loops, edges.proper_edges
    present = torch.ones(pattern.row.numel(), dtype=dtype, device=pattern.row.device)
    if keep is not None:
        present[: proper.numel()] = keep[proper].to(dtype)
    if edges.weight is not None:
        present[: proper.numel()] *= edges.weight[proper].to(dtype)
    return SparseMatrix(pattern, present[pattern.order])


class GATConv(nn.Module):
    """One graph attention: h′ᵢ = Σⱼ αᵢⱼ W xⱼ over the edges j → i and i itself, for each head; heads side by side.

    α is the softmax over j of LeakyReLU(aₗ·W xⱼ + aᵣ·W xᵢ).

    Args:
        in_dim: input width.
        out_dim: output width, of all heads together.
        heads: how many.
        dropout: share of the input's entries that are dropped in training.
        attention_dropout: share of the α that are dropped in training.
        negative_slope: of LeakyReLU.

    Shapes:
        attention: [2, heads, out_dim / heads], aₗ and aᵣ.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        heads: int = 1,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        negative_slope: float = 0.2,
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_dropout, self.negative_slope = attention_dropout, negative_slope
        self.lin = FeatureLinear(in_dim, out_dim, bias=False)
        self.attention = nn.Parameter(torch.empty(2, heads, out_dim // heads))
        self.bias = nn.Parameter(torch.empty(out_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-normal weights with ReLU's gain, as GraphMAE's authors have them; zero bias."""
        gain = nn.init.calculate_gain("relu")
        nn.init.xavier_normal_(self.lin.weight, gain=gain)
        for vector in self.attention.detach():
            nn.init.xavier_normal_(vector[None], gain=gain)
        nn.init.zeros_(self.bias)

    def forward(self, x: Any, edges: SparseMatrix, rows: Tensor | None = None) -> Tensor:
        """Features or [N, in_dim], and ``present_matrix`` [N, N] → [N, out_dim]; of ``rows`` [M] alone, [M, out_dim].

        Sums are over inputs or over outputs of W, whichever are narrower.
        """
        if self.training and self.dropout:
            x = functional.dropout(x, self.dropout) if isinstance(x, Tensor) else x.dropout(self.dropout)
        weight = self.lin.weight.unflatten(0, (self.heads, -1))  # [H, D, in]
        narrow_input = isinstance(x, Tensor) and self.heads * x.shape[1] < len(self.lin.weight)
        if narrow_input:
            source, target = torch.einsum("ni,khi->knh", x, torch.einsum("hdi,khd->khi", weight, self.attention))
            summed = x[:, None].expand(-1, self.heads, -1)
        else:
            summed = self.lin(x).unflatten(1, (self.heads, -1))
            source, target = torch.einsum("nhd,khd->knh", summed, self.attention)
        score = source[edges.pattern.col] + target[edges.pattern.row]
        share = _softmax_over_rows(functional.leaky_relu(score, self.negative_slope), edges)
        if self.training and self.attention_dropout:
            share = functional.dropout(share, self.attention_dropout)
        out = weighted_sum(edges.pattern, share, summed)
        out = out if rows is None else out[rows]
        if narrow_input:
            out = torch.einsum("nhi,hdi->nhd", out, weight) if self.heads > 1 else self.lin(out[:, 0])[:, None]
        return out.flatten(1) + self.bias


class GAT(nn.Module):
    """Graph attention layers, each followed by a normalisation and an activation (GraphMAE's encoder).

    Args:
        in_shape: number of node features, or (features,).
        hidden: width of each layer, of all its heads together; the last is the width of the representation.
        heads: of each layer.
        dropout: share of the entries of each layer's input that are dropped in training.
        attention_dropout: share of the attention that is dropped in training.
        norm: ``"batch"``, ``"layer"`` (per node), ``"graph"`` (per graph) or ``"none"``.
        norm_momentum: BatchNorm's momentum in torch's convention.
        activation: after each layer but the last.
        final_activation: after the last layer.

    Raises:
        ValueError: for an empty or non-positive ``hidden``, the shape of an image, or a width that heads do not divide.

    Source: Veličković et al., ICLR 2018, eqs. 3 to 5; Hou et al., KDD 2022.
    """

    reads = ("graph",)

    def __init__(
        self,
        in_shape: int | Sequence[int],
        *,
        hidden: Sequence[Width] = (512, 512),
        heads: Width = 4,
        dropout: Momentum = 0.0,
        attention_dropout: Momentum = 0.0,
        norm: NormName = "none",
        norm_momentum: Probability = 0.1,
        activation: ActivationName = "prelu",
        final_activation: ActivationName = "prelu",
    ) -> None:
        super().__init__()
        widths = [graph_features(in_shape, "gat"), *check_widths(hidden)]
        for width in widths[1:]:
            if heads < 1 or width % heads:
                raise ValueError(f"heads must divide every width of hidden={list(hidden)}, got {heads}")
        self.out_dim = widths[-1]
        self.convs = nn.ModuleList(
            GATConv(a, b, heads=heads, dropout=dropout, attention_dropout=attention_dropout)
            for a, b in pairwise(widths)
        )
        activations = [activation] * (len(widths) - 2) + [final_activation]
        self.norm_acts = nn.ModuleList(
            NormAct(width, norm, norm_momentum, act) for width, act in zip(widths[1:], activations, strict=True)
        )

    def reset_parameters(self) -> None:
        """Initialise all layers again."""
        for module in (*self.convs, *self.norm_acts):
            module.reset_parameters()

    def forward(self, view: Any, rows: Tensor | None = None) -> Tensor:
        """A graph view of N nodes → [N, out_dim]; of ``rows`` [M] alone, [M, out_dim]."""
        x, edges, last = view.features, view.adjacency(present_matrix), len(self.convs) - 1
        for depth, (conv, norm_act) in enumerate(zip(self.convs, self.norm_acts, strict=True)):
            x = norm_act(conv(x, edges, rows if depth == last else None), view.graph_index)
        return x


def _softmax_over_rows(score: Tensor, edges: SparseMatrix) -> Tensor:
    """Softmax of scores [nnz, H] over the non-zeros of each row, each counted as often as its value says."""
    row = edges.pattern.row
    with torch.no_grad():  # it cancels, but for rounding
        absent = (edges.values == 0)[:, None]
        low = score.masked_fill(absent, -torch.inf)
        where = row[:, None].expand_as(low)
        top = score.new_full((edges.shape[0], score.shape[1]), -torch.inf).scatter_reduce_(0, where, low, "amax")
    weight = (score - top[row]).exp() * edges.values[:, None]
    weight = weight.masked_fill(absent, 0.0)  # an exponential that overflowed, times 0
    total = torch.zeros_like(top).index_add(0, row, weight)
    return weight / total[row]
