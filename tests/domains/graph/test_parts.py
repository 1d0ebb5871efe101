from itertools import islice

import pytest
import torch
from tiny import random_graph

from sslcollapse import testing
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.types import Context
from sslcollapse.domains.graph import clusters
from sslcollapse.domains.graph.clusters import clustered
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.neighbours import InEdges
from sslcollapse.domains.graph.parts import induced
from sslcollapse.domains.graph.view import GraphStructure

DATASET = dict(type="csbm", nodes=120, features=12, train_per_class=5, validation_per_class=5)


def domain(tmp_path, **batching):
    return GraphDomain(tmp_path, dataset=DATASET, batching={"type": "parts", **batching})


def test_a_part_has_the_edges_of_the_graph_between_its_nodes_and_leaves_no_trace():
    graph, place = random_graph(), torch.full((60,), -1)
    nodes = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:25]
    part = induced(InEdges.of(graph.structure), nodes, place)
    inside = torch.isin(graph.edge_index, nodes).all(dim=0)
    expected = sorted(map(tuple, graph.edge_index[:, inside].t().tolist()))
    assert sorted(map(tuple, nodes[part.edge_index].t().tolist())) == expected
    assert len(expected) > 20
    assert (place == -1).all()


def test_an_epoch_has_every_part_once_and_the_features_are_those_of_its_nodes(tmp_path):
    made = domain(tmp_path, parts=6, per_batch=2)
    batches = list(islice(made.batches(0, Context()), 6))
    for epoch in (batches[:3], batches[3:]):
        assert sorted(torch.cat([batch.index for batch in epoch]).tolist()) == list(range(120))
    assert set(batches[0].index.tolist()) != set(batches[3].index.tolist())  # divided anew
    view = batches[0].views[0]
    assert torch.equal(view.features.masked(None).dense, made.dataset.graphs[0].x[batches[0].index])
    assert 0 < view.edge_index.shape[1] < view.structure.edge_index.shape[1]


def test_the_domain_keeps_its_contract_with_parts(tmp_path):
    testing.check_domain(domain(tmp_path, parts=6, per_batch=2))


@pytest.mark.parametrize(
    ("batching", "words"),
    [
        (dict(parts=0), "parts must be >= 1, got 0"),
        (dict(parts=4, per_batch=0), "per_batch must be >= 1, got 0"),
        (dict(parts=4, per_batch=5), "per_batch: 5 parts a step are more than there are, parts=4"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, batching, words):
    with pytest.raises(RecipeError, match=f"domain.batching.*{words}"):
        domain(tmp_path, **batching)


def test_what_the_graph_or_the_ranks_cannot_share_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(RecipeError, match=r"120 pre-training nodes of .* do not make 121 parts; use at most 120"):
        domain(tmp_path, parts=121).load()
    with pytest.raises(RecipeError, match="3 parts cannot be shared equally by 2 ranks; use a multiple of 2"):
        domain(tmp_path, parts=6, per_batch=3).check(2)
    assert "each has 1 and the edges within them" in domain(tmp_path, parts=6, per_batch=2).notice(2)
    both = GraphDomain(tmp_path, dataset=DATASET, batch_size=1, batching=dict(type="parts", parts=6))
    with pytest.raises(RecipeError, match=r"leave it out, domain.batching.per_batch says how many parts a step has"):
        both.check(1)


def communities(count=12, size=20, degree=8, outside=1, seed=0):
    """Edges of groups of nodes with shuffled numbers, most of them within groups; and each node's group."""
    rng = torch.Generator().manual_seed(seed)
    group = torch.arange(count * size) // size
    inner = torch.randint(size, (count * size, degree), generator=rng) + size * group[:, None]
    outer = torch.randint(count * size, (count * size, outside), generator=rng)
    source = torch.cat([inner, outer], dim=1).flatten()
    target = torch.arange(count * size).repeat_interleave(degree + outside)
    number = torch.randperm(count * size, generator=rng)
    pairs = torch.stack([source, target])
    return GraphStructure(number[torch.cat([pairs, pairs.flip(0)], dim=1)], count * size), group[number.argsort()]


def within(order, structure, size):
    """Share of edges that are within a piece of so many nodes."""
    piece = torch.empty(len(order), dtype=torch.long)
    piece[order] = torch.arange(len(order)) // size
    return float((piece[structure.edge_index[0]] == piece[structure.edge_index[1]]).float().mean())


def test_clusters_are_of_equal_size_and_keep_the_edges_that_random_parts_lose():
    structure, group = communities()
    order = clustered(InEdges.of(structure), 20, seed=3)
    assert sorted(order.tolist()) == list(range(240))
    best = within(group.argsort(), structure, 20)
    assert within(order, structure, 20) > 0.8 * best > 0.7
    assert within(torch.randperm(240), structure, 20) < 0.15


@pytest.mark.parametrize("at_once", [1, 64])
def test_clusters_are_the_same_whenever_they_are_made_and_others_with_another_seed(at_once, monkeypatch):
    monkeypatch.setattr(clusters, "EDGES_AT_ONCE", at_once)
    structure, _ = communities(count=4)
    edges = InEdges.of(structure)
    assert torch.equal(clustered(edges, 20, seed=1), clustered(edges, 20, seed=1))
    vague = InEdges.of(random_graph(nodes=60).structure)
    assert not torch.equal(clustered(vague, 20, seed=1), clustered(vague, 20, seed=2))
    assert within(clustered(edges, 20, seed=1), structure, 20) > 0.5


def test_a_label_has_no_more_nodes_than_it_may_and_a_node_without_edges_keeps_its_own():
    ring = torch.arange(50)
    structure = GraphStructure(torch.stack([ring, (ring + 1) % 50]), 53)
    labels = clusters.propagated_labels(InEdges.of(structure), None, torch.ones(53, dtype=torch.long), 7, key=4)
    assert torch.bincount(labels).max() <= 7
    assert len(labels[:50].unique()) < 40
    assert labels[50:].tolist() == [50, 51, 52]


def test_an_epoch_has_every_cluster_once_and_draws_which_are_together(tmp_path):
    made = domain(tmp_path, parts=6, per_batch=2, method="clusters")
    batches = list(islice(made.batches(0, Context()), 6))
    members = [set(half.tolist()) for batch in batches[:3] for half in batch.index.chunk(2)]
    assert sorted(node for part in members for node in part) == list(range(120))
    later = [set(half.tolist()) for batch in batches[3:] for half in batch.index.chunk(2)]
    assert sorted(map(sorted, later)) == sorted(map(sorted, members))
    assert {frozenset(batch.index.tolist()) for batch in batches[:3]} != {
        frozenset(batch.index.tolist()) for batch in batches[3:]
    }
    again = domain(tmp_path, parts=6, per_batch=2, method="clusters")
    assert torch.equal(next(again.batches(4, Context())).index, batches[4].index)
    halves = [next(again.batches(4, Context(rank=rank, world_size=2))).index for rank in range(2)]
    assert torch.equal(torch.cat(halves), batches[4].index)


def test_another_method_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="method must be 'random' or 'clusters', got 'metis'"):
        domain(tmp_path, parts=2, method="metis")
