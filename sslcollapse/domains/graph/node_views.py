"""Steps of views that change nodes: some hide their features, or slow ones are put between others."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.memory import onto
from sslcollapse.core.types import Hidden
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView
from sslcollapse.domains.graph.views import Step, check_share
from sslcollapse.nn.sparse import Pattern, SparseMatrix
from sslcollapse.recipe.schema import Momentum, Probability


@dataclass(frozen=True, kw_only=True)
class NodeMask(Step):
    """A share of the nodes hides its features: an objective with a decoder has to find them again.

    Of the hidden nodes some have the features of other nodes, drawn at random; the others have none, and an objective
    with a token puts that in their place.

    Args:
        p: the share of nodes, of which the whole number below is hidden.
        replace: which share of these has another node's features.

    Source: Hou et al. 2022 (GraphMAE), section 3.2.
    """

    p: Momentum
    replace: Momentum = 0.0

    def __post_init__(self) -> None:
        check_share("p", self.p)
        check_share("replace", self.replace)

    def scaled(self, strength: float) -> NodeMask:
        """With a part of the nodes."""
        return NodeMask(p=self.p * strength, replace=self.replace)

    def __call__(self, view: GraphView, rng: torch.Generator) -> GraphView:
        """The view with some nodes hidden; needs a graph all of whose nodes are samples."""
        if view.hidden is not None or view.sample_rows is not None:
            raise RecipeError(
                "domain.views: node_mask hides nodes of a graph as a whole, once a view; let no node_mask or half_hop "
                "come before it, and use domain.batching of type 'full' or 'parts'"
            )
        nodes, device = view.num_nodes, view.structure.edge_index.device
        count = int(self.p * nodes)
        if not count:
            return view
        rows = torch.randperm(nodes, generator=rng, device=device)[:count]
        replaced = int(self.replace * count)  # the draw has them in any order, so that the last are as good as others
        source = None
        if replaced:
            source = torch.arange(nodes, device=device)
            source[rows[count - replaced :]] = torch.randperm(nodes, generator=rng, device=device)[:replaced]
        hidden = Hidden(rows, view.features.dense[rows])
        features = HiddenFeatures(view.features, rows[: count - replaced], source)
        return GraphView(view.structure, features, view.keep, hidden)


@dataclass(frozen=True, kw_only=True)
class HalfHop(Step):
    """Each node is chosen with this probability, and a slow node is put into each edge that leads to it.

    The slow node of an edge j → i has the features α xⱼ + (1 − α) xᵢ, and the edges j → slow → i and i → slow take the
    place of j → i. Slow nodes come after the nodes of the graph and are no samples. Self-loops stay.

    Args:
        p: the probability.
        alpha: how much of a slow node's features is its source's.

    Source: Azabou et al. 2023 (Half-Hop), section 3.
    """

    p: Probability = 1.0
    alpha: Probability = 0.5

    def __post_init__(self) -> None:
        check_share("p", self.p, most=True)
        check_share("alpha", self.alpha, most=True)

    def scaled(self, strength: float) -> HalfHop:
        """With a part of the probability."""
        return replace(self, p=self.p * strength)

    def __call__(self, view: GraphView, rng: torch.Generator) -> GraphView:
        """The view with slow nodes; needs a graph all of whose nodes are samples."""
        if view.hidden is not None or view.sample_rows is not None:
            raise RecipeError(
                "domain.views: half_hop is for a graph as a whole, once a view; let no node_mask or half_hop come "
                "before it, and use domain.batching of type 'full' or 'parts'"
            )
        nodes, edges = view.num_nodes, view.edge_index
        device = edges.device
        chosen = torch.rand(nodes, generator=rng, device=device) < self.p
        slowed = chosen[edges[1]] & (edges[0] != edges[1])
        source, target = edges[:, slowed]
        slow = nodes + torch.arange(len(source), device=device)
        parts = [edges[:, ~slowed], torch.stack([source, slow]), torch.stack([slow, target])]
        index = torch.cat([*parts, torch.stack([target, slow])], dim=1)
        graph = view.graph_index
        graph = None if graph is None else torch.cat([graph, graph[target]])
        structure = GraphStructure(index, nodes + len(slow), graph)
        structure.samples = nodes
        row = torch.arange(len(slow), device=device)
        pattern = Pattern.from_indices(torch.cat([row, row]), torch.cat([source, target]), (len(slow), nodes))
        share = torch.tensor([self.alpha, 1 - self.alpha], dtype=view.features.dtype, device=device)
        values = share.repeat_interleave(len(slow))[pattern.order]
        return GraphView(structure, SlowFeatures(view.features, SparseMatrix(pattern, values)))


class Derived(Features):
    """Features that are made of others row by row, so that a linear map of them is made of that of the others."""

    def __init__(self, inner: Features) -> None:
        self.inner = inner
        self.mask = inner.mask

    @abstractmethod
    def made(self, rows: Tensor, weight: Tensor | None) -> Tensor:
        """These rows of what the others' rows [N, d] are, in features, or after a map by ``weight`` [d, F]."""

    @property
    def shape(self) -> tuple[int, int]:
        """(N, F)."""
        return self.inner.shape

    @property
    def sparse(self) -> bool:
        """True: they are better mapped than propagated."""
        return True

    @property
    def dtype(self) -> torch.dtype:
        """Of the values."""
        return self.inner.dtype

    def linear(self, weight: Tensor) -> Tensor:
        """``x @ weight.T``: [N, F] × [D, F] → [N, D]."""
        return self.made(self.inner.linear(weight), weight)

    @cached_property
    def dense(self) -> Tensor:
        """As a dense [N, F] tensor."""
        return self.made(self.inner.dense, None)

    def rows(self, index: Tensor) -> Features:
        """Those of some nodes."""
        return Features(self.dense[index])

    def first(self, nodes: int) -> Features:
        """Those of the first nodes."""
        return Features(self.dense[:nodes])

    def dropout(self, p: float) -> Features:
        """With a share of the entries dropped."""
        return Features(functional.dropout(self.dense, p))


