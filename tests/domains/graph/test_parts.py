from itertools import islice

import pytest
import torch
from tiny import random_graph

from sslcollapse import testing
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.types import Context
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.neighbours import InEdges
from sslcollapse.domains.graph.parts import induced

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
