"""Nodes in an order in which neighbours are near each other, by label propagation with labels of bounded size."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcollapse.core.seeding import derive_seed
from sslcollapse.domains.graph.neighbours import InEdges, distinct, hashed
from sslcollapse.nn.sparse import stable_order

ROUNDS = 6
"""How often every node may change its label."""

EDGES_AT_ONCE = 1 << 21
"""Edges that are looked at together, so that what is needed beside the graph does not grow with them."""

_PARTS_OF_A_ROUND = 8


def clustered(edges: InEdges, size: int, seed: int) -> Tensor:
    """All nodes [N], those of a cluster one after the other; cut into pieces of ``size`` it gives balanced clusters.

    At first each node has a label of its own. Then nodes in a random order, some at a time, take the label that most of
    their neighbours have, where it has fewer than ``size`` nodes. The same is done with the clusters, as nodes of a
    graph, so that those with edges between them come one after the other.

    Source: Raghavan et al. 2007 (label propagation); Meyerhenke et al. 2014 (size constraints).
    """
    nodes = len(edges.pointers) - 1
    ones = torch.ones(nodes, dtype=torch.int64)
    labels = propagated_labels(edges, None, ones, size, derive_seed("clusters", seed, 0))
    found, labels = distinct(labels, nodes)
    between, weight = _contracted(edges, labels, len(found))
    sizes = torch.bincount(labels, minlength=len(found))
    above = propagated_labels(between, weight, sizes, 8 * size, derive_seed("clusters", seed, 1))
    return stable_order(above[labels] * len(found) + labels, len(found) ** 2)[0]


def propagated_labels(edges: InEdges, weight: Tensor | None, sizes: Tensor, most: int, key: int) -> Tensor:
    """A label for each node [N], one of the nodes' numbers.

    Args:
        edges: of the graph.
        weight: [E'] int64 of each edge; None for 1.
        sizes: [N] of the nodes.
        most: size that the nodes of a label have together at most, where no single node is larger.
        key: of the random order and of ties.
    """
    nodes = len(sizes)
    labels, held = torch.arange(nodes), sizes.clone()
    for turn in range(ROUNDS):
        order = stable_order(hashed(key, torch.arange(nodes), turn) >> 24, 1 << 39)[0]
        before = labels.clone()
        for chosen in _portions(order, edges):
            best = _most_common(edges, weight, labels, chosen, key + turn)
            moves = (best != labels[chosen]).nonzero().flatten()
            chosen, best = chosen[moves], best[moves]
            # Who comes first, in the random order, takes the room that a label has left.
            sort, target = stable_order(best, nodes)
            chosen = chosen[sort]
            total = sizes[chosen].cumsum(0)
            first = torch.searchsorted(target, target)
            before_run = torch.where(first > 0, total[first - 1], 0)
            fits = held[target] + total - before_run <= most
            chosen, target = chosen[fits], target[fits]
            held.index_add_(0, labels[chosen], -sizes[chosen])
            held.index_add_(0, target, sizes[chosen])
            labels[chosen] = target
        if torch.equal(before, labels):
            break
    return labels


def _portions(order: Tensor, edges: InEdges) -> list[Tensor]:
    """A random order in at least 8 pieces, of about so many edges at most."""
    average = max(1, len(edges.sources) // max(1, len(order)))
    return list(order.split(max(1, min(-(-len(order) // _PARTS_OF_A_ROUND), EDGES_AT_ONCE // average))))


def _most_common(edges: InEdges, weight: Tensor | None, labels: Tensor, nodes: Tensor, key: int) -> Tensor:
    """The label [n] of most of the edges into each node; of equal ones its own, else any; its own without edges."""
    row, place = edges.places(nodes)
    weights = torch.ones_like(row) if weight is None else weight[place]
    label = labels[edges.sources.index_select(0, place).long()]
    sort, pairs = stable_order(row * len(labels) + label, len(nodes) * len(labels))
    last = torch.cat([pairs[1:] != pairs[:-1], torch.ones(min(1, len(pairs)), dtype=torch.bool)])
    total = weights[sort].cumsum(0)[last]
    count = total - torch.cat([total.new_zeros(1), total])[:-1]
    row, label = pairs[last] // len(labels), pairs[last] % len(labels)
    own = labels[nodes]
    ties = hashed(key, label) >> 44  # 19 bits
    score = ((count << 1) + (label == own[row]) << 19) + ties
    best = torch.full((len(nodes),), -1).scatter_reduce_(0, row, score, "amax")
    wins = score == best[row]
    return own.clone().scatter_reduce_(0, row[wins], label[wins], "amax", include_self=False)


def _contracted(edges: InEdges, labels: Tensor, count: int) -> tuple[InEdges, Tensor]:
    """The graph of labels 0, ..., count - 1, and how many edges each of its edges stands for."""
    pairs, weights = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    for nodes in _portions(torch.arange(len(labels)), edges):
        row, source = edges.all(nodes)
        pair = labels[nodes][row] * count + labels[source]
        pair = pair[pair // count != pair % count]
        found, place = distinct(torch.cat([pairs, pair]), count**2)
        weights = found.new_zeros(len(found)).index_add_(0, place, torch.cat([weights, torch.ones_like(pair)]))
        pairs = found
    degree = torch.bincount(pairs // count, minlength=count)
    return InEdges(torch.cat([degree.new_zeros(1), degree.cumsum(0)]), pairs % count), weights
