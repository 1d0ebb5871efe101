"""Batches of root nodes with sampled neighbourhoods, for graphs on which a step of all nodes costs too much.

Nothing here has a state: which neighbours a node draws is a function of (seed, step, hop, node), by a hash.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.memory import onto
from sslcollapse.core.seeding import derive_seed, generator
from sslcollapse.core.types import Batch, Context
from sslcollapse.domains.base import Order
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView
from sslcollapse.domains.graph.views import GraphViews
from sslcollapse.nn.sparse import Pattern
from sslcollapse.recipe.schema import AtLeast

if TYPE_CHECKING:
    from sslcollapse.domains.graph.domain import GraphDomain

# Of SplitMix64, as int64 holds them.
_STEP, _FIRST, _SECOND = (n - (1 << 64) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def hashed(key: int, first: Tensor, *others: Tensor | int) -> Tensor:
    """Uniform whole numbers of 63 bits from a key and coordinates, which are whole numbers.

    SplitMix64's output function (Steele, Lea & Flood 2014), once for each coordinate, on numbers that wrap at 64 bits.
    """
    state = _mixed(first * _STEP + key)
    for other in others:
        state = _mixed(state + (other * _STEP if isinstance(other, Tensor) else _wrapped(other * _STEP)))
    return state & ((1 << 63) - 1)


def _wrapped(number: int) -> int:
    """As int64 holds it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # torch's shift brings the sign along


