"""Batches of root nodes with sampled neighbourhoods, for graphs on which a step of all nodes costs too much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.core.memory import onto
from sslcollapse.core.seeding import derive_seed, generator
from sslcollapse.core.types import Batch, Context
from sslcollapse.domains.base import Order
from sslcollapse.domains.graph.batching import AHEAD, check_ahead, prepared
from sslcollapse.domains.graph.neighbours import InEdges, SampledStructure, hashed, sampled
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView
from sslcollapse.domains.graph.views import GraphViews
from sslcollapse.recipe.schema import AtLeast

if TYPE_CHECKING:
    from sslcollapse.domains.graph.domain import GraphDomain


def refuse_graphs(domain: GraphDomain, instead: str) -> None:
    """Refuse a number of graphs a step where batches are made of nodes; says what there is in its place."""
    if domain.batch_size is not None:
        raise RecipeError(
            f"domain.batch_size: {domain.batch_size} graphs a step are for domain.batching of type 'full'; leave it "
            f"out, domain.batching.{instead} a step has"
        )


def check_roots(batch_size: int, world_size: int) -> None:
    """Refuse roots that ranks cannot share equally."""
    if batch_size % world_size:
        raise RecipeError(
            f"domain.batching.batch_size: {batch_size} root nodes cannot be shared equally by {world_size} ranks; "
            f"use a multiple of {world_size}"
        )


def fit_roots(domain: GraphDomain, batch_size: int) -> None:
    """Refuse more roots than there are nodes."""
    nodes = sum(domain.dataset.graphs[i].num_nodes for i in domain.dataset.train_graphs)
    if batch_size > nodes:
        raise RecipeError(
            f"domain.batching.batch_size: {batch_size} root nodes are more than the {nodes} pre-training nodes of "
            f"{domain.dataset.name}; use at most {nodes}, or domain.batching of type 'full'"
        )


def edges_of(structure: GraphStructure, name: str) -> InEdges:
    """The edges into each node of the graphs of a dataset; a graph without any between two nodes is refused."""
    edges = InEdges.of(structure)
    if not len(edges.sources):
        raise DataError(
            f"{name}: no edge joins two different nodes, so nodes have no neighbours to make batches of; check the "
            "edge file, or use domain.batching of type 'full'"
        )
    return edges


class NeighbourBatches:
    """Root nodes with sampled neighbourhoods; the loss is on the roots.

    Every epoch visits all nodes to pre-train on as roots, in an order drawn from (seed, epoch); a last incomplete batch
    is left out. The graph stays on the host; what a step has is moved to the device. An edge is in a view or not,
    wherever it is met, and a masked column is masked for all.

    Args:
        batch_size: roots a step over all ranks, each of which takes an equal share.
        fanout: how many neighbours are drawn at most at each hop; as many hops as the encoder has convolutions.
        shared: whether the two views of a root share its neighbourhood; else each draws its own.
        ahead: how many batches a thread makes before they are asked for; 0 makes each in its step. Changes no number.
        on_device: whether the graph is kept, and sampled, where the networks are. Draws are the same.

    Source: Hamilton et al. 2017 (neighbour sampling); the weights make a convolution of GCN an estimate of that on the
    graph, as in Chen et al. 2018 (FastGCN, eq. 3).
    """

    whole = False
    draws_views = True

    def __init__(
        self,
        *,
        batch_size: Annotated[int, AtLeast(1)],
        fanout: Sequence[Annotated[int, AtLeast(1)]] = (10, 10),
        shared: bool = True,
        ahead: Annotated[int, AtLeast(0)] = AHEAD,
        on_device: bool = False,
    ) -> None:
        if batch_size < 1:
            raise RecipeError(f"batch_size must be >= 1, got {batch_size}")
        if not fanout or min(fanout) < 1:
            raise RecipeError(f"fanout: needs a number >= 1 for each hop, got {list(fanout)}")
        check_ahead(ahead)
        self.batch_size, self.fanout, self.shared = batch_size, tuple(fanout), shared
        self.ahead, self.on_device = ahead, on_device

    def check(self, domain: GraphDomain, world_size: int) -> None:
        """Refuse roots that ranks cannot share equally, and a batch of graphs beside them."""
        refuse_graphs(domain, "batch_size says how many root nodes")
        check_roots(self.batch_size, world_size)

    def fit(self, domain: GraphDomain) -> None:
        """Refuse more roots than there are nodes."""
        fit_roots(domain, self.batch_size)

    def notice(self, domain: GraphDomain, world_size: int) -> str | None:
        """What each rank does."""
        if world_size == 1:
            return None
        return (
            f"{self.batch_size} root nodes a step on {world_size} ranks: each samples the neighbourhoods of its own "
            f"{self.batch_size // world_size}, the same that one rank would sample; every rank holds the whole graph."
        )

    def batches(self, domain: GraphDomain, start_step: int, context: Context) -> Iterator[Batch]:
        """Endless batches; what a root has around it depends on (seed, step, root) only."""
        self.fit(domain)
        return prepared(lambda: self._made(domain, start_step, context), self.ahead)

    def _made(self, domain: GraphDomain, start_step: int, context: Context) -> Iterator[Batch]:
        graph = domain.union(sorted(domain.dataset.train_graphs))
        edges, features = edges_of(graph.structure, domain.dataset.name), graph.features
        if self.on_device:
            edges, features = edges.to(context.device), features.to(context.device)
        order = Order(torch.arange(graph.num_nodes), self.batch_size, context)
        for step, roots in order.places(start_step):
            yield self._batch(domain, features, edges, step, roots, context)

    def _batch(
        self, domain: GraphDomain, features: Features, edges: InEdges, step: int, roots: Tensor, context: Context
    ) -> Batch:
        bases: list[GraphView] = []
        for k in range(2):
            if k and self.shared:
                bases.append(bases[0])
                continue
            own = () if self.shared else (k,)
            keys = [derive_seed("neighbours", context.seed, step, hop, *own) for hop in range(len(self.fanout))]
            drawn = sampled(edges, onto(edges.sources.device, roots), self.fanout, keys)
            bases.append(GraphView(drawn.to(context.device), features.rows(drawn.nodes).to(context.device)))
        return Batch(sampled_views(domain, bases, step, context), roots, None, False, equal=True)


def sampled_views(domain: GraphDomain, bases: Sequence[GraphView], step: int, context: Context) -> list[GraphView]:
    """Views of what a step has, whose structures are ``SampledStructure``; draws depend on (seed, step, view) only."""
    views = []
    assert isinstance(domain.views, GraphViews)  # by the domain's check
    for k, (base, edge_drop, feature_mask) in enumerate(zip(bases, *domain.views.probabilities(), strict=True)):
        keep = mask = None
        structure: SampledStructure = base.structure  # type: ignore[assignment]
        if edge_drop > 0:
            key = derive_seed("neighbour edges", context.seed, step, k)
            keep = _uniform(structure, key, domain.views.undirected) >= edge_drop
            structure = structure.thinned(1 - edge_drop)
        if feature_mask > 0:
            rng = generator(torch.device("cpu"), "neighbour features", context.seed, step, k)
            mask = (torch.rand(base.features.shape[1], generator=rng) >= feature_mask).to(base.features.dtype)
            mask = onto(context.device, mask)
        views.append(GraphView(structure, base.features.masked(mask), keep))
    return views


def _uniform(structure: SampledStructure, key: int, undirected: bool) -> Tensor:
    """A number in [0, 1) for each edge [E], by the nodes that it joins; with ``undirected`` the same both ways."""
    source, target = structure.nodes[structure.edge_index]
    if undirected:
        source, target = torch.minimum(source, target), torch.maximum(source, target)
    return (hashed(key, source, target) >> 10).double() * 2.0**-53
