"""How the views of a graph are made: as two probabilities a view, or as a chain of steps, each a component."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.memory import onto
from sslcollapse.core.registry import GRAPH_CHAINS, GRAPH_VIEWS
from sslcollapse.core.types import Hidden
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView, augment
from sslcollapse.nn.sparse import Pattern, SparseMatrix
from sslcollapse.recipe.schema import Component, Momentum, Probability


class Views(Protocol):
    """How a graph domain makes its views.

    Attributes:
        count: how many views a batch has.
        undirected: whether the two directions of an edge are dropped together.
    """

    @property
    def count(self) -> int:
        """How many views a batch has."""

    @property
    def undirected(self) -> bool:
        """Whether the two directions of an edge are dropped together."""

    def make(self, base: GraphView, number: int, rng: torch.Generator) -> GraphView:
        """View ``number``, from 0, of a graph that is as it is."""
        ...


@dataclass(frozen=True)
class GraphViews:
    """Two views of a graph: edges dropped, feature columns masked.

    A masked column is zero for all nodes.

    Args:
        edge_drop: probability that an edge is dropped, one entry a view.
        feature_mask: probability that a feature column is masked, one entry a view.
        undirected: whether the two directions of an edge are dropped together, so that an undirected graph stays one;
            by default each is dropped independently, as in the authors' code.
        strength: in [0, 1], multiplies all four probabilities: 0 leaves the graph as it is, 1 is the full preset.

    Raises:
        RecipeError: not two probabilities in [0, 1), or a strength outside [0, 1].

    Source: You et al. 2020; Zhu et al. 2020 (GRACE).
    """

    edge_drop: Sequence[Momentum] = (0.5, 0.4)
    feature_mask: Sequence[Momentum] = (0.5, 0.4)
    strength: Probability = 1.0
    undirected: bool = False

    count = 2

    def __post_init__(self) -> None:
        for name, values in (("edge_drop", self.edge_drop), ("feature_mask", self.feature_mask)):
            if len(values) != 2 or not all(0.0 <= p < 1.0 for p in values):
                raise RecipeError(f"{name}: needs two probabilities in [0, 1), one a view, got {list(values)}")
        if not 0.0 <= self.strength <= 1.0:
            raise RecipeError(f"strength: must be in [0, 1], got {self.strength}")

    def probabilities(self) -> tuple[list[float], list[float]]:
        """Edge-drop and feature-mask probabilities of the two views."""
        return [self.strength * p for p in self.edge_drop], [self.strength * p for p in self.feature_mask]

    def make(self, base: GraphView, number: int, rng: torch.Generator) -> GraphView:
        """View 0 or 1."""
        edge_drop, feature_mask = (odds[number] for odds in self.probabilities())
        return augment(base, edge_drop, feature_mask, rng, undirected=self.undirected)


StepT = TypeVar("StepT", bound="Step")


class Step(ABC):
    """One step of a chain. Its numbers are shares, of which ``strength`` keeps a part."""

    @abstractmethod
    def scaled(self: StepT, strength: float) -> StepT:
        """The same step, so much of it: none of it at 0."""

    @abstractmethod
    def __call__(self, view: GraphView, rng: torch.Generator) -> GraphView:
        """The view after this step; what is drawn is drawn from ``rng``, on its device."""


class Chain:
    """Any number of views, each by steps that act one after the other.

    Args:
        views: one list a view of components of the kind ``graph_view``; a view without steps is the graph as it is.
        strength: in [0, 1], multiplies the probabilities of all steps.

    Raises:
        RecipeError: no view, or a step that cannot be.
    """

    undirected = False

    def __init__(
        self,
        *,
        views: Sequence[Sequence[Annotated[dict[str, Any], Component("graph_view")]]],
        strength: Probability = 1.0,
    ) -> None:
        if not views:
            raise RecipeError("views: a batch has one view at least; give each a list of steps")
        if not 0.0 <= strength <= 1.0:
            raise RecipeError(f"strength: must be in [0, 1], got {strength}")
        steps = [[GRAPH_VIEWS.build(step) for step in view] for view in views]
        self.steps = [[step.scaled(strength) for step in view] for view in steps]

    @property
    def count(self) -> int:
        """How many views a batch has."""
        return len(self.steps)

    def make(self, base: GraphView, number: int, rng: torch.Generator) -> GraphView:
        """All steps of one view, in their order, from one stream of random numbers."""
        view = base
        for step in self.steps[number]:
            view = step(view, rng)
        return view


def views_of(spec: GraphViews | Mapping[str, Any]) -> Views:
    """Views from what a recipe says: the fields of ``GraphViews``, or a component of the kind ``graph_views``."""
    if isinstance(spec, GraphViews):
        return spec
    views: Views = GRAPH_CHAINS.build(spec) if "type" in spec else GraphViews(**spec)
    return views


@dataclass(frozen=True, kw_only=True)
class EdgeDrop(Step):
    """Each edge is dropped with this probability.

    Args:
        p: the probability.
        undirected: whether the two directions of an edge are dropped together.

    Source: You et al. 2020 (GraphCL).
    """

    p: Momentum
    undirected: bool = False

    def __post_init__(self) -> None:
        _check_share("p", self.p)

    def scaled(self, strength: float) -> EdgeDrop:
        """With a part of the probability."""
        return replace(self, p=self.p * strength)

    def __call__(self, view: GraphView, rng: torch.Generator) -> GraphView:
        """The view without some edges."""
        found = augment(view, self.p, 0.0, rng, undirected=self.undirected)
        keep = view.keep if found.keep is None else found.keep if view.keep is None else found.keep & view.keep
        return GraphView(view.structure, view.features, keep, view.hidden)


@dataclass(frozen=True, kw_only=True)
class FeatureMask(Step):
    """Each feature column is masked, zero for all nodes, with this probability.

    Source: Zhu et al. 2020 (GRACE).
    """

    p: Momentum

    def __post_init__(self) -> None:
        _check_share("p", self.p)

    def scaled(self, strength: float) -> FeatureMask:
        """With a part of the probability."""
        return replace(self, p=self.p * strength)

    def __call__(self, view: GraphView, rng: torch.Generator) -> GraphView:
        """The view with some columns masked."""
        found = augment(view, 0.0, self.p, rng).features.mask
        before = view.features.mask
        mask = before if found is None else found if before is None else found * before
        return GraphView(view.structure, view.features.masked(mask), view.keep, view.hidden)


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
        _check_share("p", self.p)
        _check_share("replace", self.replace)

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
        hidden = Hidden(rows, view.features.rows(rows).dense)
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
        _check_share("p", self.p, most=True)
        _check_share("alpha", self.alpha, most=True)

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


def _check_share(name: str, value: float, *, most: bool = False) -> None:
    if not (0.0 <= value <= 1.0 if most else 0.0 <= value < 1.0):
        raise RecipeError(f"{name}: must be in [0, 1{']' if most else ')'}, got {value}")
