"""Ego graphs by approximate personalised PageRank: against exact ranks, and against induced graphs made one by one."""

from itertools import islice

import pytest
import torch
from tiny import random_graph

from sslcollapse import testing
from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.core.registry import ENCODERS
from sslcollapse.core.types import Context
from sslcollapse.domains.graph import ppr
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.ego import egos
from sslcollapse.domains.graph.neighbours import InEdges
from sslcollapse.domains.graph.parts import induced
from sslcollapse.domains.graph.ppr import nearest, table_of
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView

DATASET = dict(type="csbm", nodes=120, features=12, train_per_class=5, validation_per_class=5)


def domain(tmp_path, **batching):
    return GraphDomain(
        tmp_path, dataset=DATASET, batching={"type": "ego", "batch_size": 12, "size": 9, "epsilon": 1e-3, **batching}
    )


@pytest.fixture(scope="module")
def graph():
    return random_graph(nodes=60, degree=5)


def exact(structure, alpha):
    """[N, N] personalised PageRank of each root, a row a root."""
    count = structure.num_nodes
    walk = torch.zeros(count, count, dtype=torch.float64)
    edges = InEdges.of(structure)
    for node in range(count):
        near = edges.sources[edges.pointers[node] : edges.pointers[node + 1]].long()
        if len(near):
            walk[node].index_add_(0, near, torch.full((len(near),), 1 / len(near), dtype=torch.float64))
    return alpha * torch.linalg.inv(torch.eye(count, dtype=torch.float64) - (1 - alpha) * walk)


@pytest.mark.parametrize(("alpha", "epsilon"), [(0.15, 1e-6), (0.5, 1e-3)])
def test_approximate_ranks_are_below_the_exact_ones_and_as_near_as_epsilon_says(graph, alpha, epsilon):
    edges = InEdges.of(graph.structure)
    root, node, rank = ppr._pushed(edges, torch.arange(60), alpha, epsilon)
    found = torch.zeros(60, 60, dtype=torch.float64)
    found[root, node] = rank
    missing = exact(graph.structure, alpha) - found
    assert missing.min() > -1e-12
    # What is missing of a root's ranks is what its residuals, each below epsilon x degree, would still give.
    assert missing.sum(dim=1).max() <= epsilon * edges.degree(torch.arange(60)).sum()
    assert missing.abs().max() > 0


def test_the_nodes_with_the_largest_ranks_are_taken_the_root_first(graph):
    edges = InEdges.of(graph.structure)
    table = nearest(edges, torch.arange(60), 8, 0.15, 1e-9)
    ranks, wanted = exact(graph.structure, 0.15).fill_diagonal_(2.0).sort(dim=1, descending=True)
    assert torch.equal(table, torch.where(ranks > 0, wanted, -1)[:, :8])


def test_ego_graphs_do_not_depend_on_the_roots_beside_them_and_a_node_without_neighbours_is_alone(graph, monkeypatch):
    lonely = GraphStructure(graph.edge_index, 62)
    edges = InEdges.of(lonely)
    together = nearest(edges, torch.arange(62), 6, 0.15, 1e-3)
    assert together[60:].tolist() == [[60, *[-1] * 5], [61, *[-1] * 5]]
    assert torch.equal(torch.cat([nearest(edges, torch.tensor([k]), 6, 0.15, 1e-3) for k in range(62)]), together)
    monkeypatch.setattr(ppr, "AT_ONCE", 1)
    assert torch.equal(nearest(edges, torch.arange(62), 6, 0.15, 1e-3), together)


def test_a_root_is_what_it_is_in_the_induced_graph_of_its_ego(graph):
    edges = InEdges.of(graph.structure)
    members = nearest(edges, torch.tensor([3, 41, 3, 17]), 9, 0.15, 1e-2)
    members[1, 4:] = -1
    structure = egos(edges, members)
    assert structure.hops == (4, int((members >= 0).sum()))
    assert structure.nodes[:4].tolist() == [3, 41, 3, 17]
    x = graph.x.double()
    torch.manual_seed(0)
    network = ENCODERS.build({"type": "gcn", "hidden": [8, 8], "norm": "layer"}, (x.shape[1],)).double().eval()
    found = network(GraphView(structure, Features(x).rows(structure.nodes)))
    assert found.shape == (4, 8)
    for root, row in enumerate(members):
        nodes = row[row >= 0]
        alone = induced(edges, nodes, torch.full((60,), -1))
        torch.testing.assert_close(network(GraphView(alone, Features(x).rows(nodes)))[0], found[root])


