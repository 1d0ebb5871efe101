"""Batches of root nodes with fixed ego graphs: the nodes that matter most to each, and the edges between these."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from torch import Tensor

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.types import Batch, Context
from sslcollapse.domains.base import Order
from sslcollapse.domains.graph.batching import AHEAD, check_ahead, prepared
from sslcollapse.domains.graph.neighbours import InEdges, SampledStructure
from sslcollapse.domains.graph.ppr import nearest, table_of
from sslcollapse.domains.graph.roots import check_roots, edges_of, fit_roots, refuse_graphs, sampled_views
from sslcollapse.domains.graph.view import GraphView
from sslcollapse.nn.sparse import stable_order
from sslcollapse.recipe.schema import Above, AtLeast, Between

if TYPE_CHECKING:
    from sslcollapse.domains.graph.domain import GraphDomain


class EgoBatches:
    """Root nodes with ego graphs that are always the same; the loss is on the roots.

    The ego graph of a node has the nodes with the largest personalised PageRank, and all edges between them; those of
    two roots are apart, also where they have the same nodes. Every epoch visits all nodes to pre-train on as roots, in
    an order drawn from (seed, epoch); a last incomplete batch is left out.

    Args:
        batch_size: roots a step over all ranks, each of which takes an equal share.
        method: by what the nodes are chosen.
        size: nodes of an ego graph at most, its root among them.
        alpha: probability with which a walk returns to its root.
        epsilon: residual, for each edge of a node, below which it is no longer followed.
        file: where the nodes of all ego graphs are kept, 4 × size bytes a node. It is made before the first step where
            it is not there yet; without a file each step finds those of its roots anew.
        ahead: how many batches a thread makes before they are asked for; 0 makes each in its step. Changes no number.

    Source: Andersen, Chung & Lang 2006; Hou et al. 2023 (GraphMAE2), who train on local clusters made so.
    """

    whole = False
    draws_views = True

    def __init__(
        self,
        *,
        batch_size: Annotated[int, AtLeast(1)],
        method: Literal["ppr"] = "ppr",
        size: Annotated[int, AtLeast(1)] = 256,
        alpha: Annotated[float, Between(0, 1, open="left")] = 0.15,
        epsilon: Annotated[float, Above(0)] = 1e-4,
        file: str | None = None,
        ahead: Annotated[int, AtLeast(0)] = AHEAD,
    ) -> None:
        for name, number in (("batch_size", batch_size), ("size", size)):
            if number < 1:
                raise RecipeError(f"{name} must be >= 1, got {number}")
        if method != "ppr":
            raise RecipeError(f"method must be 'ppr', got {method!r}")
        if not 0 < alpha <= 1:
            raise RecipeError(f"alpha must be in (0, 1], got {alpha}")
        if not epsilon > 0:
            raise RecipeError(f"epsilon must be > 0, got {epsilon}")
        check_ahead(ahead)
        self.batch_size, self.size, self.alpha, self.epsilon = batch_size, size, alpha, epsilon
        self.file, self.ahead = file, ahead

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
            f"{self.batch_size} root nodes a step on {world_size} ranks: each has the ego graphs of its own "
            f"{self.batch_size // world_size}, the same that one rank would have; every rank holds the whole graph."
        )

    def batches(self, domain: GraphDomain, start_step: int, context: Context) -> Iterator[Batch]:
        """Endless batches; which roots batch k has depends on (seed, k, rank, world size) only."""
        self.fit(domain)
        graph = domain.union(sorted(domain.dataset.train_graphs))
        edges = edges_of(graph.structure, domain.dataset.name)
        rule = (self.size, self.alpha, self.epsilon)
        table = None if self.file is None else table_of(Path(self.file).expanduser(), edges, *rule)

        def made() -> Iterator[Batch]:
            order = Order(torch.arange(graph.num_nodes), self.batch_size, context)
            for step, roots in order.places(start_step):
                members = nearest(edges, roots, *rule) if table is None else table[roots].long()
                structure = egos(edges, members)
                base = GraphView(structure.to(context.device), graph.features.rows(structure.nodes).to(context.device))
                yield Batch(sampled_views(domain, [base, base], step, context), roots, None, False, equal=True)

        return prepared(made, self.ahead)


def egos(edges: InEdges, members: Tensor) -> SampledStructure:
    """The edges between the nodes of each ego graph [B, size], its root first, −1 for none; roots come first."""
    roots, nodes = len(members), len(edges.pointers) - 1
    ego, place = (members >= 0).nonzero(as_tuple=True)
    order = stable_order((place > 0).long(), 2)[0]
    ego, place = ego[order], place[order]
    entries = members[ego, place]
    row, source = edges.all(entries)
    # An edge is there where its source is in the ego graph of its target: the pair of both numbers is looked for.
    sort, pairs = stable_order(ego * nodes + entries, roots * nodes)
    wanted = ego[row] * nodes + source
    found = torch.searchsorted(pairs, wanted).clamp_(max=len(pairs) - 1)
    there = pairs[found] == wanted
    drawn = torch.stack([sort[found[there]], row[there]])
    one = torch.ones(drawn.shape[1])
    return SampledStructure(entries, drawn, [roots, len(entries)], one, torch.zeros(len(entries)))
