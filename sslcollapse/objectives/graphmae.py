"""GraphMAE: features of hidden nodes are made again from those of others (Hou et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.precision import full_precision
from sslcollapse.core.registry import ENCODERS
from sslcollapse.core.types import Branch
from sslcollapse.nn.moments import widen
from sslcollapse.objectives.base import Objective
from sslcollapse.recipe.schema import AtLeast, Momentum, Width


class GraphMAE(Objective):
    """Hidden nodes' features x are made again, as z, by a decoder; loss: mean over them of (1 − cos(x, z))^γ.

    Views hide nodes by ``node_mask``. A learned token, at first 0, stands in the place of their features. The decoder
    reads W h of the representations h, in which those of hidden nodes are set to zero once more (re-mask) where it is
    a graph network, over all edges of the graph.

    Args:
        decoder: ``"gat"`` or ``"gcn"``, of one layer; ``"mlp"`` (two layers) or ``"linear"``, without re-mask.
        heads: of a ``"gat"``.
        gamma: the power γ of the scaled cosine error.
        dropout: share dropped in training of what a ``"gat"`` reads, or of what the hidden layer of an ``"mlp"`` gives.
        attention_dropout: share of the attention of a ``"gat"`` that is dropped in training.

    Shapes:
        d of each online branch, and the values that are hidden: [M, F].

    Raises:
        ValueError: for a γ below 1, or a share outside [0, 1).
        RecipeError: for views that hide nothing, or of samples that are not all nodes of a graph.

    Source: Hou et al., "GraphMAE: Self-Supervised Masked Graph Autoencoders", KDD 2022, eq. 2.
    """

    couples_batch = False
    needs_hidden = True
    reads = ("graph",)

    def __init__(
        self,
        *,
        decoder: Literal["gat", "gcn", "mlp", "linear"] = "gat",
        heads: Width = 1,
        gamma: Annotated[float, AtLeast(1)] = 3.0,
        dropout: Momentum = 0.2,
        attention_dropout: Momentum = 0.1,
    ) -> None:
        super().__init__()
        if gamma < 1:
            raise ValueError(f"gamma must be >= 1, got {gamma}")
        for name, share in (("dropout", dropout), ("attention_dropout", attention_dropout)):
            if not 0.0 <= share < 1.0:
                raise ValueError(f"{name} must be in [0, 1), got {share}")
        self.kind, self.heads, self.gamma = decoder, heads, gamma
        self.dropout, self.attention_dropout = dropout, attention_dropout

    def decoder(self, in_dim: int, in_shape: Sequence[int]) -> nn.Module:
        """A linear map without bias, then the decoder; F outputs."""
        (features,) = in_shape
        network: nn.Module
        if self.kind in ("gat", "gcn"):
            arguments: dict[str, Any] = dict(hidden=[features], norm="none", final_activation="none")
            if self.kind == "gat":
                arguments |= dict(heads=self.heads, dropout=self.dropout, attention_dropout=self.attention_dropout)
            network = ENCODERS.get(self.kind)((in_dim,), **arguments)
        elif self.kind == "mlp":
            hidden = [nn.Linear(in_dim, in_dim), nn.PReLU(), nn.Dropout(self.dropout)]
            network = nn.Sequential(*hidden, nn.Linear(in_dim, features))
        else:
            network = nn.Linear(in_dim, features)
        return NodeDecoder(in_dim, network, self.kind)

    def token(self, in_shape: Sequence[int]) -> Tensor:
        """Zeros [F]."""
        return torch.zeros(tuple(in_shape))

    def forward(
        self, online: Sequence[Branch], target: Sequence[Branch] | None, gather: Gather
    ) -> Mapping[str, Tensor]:
        """Online branches, each with what the decoder has made → the mean loss of the views."""
        losses = [scaled_cosine_error(*_made_and_true(branch), self.gamma) for branch in online]
        return {"graphmae": torch.stack(losses).mean()}


class NodeDecoder(nn.Module):
    """``network`` of W h, in which hidden nodes are zero where it reads edges: representations → features [M, F].

    Args:
        in_dim: width of h.
        network: of rows, or of graph views.
        kind: see ``GraphMAE``.
    """

    def __init__(self, in_dim: int, network: nn.Module, kind: str) -> None:
        super().__init__()
        self.first = nn.Linear(in_dim, in_dim, bias=False)
        self.network = network
        self.reads_edges, self.chooses_rows = kind in ("gat", "gcn"), kind == "gat"

    def forward(self, h: Tensor, view: Any) -> Tensor:
        """Representations [N, in_dim] of all nodes of a view → [M, F] of its hidden ones."""
        if view.sample_rows is not None:
            raise RecipeError(
                "objective: the decoder of graphmae reads representations of all nodes of a graph, and of these only "
                f"{view.sample_rows} are samples; use domain.batching of type 'full' or 'parts', without half_hop"
            )
        rows = view.hidden.rows
        if not self.reads_edges:
            made: Tensor = self.network(self.first(h[rows]))
            return made
        x = self.first(h).index_fill(0, rows, 0.0)
        graph = view.undropped(x)
        out: Tensor = self.network(graph, rows=rows) if self.chooses_rows else self.network(graph)[rows]
        return out


def scaled_cosine_error(made: Tensor, true: Tensor, gamma: float) -> Tensor:
    """Mean over rows [M, F] of (1 − cos)^γ; a row of zeros has the cosine 0. Hou et al. 2022, eq. 2."""
    with full_precision(made.device):
        made, true = (functional.normalize(widen(rows), dim=1) for rows in (made, true))
        return (1 - (made * true).sum(1)).pow(gamma).mean()


def _made_and_true(branch: Branch) -> tuple[Tensor, Tensor]:
    if branch.d is None or branch.hidden is None:
        raise RecipeError("graphmae: a view hides nothing; let the domain hide nodes, by node_mask")
    return branch.d, branch.hidden.values
