"""Batches of parts of a large graph, random ones or clusters, with the edges within them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from torch import Tensor

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.seeding import generator
from sslcollapse.core.texts import say
from sslcollapse.core.types import Batch, Context
from sslcollapse.domains.base import BatchPlace, Order
from sslcollapse.domains.graph.batching import AHEAD, check_ahead, prepared
from sslcollapse.domains.graph.clusters import clustered
from sslcollapse.domains.graph.neighbours import InEdges
from sslcollapse.domains.graph.roots import edges_of, refuse_graphs
from sslcollapse.domains.graph.view import GraphStructure, GraphView
from sslcollapse.recipe.schema import AtLeast

if TYPE_CHECKING:
    from sslcollapse.domains.graph.domain import GraphDomain


SAID_FROM = 100_000
"""Nodes from which on grouping them takes seconds."""


class PartBatches:
    """Some parts of the nodes, with the edges within them; the loss is on all of their nodes.

    Parts are of equal size, and nodes that are left over are left out. With ``method="random"`` each epoch divides the
    nodes anew, by an order drawn from (seed, epoch). With ``"clusters"`` they are divided once, by label propagation,
    and each epoch draws which clusters are in a batch. A step has the edges between all parts of its batch. Self-loops
    are left out.

    Args:
        parts: into how many parts the nodes are divided.
        per_batch: how many of them a step has over all ranks; each has an equal share, and the edges within it.
        method: whether parts are random, or clusters.
        ahead: how many batches a thread makes before they are asked for; 0 makes each in its step. Changes no number.

    Source: Chiang et al. 2019 (Cluster-GCN), who cluster with METIS.
    """

    whole = False
    draws_views = False

    def __init__(
        self,
        *,
        parts: Annotated[int, AtLeast(1)],
        per_batch: Annotated[int, AtLeast(1)] = 1,
        method: Literal["random", "clusters"] = "random",
        ahead: Annotated[int, AtLeast(0)] = AHEAD,
    ) -> None:
        for name, number in (("parts", parts), ("per_batch", per_batch)):
            if number < 1:
                raise RecipeError(f"{name} must be >= 1, got {number}")
        if per_batch > parts:
            raise RecipeError(f"per_batch: {per_batch} parts a step are more than there are, parts={parts}")
        if method not in ("random", "clusters"):
            raise RecipeError(f"method must be 'random' or 'clusters', got {method!r}")
        check_ahead(ahead)
        self.parts, self.per_batch, self.method, self.ahead = parts, per_batch, method, ahead
        self._clusters: tuple[int, Tensor] | None = None

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
        return prepared(lambda: self._made(domain, start_step, context), self.ahead)

    def _made(self, domain: GraphDomain, start_step: int, context: Context) -> Iterator[Batch]:
        graph = domain.union(sorted(domain.dataset.train_graphs))
        edges, place = edges_of(graph.structure, domain.dataset.name), torch.full((graph.num_nodes,), -1)
        for step, nodes in self._places(edges, start_step, context):
            structure = induced(edges, nodes, place)
            base = GraphView(structure.to(context.device), graph.features.rows(nodes).to(context.device))
            views = [
                domain.views.make(base, k, generator(context.device, "view", context.seed, step, context.rank, k))
                for k in range(domain.views.count)
            ]
            yield Batch(views, nodes, None, False, equal=True)

    def _places(self, edges: InEdges, start_step: int, context: Context) -> Iterator[BatchPlace]:
        """The nodes of each batch."""
        count = len(edges.pointers) - 1
        size = count // self.parts
        if self.method == "random":
            yield from Order(torch.arange(count), size * self.per_batch, context).places(start_step)
        if self._clusters is None or self._clusters[0] != context.seed:
            if count >= SAID_FROM:
                say(f"{count:,} nodes are grouped into clusters, once")
            self._clusters = context.seed, clustered(edges, size, context.seed)
        members = self._clusters[1][: size * self.parts].view(self.parts, size)
        for step, chosen in Order(torch.arange(self.parts), self.per_batch, context).places(start_step):
            yield BatchPlace(step, members[chosen].flatten())


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
