"""Batches of random parts of a large graph, with the edges within them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.seeding import generator
from sslcollapse.core.types import Batch, Context
from sslcollapse.domains.base import Order
from sslcollapse.domains.graph.neighbours import InEdges, refuse_graphs
from sslcollapse.domains.graph.view import GraphStructure, GraphView
from sslcollapse.recipe.schema import AtLeast

if TYPE_CHECKING:
    from sslcollapse.domains.graph.domain import GraphDomain


class PartBatches:
    """Some random parts of the nodes, with the edges within them; the loss is on all of their nodes.

    Each epoch divides the nodes anew, by an order drawn from (seed, epoch), into parts of equal size; what is left over
    is left out. A step has the edges between all parts of its batch. Self-loops are left out.

    Args:
        parts: into how many parts the nodes are divided.
        per_batch: how many of them a step has over all ranks; each has an equal share, and the edges within it.

    Source: Chiang et al. 2019 (Cluster-GCN), with random parts in the place of clusters.
    """

    whole = False
    draws_views = False

    def __init__(self, *, parts: Annotated[int, AtLeast(1)], per_batch: Annotated[int, AtLeast(1)] = 1) -> None:
        for name, number in (("parts", parts), ("per_batch", per_batch)):
            if number < 1:
                raise RecipeError(f"{name} must be >= 1, got {number}")
        if per_batch > parts:
            raise RecipeError(f"per_batch: {per_batch} parts a step are more than there are, parts={parts}")
        self.parts, self.per_batch = parts, per_batch

    def check(self, domain: GraphDomain, world_size: int) -> None:
        """Refuse parts that ranks cannot share equally, and a batch of graphs beside them."""
        refuse_graphs(domain, "per_batch says how many parts")
        if self.per_batch % world_size:
            raise RecipeError(
                f"domain.batching.per_batch: {self.per_batch} parts cannot be shared equally by {world_size} ranks; "
                f"use a multiple of {world_size}"
            )

    def fit(self, domain: GraphDomain) -> None:
        """Refuse more parts than there are nodes."""
        nodes = sum(domain.dataset.graphs[i].num_nodes for i in domain.dataset.train_graphs)
        if self.parts > nodes:
            raise RecipeError(
                f"domain.batching.parts: {nodes} pre-training nodes of {domain.dataset.name} do not make {self.parts} "
                f"parts; use at most {nodes}"
            )

    def notice(self, domain: GraphDomain, world_size: int) -> str | None:
        """What each rank does."""
        if world_size == 1:
            return None
        return (
            f"{self.per_batch} parts of the graph a step on {world_size} ranks: each has "
            f"{self.per_batch // world_size} and the edges within them, fewer edges than one rank would have; every "
            "rank holds the whole graph."
        )

    def batches(self, domain: GraphDomain, start_step: int, context: Context) -> Iterator[Batch]:
        """Endless batches; batch k depends on (seed, k, rank, world size) only."""
        self.fit(domain)
        graph = domain.union(sorted(domain.dataset.train_graphs))
        edges, place = InEdges.of(graph.structure), torch.full((graph.num_nodes,), -1)
        size = graph.num_nodes // self.parts * self.per_batch
        for step, nodes in Order(torch.arange(graph.num_nodes), size, context).places(start_step):
            structure = induced(edges, nodes, place)
            base = GraphView(structure.to(context.device), graph.features.rows(nodes).to(context.device))
            views = [
                domain.views.make(base, k, generator(context.device, "view", context.seed, step, context.rank, k))
                for k in range(domain.views.count)
            ]
            yield Batch(views, nodes, None, False)


def induced(edges: InEdges, nodes: Tensor, place: Tensor) -> GraphStructure:
    """The edges between some nodes [n], which are numbered in their order.

    Args:
        edges: of the graph.
        nodes: different ones.
        place: [N] of −1, where they are written down for a moment, so that the cost does not depend on N.
    """
    place[nodes] = torch.arange(len(nodes))
    target, source = edges.all(nodes)
    source = place[source]
    place[nodes] = -1
    there = source >= 0
    return GraphStructure(torch.stack([source[there], target[there]]), len(nodes))