def test_the_file_is_made_once_and_gives_the_batches_that_are_found_without_it(tmp_path, monkeypatch, capsys):
    file = tmp_path / "new" / "ego"
    with_file = list(islice(domain(tmp_path, file=str(file)).batches(3, Context(seed=1)), 2))
    assert [each.name for each in file.parent.iterdir()] == ["ego"]
    assert "ego: the ego graphs of 120 nodes are found, once" in capsys.readouterr().err
    monkeypatch.setattr(ppr, "nearest", None)  # it is not made again
    again = next(domain(tmp_path, file=str(file), ahead=0).batches(4, Context(seed=1)))
    monkeypatch.undo()
    assert not capsys.readouterr().err
    without = list(islice(domain(tmp_path).batches(3, Context(seed=1)), 2))
    for batch, same in zip([*with_file, again], [*without, without[1]], strict=True):
        assert torch.equal(batch.index, same.index)
        assert torch.equal(batch.views[1].x, same.views[1].x)
        assert torch.equal(batch.views[1].edge_index, same.views[1].edge_index)


def test_a_file_of_another_graph_or_of_other_arguments_or_that_is_damaged_is_refused_and_left_as_it_is(tmp_path):
    edges = InEdges.of(random_graph(nodes=30).structure)
    file = tmp_path / "ego"
    table_of(file, edges, 5, 0.15, 1e-2)
    bytes_ = file.read_bytes()
    with pytest.raises(DataError, match=r"size 5 instead of 6, alpha 0.15 instead of 0.2; name another file"):
        table_of(file, edges, 6, 0.2, 1e-2)
    sources = edges.sources.clone()
    sources[0] += 1
    with pytest.raises(DataError, match=r"these ego graphs have graph \w+ instead of \w+"):
        table_of(file, InEdges(edges.pointers, sources), 5, 0.15, 1e-2)
    assert file.read_bytes() == bytes_
    for damaged, words in ((bytes_[:-1], "damaged; delete it"), (b"something", "not a file of ego graphs")):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=words):
            table_of(file, edges, 5, 0.15, 1e-2)
        assert file.read_bytes() == damaged


def test_a_file_that_could_not_be_finished_leaves_nothing(tmp_path, monkeypatch):
    def fails(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(ppr, "nearest", fails)
    with pytest.raises(KeyboardInterrupt):
        table_of(tmp_path / "ego", InEdges.of(random_graph(nodes=30).structure), 5, 0.15, 1e-2)
    assert not list(tmp_path.iterdir())


def test_the_domain_keeps_its_contract_and_ranks_share_the_roots(tmp_path):
    made = domain(tmp_path)
    testing.check_domain(made)
    whole = next(made.batches(2, Context()))
    halves = [next(made.batches(2, Context(rank=rank, world_size=2))) for rank in range(2)]
    assert torch.equal(torch.cat([half.index for half in halves]), whole.index)
    assert "12 root nodes a step on 2 ranks: each has the ego graphs of its own 6" in made.notice(2)
    assert made.notice(1) is None


@pytest.mark.parametrize(
    ("batching", "words"),
    [
        (dict(batch_size=0), "batch_size must be >= 1, got 0"),
        (dict(size=0), "size must be >= 1, got 0"),
        (dict(alpha=0.0), r"alpha must be in \(0, 1\], got 0.0"),
        (dict(epsilon=0.0), "epsilon must be > 0, got 0.0"),
        (dict(method="hops"), "method must be 'ppr', got 'hops'"),
        (dict(ahead=-1), "ahead must be >= 0, got -1"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, batching, words):
    with pytest.raises(RecipeError, match=f"domain.batching.*{words}"):
        domain(tmp_path, **batching)


def test_what_the_graph_or_the_ranks_cannot_share_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(RecipeError, match=r"batch_size: 121 root nodes are more than the 120 pre-training nodes"):
        domain(tmp_path, batch_size=121).load()
    with pytest.raises(RecipeError, match="5 root nodes cannot be shared equally by 2 ranks; use a multiple of 2"):
        domain(tmp_path, batch_size=5).check(2)


@pytest.mark.parametrize("batching", ["neighbours", "ego"])
def test_views_of_a_whole_graph_which_masked_objectives_need_are_refused_with_what_takes_them(tmp_path, batching):
    views = dict(type="chain", views=[[dict(type="node_mask", p=0.5)]])
    made = GraphDomain(tmp_path, dataset=DATASET, views=views, batching=dict(type=batching, batch_size=2))
    with pytest.raises(RecipeError, match=r"by itself, and has no views of type 'chain'.* type 'full' or 'parts'"):
        made.check(1)


@pytest.mark.parametrize(
    "batching",
    [dict(type="neighbours", batch_size=2), dict(type="parts", parts=2), dict(type="ego", batch_size=2)],
)
def test_a_graph_whose_only_edges_are_self_loops_is_refused(tmp_path, batching):
    from dataclasses import replace

    made = GraphDomain(tmp_path, dataset=DATASET, batching=batching)
    loops = torch.arange(120).repeat(2, 1)
    made.use(replace(made.dataset, graphs=(replace(made.dataset.graphs[0], edge_index=loops),)))
    with pytest.raises(DataError, match=r"no edge joins two different nodes.* use domain.batching of type 'full'"):
        next(made.batches(0, Context()))
