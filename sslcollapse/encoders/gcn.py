"""Graph convolutional network (Kipf & Welling 2017), as BGRL uses it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.nn.init import check_rank, check_tail, check_widths, graph_features, truncate_rank_
from sslcollapse.nn.inputs import gcn_matrix as gcn_matrix
from sslcollapse.nn.inputs import propagate_and_transform
from sslcollapse.nn.norm import ActivationName, NormAct, NormName
from sslcollapse.recipe.schema import Probability, Width


class GCNConv(nn.Module):
    """One graph convolution: ``D^-1/2 (A + I) D^-1/2 x Wᵀ + b``.

    Args:
        in_dim: input width.
        out_dim: output width.
        bias: whether b is there.
        standardize: whether each row of W is brought to mean 0 and variance 1 in the forward pass
            (weight standardisation, Qiao et al. 2019), differentiably.

    Shapes:
        weight: [out_dim, in_dim], stored column by column, so that its transpose, which a sparse
            product reads row by row, needs no copy.
    """

    def __init__(self, in_dim: int, out_dim: int, *, bias: bool = True, standardize: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_dim, out_dim).t())
        self.bias = nn.Parameter(torch.empty(out_dim)) if bias else None
        self.standardize = standardize
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-uniform weight, zero bias."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def effective_weight(self) -> Tensor:
        """The [out_dim, in_dim] weight that the forward pass multiplies with."""
        if not self.standardize:
            return self.weight
        var, mean = torch.var_mean(self.weight, dim=1, keepdim=True)
        return (self.weight - mean) * torch.rsqrt(var + 1e-5)

    def forward(self, x: Any, adjacency: Any) -> Tensor:
        """Features or [N, in_dim], and the [M, N] propagation matrix → [M, out_dim]."""
        out = propagate_and_transform(x, self.effective_weight(), adjacency)
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        """Widths."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, bias={self.bias is not None}"


class GCN(nn.Module):
    """Graph convolutions, each followed by a normalisation and an activation (BGRL's encoder).

    Args:
        in_shape: number of node features, or (features,).
        hidden: width of each layer; the last is the width of the representation.
        norm: ``"batch"``, ``"layer"`` (per node), ``"graph"`` (per graph, as BGRL on ogbn-arxiv) or ``"none"``.
        norm_momentum: BatchNorm's momentum in torch's convention; 0.99, as BGRL's authors have it, makes the
            running statistics nearly those of the last batch.
        activation: after each layer but the last.
        final_activation: after the last layer.
        weight_standardization: standardise the weights of all layers after the first (BGRL on ogbn-arxiv).
        bias: whether convolutions have one; by default only where no BatchNorm follows, which cancels it.
        initial_rank: all but this many singular values of each initial weight are zero, by rows that are zero.
        initial_tail: what those others are at most in place of zero, as a share of the largest.
        residual: whether each layer after the first adds its input to what its activation puts out, where both are
            equally wide.

    Raises:
        ValueError: for an empty or non-positive ``hidden``, the shape of an image, an ``initial_rank`` or
            ``initial_tail`` out of range, or ``residual`` where no layer could add its input.

    Source: Thakoor et al., ICLR 2022.
    """

    reads = ("graph",)

    propagation = staticmethod(gcn_matrix)

    def __init__(
        self,
        in_shape: int | Sequence[int],
        *,
        hidden: Sequence[Width] = (512, 256),
        norm: NormName = "batch",
        norm_momentum: Probability = 0.99,
        activation: ActivationName = "prelu",
        final_activation: ActivationName = "prelu",
        weight_standardization: bool = False,
        bias: bool | None = None,
        initial_rank: Width | None = None,
        initial_tail: Probability = 0.0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        widths = [graph_features(in_shape, "gcn"), *check_widths(hidden)]
        self.out_dim, self.initial_rank = widths[-1], check_rank(initial_rank, widths)
        self.initial_tail = check_tail(initial_tail, initial_rank)
        bias = norm != "batch" if bias is None else bias
        pairs = list(pairwise(widths))
        self.convs = nn.ModuleList(
            GCNConv(narrow, wide, bias=bias, standardize=weight_standardization and depth > 0)
            for depth, (narrow, wide) in enumerate(pairs)
        )
        activations = [activation] * (len(pairs) - 1) + [final_activation]
        self.norm_acts = nn.ModuleList(
            NormAct(width, norm, norm_momentum, act) for width, act in zip(widths[1:], activations, strict=True)
        )
        self.adds_input = [residual and depth > 0 and a == b for depth, (a, b) in enumerate(pairs)]
        if residual and not any(self.adds_input):
            raise ValueError(f"residual needs a layer as wide as the one before it, got hidden={list(hidden)}")
        self._lower_rank()

    def reset_parameters(self) -> None:
        """Initialise all layers again."""
        for module in (*self.convs, *self.norm_acts):
            module.reset_parameters()
        self._lower_rank()

    def forward(self, view: Any) -> Tensor:
        """A graph view of N nodes → [N, out_dim]; with sampled surroundings, [B, out_dim] of the B samples."""
        x = view.features
        layers = zip(self.convs, self.norm_acts, view.adjacencies(gcn_matrix, len(self.convs)), strict=True)
        for depth, (conv, norm_act, adjacency) in enumerate(layers):
            (x,) = self.combine(depth, norm_act(conv(x, adjacency), view.graph_index), (x,), view.features)
        return x

    def combine(self, depth: int, out: Tensor, state: tuple[Any, ...], features: Any) -> tuple[Tensor]:
        """What a layer puts out for the first M nodes of its input, [M, d] → what the next one reads."""
        return (out + state[0][: len(out)] if self.adds_input[depth] else out,)

    def _lower_rank(self) -> None:
        if self.initial_rank is not None:
            for conv in self.convs:
                truncate_rank_(conv.weight, self.initial_rank, self.initial_tail)
