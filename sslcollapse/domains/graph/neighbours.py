"""Sampled neighbourhoods: which nodes are around some root nodes, of a graph whose surroundings are too large.

Nothing here has a state: which neighbours a node draws is a function of (seed, step, hop, node), by a hash.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sslcollapse.core.memory import onto
from sslcollapse.domains.graph.view import GraphStructure
from sslcollapse.nn.sparse import Pattern, stable_order

# Of SplitMix64, as int64 holds them.
_STEP, _FIRST, _SECOND = (n - (1 << 64) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def hashed(key: int, first: Tensor, *others: Tensor | int) -> Tensor:
    """Uniform whole numbers of 63 bits from a key and coordinates, which are whole numbers.

    SplitMix64's output function (Steele, Lea & Flood 2014), once for each coordinate, on numbers that wrap at 64 bits.
    """
    state = _mixed(first * _STEP + key)
    for other in others:
        state = _mixed(state + (other * _STEP if isinstance(other, Tensor) else _wrapped(other * _STEP)))
    return state.bitwise_and_((1 << 63) - 1)


def _wrapped(number: int) -> int:
    """As int64 holds it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _mixed(x: Tensor) -> Tensor:
    """Of numbers that nobody else has, which are written to: a step is bound by memory, and by the pages of new one."""
    x.bitwise_xor_(_shifted(x, 30)).mul_(_FIRST)
    x.bitwise_xor_(_shifted(x, 27)).mul_(_SECOND)
    return x.bitwise_xor_(_shifted(x, 31))


def _shifted(x: Tensor, bits: int) -> Tensor:
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)  # torch's shift brings the sign along


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
        sources = source[stable_order(target, structure.num_nodes)[0]]
        if structure.num_nodes < 2**31:
            sources = sources.int()  # half as much to read of what is met at random
        return InEdges(torch.cat([counts.new_zeros(1), counts.cumsum(0)]), sources)

    def to(self, device: torch.device) -> InEdges:
        """The same edges on another device."""
        return InEdges(onto(device, self.pointers), onto(device, self.sources))

    def degree(self, nodes: Tensor) -> Tensor:
        """How many there are of each node [n]."""
        return self.pointers.index_select(0, nodes + 1).sub_(self.pointers.index_select(0, nodes))

    def all(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Position in ``nodes`` [n] and source of each edge into them, sorted by position."""
        row, place = self.places(nodes)
        return row, self.sources.index_select(0, place).long()

    def places(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Position in ``nodes`` [n] and place in ``sources`` of each edge into them, sorted by position."""
        degree = self.degree(nodes)
        row = torch.repeat_interleave(torch.arange(len(nodes), device=nodes.device), degree)
        place = (self.pointers.index_select(0, nodes) - degree.cumsum(0) + degree).index_select(0, row)
        return row, place.add_(torch.arange(len(row), device=row.device))

    def drawn(self, nodes: Tensor, fanout: int, key: int) -> tuple[Tensor, Tensor]:
        """At most ``fanout`` neighbours of each node [n], without replacement, all sets of them equally likely.

        What a node draws depends on the key and on the node, not on those beside it.

        Returns:
            Position in ``nodes`` and source of each edge drawn, sorted by position.
        """
        return self._drawn(nodes, self.degree(nodes), fanout, key)

    def _drawn(self, nodes: Tensor, degree: Tensor, fanout: int, key: int) -> tuple[Tensor, Tensor]:
        counts = degree.clamp(max=fanout)
        row = torch.repeat_interleave(torch.arange(len(nodes), device=nodes.device), counts)
        many = (degree > fanout).nonzero().flatten()
        if len(many) == len(nodes):
            slot = _subsets(degree, nodes, fanout, key).flatten()
        else:
            before = counts.cumsum(0).sub_(counts)
            slot = torch.arange(len(row), device=nodes.device).sub_(before.index_select(0, row))
            if len(many):
                drawn = _subsets(degree[many], nodes[many], fanout, key)
                slot.masked_scatter_((degree > fanout).index_select(0, row), drawn)
        slot += self.pointers.index_select(0, nodes).index_select(0, row)
        return row, self.sources.index_select(0, slot).long()


def _subsets(degree: Tensor, nodes: Tensor, size: int, key: int) -> Tensor:
    """[n, size] different numbers below each degree, by Floyd's algorithm: its cost does not depend on the degrees."""
    turns = torch.arange(size, device=nodes.device)[:, None]
    top = degree - size + turns  # [size, n]
    chosen = hashed(key, nodes, turns).remainder_(top + 1)
    for j in range(1, size):
        taken = (chosen[:j] == chosen[j]).sum(dim=0, dtype=torch.int8)  # 0 or 1: those before are all different
        chosen[j] = torch.where(taken > 0, top[j], chosen[j])
    return chosen.t()


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
    degree = edges.degree(roots)
    for most, key in zip(fanout, keys, strict=True):
        row, source = edges._drawn(hops[-1], degree, most, key)
        nodes, entry = distinct(source, len(edges.pointers))
        pairs.append(torch.stack([entry.add_(met[-1]), row + start]))
        weights.append((degree / degree.clamp(1, most)).index_select(0, row))
        degree = edges.degree(nodes)
        start = met[-1]
        hops.append(nodes)
        met.append(met[-1] + len(nodes))
    unseen = torch.cat([roots.new_zeros(start), degree]).float()
    return SampledStructure(torch.cat(hops), torch.cat(pairs, dim=1), met, torch.cat(weights), unseen)


def distinct(values: Tensor, below: int) -> tuple[Tensor, Tensor]:
    """Different ones of some whole numbers [n] in ascending order, and the place among them of each: [m], [n].

    As ``torch.unique`` has them, in a fifth of its time on a host.

    Args:
        values: from 0 on.
        below: a number that is above all of them.
    """
    if values.device.type != "cpu" or not len(values):
        return torch.unique(values, return_inverse=True)
    order, ordered = stable_order(values, below)
    first = torch.cat([torch.ones(1, dtype=torch.bool), ordered[1:] != ordered[:-1]])
    place = torch.empty_like(order).scatter_(0, order, first.cumsum(0).sub_(1))
    return ordered.masked_select(first), place