@dataclass(frozen=True)
class InEdges:
    """The edges into each node, without self-loops; where there are none, the node has itself alone.

    Shapes:
        pointers: [N + 1] int64, where the edges of each node begin.
        sources: [E'] int64 or int32, in the order of the targets; may be mapped from a file, so never written to.
    """

    pointers: Tensor
    sources: Tensor

    @staticmethod
    def of(structure: GraphStructure) -> InEdges:
        """Those of a graph; of one that is stored by target, the stored ones."""
        if structure.in_edges is not None:
            return structure.in_edges
        source, target = structure.edge_index
        proper = source != target
        source, target = source[proper], target[proper]
        counts = torch.bincount(target, minlength=structure.num_nodes)
        sources = source[torch.argsort(target, stable=True)]
        return InEdges(torch.cat([counts.new_zeros(1), counts.cumsum(0)]), sources)

    def degree(self, nodes: Tensor) -> Tensor:
        """How many there are of each node [n]."""
        return self.pointers[nodes + 1] - self.pointers[nodes]

    def all(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Position in ``nodes`` [n] and source of each edge into them, sorted by position."""
        degree = self.degree(nodes)
        row = torch.repeat_interleave(torch.arange(len(nodes), device=nodes.device), degree)
        before = (self.pointers[nodes] - degree.cumsum(0) + degree)[row]
        return row, self.sources[before + torch.arange(len(row), device=row.device)].long()

    def drawn(self, nodes: Tensor, fanout: int, key: int) -> tuple[Tensor, Tensor]:
        """At most ``fanout`` neighbours of each node [n], without replacement, all sets of them equally likely.

        What a node draws depends on the key and on the node, not on those beside it.

        Returns:
            Position in ``nodes`` and source of each edge drawn, sorted by position.
        """
        degree = self.degree(nodes)
        width = min(fanout, int(degree.max()) if len(nodes) else 0)
        slots = torch.arange(width, device=nodes.device).repeat(len(nodes), 1)  # [n, width]
        many = (degree > fanout).nonzero().flatten()
        if len(many):
            slots[many] = _subsets(degree[many], nodes[many], fanout, key)
        row, column = (slots < degree[:, None]).nonzero(as_tuple=True)
        return row, self.sources[self.pointers[nodes[row]] + slots[row, column]].long()


def _subsets(degree: Tensor, nodes: Tensor, size: int, key: int) -> Tensor:
    """[n, size] different numbers below each degree, by Floyd's algorithm: its cost does not depend on the degrees."""
    chosen = degree.new_empty(len(degree), size)
    for j in range(size):
        top = degree - size + j
        pick = hashed(key, nodes, j) % (top + 1)
        taken = (chosen[:, :j] == pick[:, None]).any(dim=1)
        chosen[:, j] = torch.where(taken, top, pick)
    return chosen


class SampledStructure(GraphStructure):
    """Root nodes and what was drawn around them, hop by hop; a node has an entry for each hop at which it was met.

    With entries of their own, what is computed for a root depends on its own draws alone, whatever else is in the
    batch. Edges go from one hop to the one before.

    Shapes:
        nodes: [N] number of each entry's node in the graph, roots first.
        edge_index: [2, E] between entries.
        weight: [E] edges of the target in the graph, for each that was drawn.
        unseen: [N] of the entries of the last hop, which draw nothing, their edges in the graph; of others 0.
    """

    hops: tuple[int, ...]
    weight: Tensor
    unseen: Tensor

    def __init__(self, nodes: Tensor, edge_index: Tensor, hops: Sequence[int], weight: Tensor, unseen: Tensor) -> None:
        super().__init__(edge_index, len(nodes))
        self.nodes, self.hops, self.weight, self.unseen = nodes, tuple(hops), weight, unseen
        self._patterns: dict[str, Pattern] = {}  # which views with other numbers of unseen edges share

    @property
    def with_loops(self) -> Pattern:  # type: ignore[override]
        """As of any graph; made once for all views."""
        return self._made("with_loops")

    @property
    def plain(self) -> Pattern:  # type: ignore[override]
        """As of any graph; made once for all views."""
        return self._made("plain")

    @cached_property
    def proper_edges(self) -> Tensor:
        """All, since entries of different hops differ."""
        return torch.arange(self.edge_index.shape[1], device=self.edge_index.device)

    def thinned(self, kept: float) -> SampledStructure:
        """The same, of which each edge is kept with this probability: of unseen ones so many are expected."""
        other = copy.copy(self)
        other.unseen = self.unseen * kept
        return other

    def to(self, device: torch.device) -> SampledStructure:
        """The same structure on another device."""
        if self.edge_index.device == device:
            return self
        tensors = (onto(device, each) for each in (self.nodes, self.edge_index, self.weight, self.unseen))
        nodes, edges, weight, unseen = tensors
        return SampledStructure(nodes, edges, self.hops, weight, unseen)

    def _made(self, name: str) -> Pattern:
        if name not in self._patterns:
            self._patterns[name] = vars(GraphStructure)[name].func(self)
        return self._patterns[name]


def sampled(edges: InEdges, roots: Tensor, fanout: Sequence[int], keys: Sequence[int]) -> SampledStructure:
    """Root nodes [B] with so many neighbours a node at each hop, drawn with a key a hop."""
    hops, met, pairs, weights, start = [roots], [len(roots)], [], [], 0
    for most, key in zip(fanout, keys, strict=True):
        row, source = edges.drawn(hops[-1], most, key)
        nodes, entry = torch.unique(source, return_inverse=True)
        pairs.append(torch.stack([entry + met[-1], row + start]))
        degree = edges.degree(hops[-1])
        weights.append((degree / degree.clamp(1, most))[row])
        start = met[-1]
        hops.append(nodes)
        met.append(met[-1] + len(nodes))
    unseen = torch.cat([roots.new_zeros(start), edges.degree(hops[-1])]).float()
    return SampledStructure(torch.cat(hops), torch.cat(pairs, dim=1), met, torch.cat(weights), unseen)


def refuse_graphs(domain: GraphDomain, instead: str) -> None:
    """Refuse a number of graphs a step where batches are made of nodes; says what there is in its place."""
    if domain.batch_size is not None:
        raise RecipeError(
            f"domain.batch_size: {domain.batch_size} graphs a step are for domain.batching of type 'full'; leave it "
            f"out, domain.batching.{instead} a step has"
        )


class NeighbourBatches:
    """Root nodes with sampled neighbourhoods; the loss is on the roots.

    Every epoch visits all nodes to pre-train on as roots, in an order drawn from (seed, epoch); a last incomplete batch
    is left out. The graph stays on the host; what a step has is moved to the device. An edge is in a view or not,
    wherever it is met, and a masked column is masked for all.

    Args:
        batch_size: roots a step over all ranks, each of which takes an equal share.
        fanout: how many neighbours are drawn at most at each hop; as many hops as the encoder has convolutions.
        shared: whether the two views of a root share its neighbourhood; else each draws its own.

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
    ) -> None:
        if batch_size < 1:
            raise RecipeError(f"batch_size must be >= 1, got {batch_size}")
        if not fanout or min(fanout) < 1:
            raise RecipeError(f"fanout: needs a number >= 1 for each hop, got {list(fanout)}")
        self.batch_size, self.fanout, self.shared = batch_size, tuple(fanout), shared

    def check(self, domain: GraphDomain, world_size: int) -> None:
        """Refuse roots that ranks cannot share equally, and a batch of graphs beside them."""
        refuse_graphs(domain, "batch_size says how many root nodes")
        if self.batch_size % world_size:
            raise RecipeError(
                f"domain.batching.batch_size: {self.batch_size} root nodes cannot be shared equally by {world_size} "
                f"ranks; use a multiple of {world_size}"
            )

    def fit(self, domain: GraphDomain) -> None:
        """Refuse more roots than there are nodes."""
        graphs = domain.dataset.graphs
        nodes = sum(graphs[i].num_nodes for i in domain.dataset.train_graphs)
        if self.batch_size > nodes:
            raise RecipeError(
                f"domain.batching.batch_size: {self.batch_size} root nodes are more than the {nodes} pre-training "
                f"nodes of {domain.dataset.name}; use at most {nodes}, or domain.batching of type 'full'"
            )

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
        graph = domain.union(sorted(domain.dataset.train_graphs))
        edges = InEdges.of(graph.structure)
        order = Order(torch.arange(graph.num_nodes), self.batch_size, context)
        for step, roots in order.places(start_step):
            yield self._batch(domain, graph.features, edges, step, roots, context)

    def _batch(
        self, domain: GraphDomain, features: Features, edges: InEdges, step: int, roots: Tensor, context: Context
    ) -> Batch:
        views: list[GraphView] = []
        assert isinstance(domain.views, GraphViews)  # by the domain's check
        for k, (edge_drop, feature_mask) in enumerate(zip(*domain.views.probabilities(), strict=True)):
            if not views or not self.shared:
                own = () if self.shared else (k,)
                keys = [derive_seed("neighbours", context.seed, step, hop, *own) for hop in range(len(self.fanout))]
                drawn = sampled(edges, roots, self.fanout, keys)
                base = GraphView(drawn.to(context.device), features.rows(drawn.nodes).to(context.device))
            keep = mask = None
            structure: SampledStructure = base.structure  # type: ignore[assignment]
            if edge_drop > 0:
                key = derive_seed("neighbour edges", context.seed, step, k)
                keep = _uniform(structure, key, domain.views.undirected) >= edge_drop
                structure = structure.thinned(1 - edge_drop)
            if feature_mask > 0:
                rng = generator(torch.device("cpu"), "neighbour features", context.seed, step, k)
                mask = (torch.rand(features.shape[1], generator=rng) >= feature_mask).to(features.dtype)
                mask = onto(context.device, mask)
            views.append(GraphView(structure, base.features.masked(mask), keep))
        return Batch(views, roots, None, False)


def _uniform(structure: SampledStructure, key: int, undirected: bool) -> Tensor:
    """A number in [0, 1) for each edge [E], by the nodes that it joins; with ``undirected`` the same both ways."""
    source, target = structure.nodes[structure.edge_index]
    if undirected:
        source, target = torch.minimum(source, target), torch.maximum(source, target)
    return (hashed(key, source, target) >> 10).double() * 2.0**-53