class HiddenFeatures(Derived):
    """Features of which some rows are a token, or zero without one, and others are another node's.

    Args:
        inner: of the graph.
        rows: [T] those of the token.
        source: [N] whose features each node has; None for its own.
        token: [F], or [T, F] one a row; None for zeros.
    """

    def __init__(
        self, inner: Features, rows: Tensor, source: Tensor | None = None, token: Tensor | None = None
    ) -> None:
        super().__init__(inner)
        self._rows, self._source, self._token = rows, source, token

    def made(self, rows: Tensor, weight: Tensor | None) -> Tensor:
        """Rows of others where a source says so, then the token's."""
        out = rows if self._source is None else rows[self._source]
        if self._token is None:
            return out.index_fill(0, self._rows, 0.0)
        token = self._token if weight is None else functional.linear(self._token, weight)
        return out.index_copy(0, self._rows, token.to(out.dtype).expand(len(self._rows), -1))

    def with_token(self, token: Tensor) -> HiddenFeatures:
        """The same with a token."""
        return HiddenFeatures(self.inner, self._rows, self._source, token)

    def dropout(self, p: float) -> HiddenFeatures:
        """With a share of the entries dropped; those of a replaced row are those of the row that it has."""
        token = self._token
        if token is not None:
            token = functional.dropout(token.expand(len(self._rows), -1), p)
        return HiddenFeatures(self.inner.dropout(p), self._rows, self._source, token)

    def masked(self, mask: Tensor | None) -> HiddenFeatures:
        """The same under another column mask, which a token does not have."""
        return HiddenFeatures(self.inner.masked(mask), self._rows, self._source, self._token)

    def to(self, device: torch.device) -> HiddenFeatures:
        """The same on another device."""
        rows, source, token = (
            None if each is None else onto(device, each) for each in (self._rows, self._source, self._token)
        )
        return HiddenFeatures(self.inner.to(device), rows, source, token)  # type: ignore[arg-type]


class SlowFeatures(Derived):
    """Features of the nodes of a graph, then of slow nodes, which are mixtures [S, N] of them."""

    def __init__(self, inner: Features, mixture: SparseMatrix) -> None:
        super().__init__(inner)
        self._mixture = mixture

    @property
    def shape(self) -> tuple[int, int]:
        """(N + S, F)."""
        return (self.inner.shape[0] + self._mixture.shape[0], self.inner.shape[1])

    def made(self, rows: Tensor, weight: Tensor | None) -> Tensor:
        """The rows and their mixtures."""
        return torch.cat([rows, self._mixture @ rows])

    def masked(self, mask: Tensor | None) -> SlowFeatures:
        """The same under another column mask."""
        return SlowFeatures(self.inner.masked(mask), self._mixture)

    def to(self, device: torch.device) -> SlowFeatures:
        """The same on another device."""
        return SlowFeatures(self.inner.to(device), self._mixture.to(device))
