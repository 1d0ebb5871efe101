"""How the views of a graph are made: as two probabilities a view, or as a chain of steps, each a component."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol, TypeVar

import torch

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.registry import GRAPH_CHAINS, GRAPH_VIEWS
from sslcollapse.domains.graph.view import GraphView, augment
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


class ViewChain:
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
        check_share("p", self.p)

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

    Args:
        p: the probability.

    Source: Zhu et al. 2020 (GRACE).
    """

    p: Momentum

    def __post_init__(self) -> None:
        check_share("p", self.p)

    def scaled(self, strength: float) -> FeatureMask:
        """With a part of the probability."""
        return replace(self, p=self.p * strength)

    def __call__(self, view: GraphView, rng: torch.Generator) -> GraphView:
        """The view with some columns masked."""
        found = augment(view, 0.0, self.p, rng).features.mask
        before = view.features.mask
        mask = before if found is None else found if before is None else found * before
        return GraphView(view.structure, view.features.masked(mask), view.keep, view.hidden)


def check_share(name: str, value: float, *, most: bool = False) -> None:
    """Refuse a share outside [0, 1), or [0, 1] where it may be ``most``; quotes it."""
    if not (0.0 <= value <= 1.0 if most else 0.0 <= value < 1.0):
        raise RecipeError(f"{name}: must be in [0, 1{']' if most else ')'}, got {value}")
