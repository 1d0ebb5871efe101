"""Views of graphs as chains of steps: each step against a direct formula, their order, strength and refusals."""

from __future__ import annotations

import pytest
import torch

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.types import Context
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.node_views import HalfHop, NodeMask
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView, augment
from sslcollapse.domains.graph.views import ViewChain
from sslcollapse.encoders.gcn import GCN, gcn_matrix

NODES, EDGES = 10, 30
DATASET = dict(type="csbm", nodes=60, features=8, classes=2, train_per_class=5, validation_per_class=5)


@pytest.fixture
def graph():
    torch.manual_seed(0)
    return GraphView(GraphStructure(torch.randint(0, NODES, (2, EDGES)), NODES), Features(torch.rand(NODES, 5) + 1))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def domain(**views):
    return GraphDomain(".", dataset=DATASET, views=views)


def test_a_chain_of_both_steps_draws_what_the_fields_draw(graph):
    chain = ViewChain(views=[[dict(type="edge_drop", p=0.5), dict(type="feature_mask", p=0.3)]])
    made, expected = chain.make(graph, 0, rng()), augment(graph, 0.5, 0.3, rng())
    assert torch.equal(made.edge_index, expected.edge_index)
    assert torch.equal(made.x, expected.x)


def test_steps_of_one_kind_act_one_after_the_other(graph):
    steps = [dict(type="edge_drop", p=0.5)] * 2 + [dict(type="feature_mask", p=0.5)] * 2
    twice = ViewChain(views=[steps]).make(graph, 0, rng())
    stream = rng()
    edges = [torch.rand(EDGES, generator=stream) >= 0.5 for _ in range(2)]
    columns = [torch.rand(5, generator=stream) >= 0.5 for _ in range(2)]
    assert torch.equal(twice.keep, edges[0] & edges[1])
    assert torch.equal(twice.x, graph.x * (columns[0] & columns[1]))


def test_at_strength_0_every_step_leaves_the_graph_as_it_is(graph):
    steps = [dict(type=name, p=0.7) for name in ("edge_drop", "feature_mask", "half_hop")]
    made = ViewChain(views=[steps], strength=0.0).make(graph, 0, rng())
    assert torch.equal(made.edge_index.unique(dim=1), graph.edge_index.unique(dim=1))
    assert torch.equal(made.x[:NODES], graph.x)
    assert made.num_nodes == NODES
    hidden = ViewChain(views=[[dict(type="node_mask", p=0.7)]], strength=0.0).make(graph, 0, rng())
    assert hidden.hidden is None
    assert torch.equal(hidden.x, graph.x)


def test_hidden_nodes_have_a_token_or_the_features_of_another_node_and_their_own_are_kept(graph):
    view = NodeMask(p=0.5, replace=0.4)(graph, rng())
    rows, values = view.hidden
    assert len(rows) == len(rows.unique()) == 5
    assert torch.equal(values, graph.x[rows])
    token = torch.arange(5.0)
    x = view.with_token(token).x
    assert torch.equal(x[rows[:3]], token.expand(3, -1))
    assert torch.equal(view.x[rows[:3]], torch.zeros(3, 5))
    for row in rows[3:]:
        assert any(torch.equal(x[row], other) for other in graph.x)
    seen = torch.ones(NODES, dtype=torch.bool).index_fill(0, rows, False)
    assert torch.equal(x[seen], graph.x[seen])


@pytest.mark.parametrize("sparse", [False, True])
def test_a_linear_map_of_hidden_features_is_that_of_the_same_as_a_dense_matrix(sparse):
    x = torch.eye(6)[torch.randperm(6, generator=rng())]
    features = Features(x) if not sparse else _sparse(x)
    view = NodeMask(p=0.5, replace=0.4)(GraphView(GraphStructure(torch.zeros(2, 0).long(), 6), features), rng())
    token = torch.randn(6, requires_grad=True)
    weight = torch.randn(3, 6, requires_grad=True)
    shown = view.with_token(token).features.masked(torch.tensor([1.0, 0, 1, 1, 1, 0]))
    out = shown.linear(weight)
    torch.testing.assert_close(out, shown.dense @ weight.t())
    grads = torch.autograd.grad(out.square().sum(), (weight, token))
    expected = torch.autograd.grad((shown.dense @ weight.t()).square().sum(), (weight, token))
    torch.testing.assert_close(grads, expected)


def test_dropout_of_a_token_draws_anew_for_each_row_and_keeps_its_mean():
    view = NodeMask(p=0.9)(
        GraphView(GraphStructure(torch.zeros(2, 0).long(), 400), Features(torch.ones(400, 8))), rng()
    )
    torch.manual_seed(0)
    dropped = view.with_token(torch.full((8,), 2.0)).features.dropout(0.5).dense[view.hidden.rows]
    assert set(dropped.unique().tolist()) == {0.0, 4.0}
    assert len(dropped.unique(dim=0)) > 100
    assert abs(float(dropped.mean()) - 2.0) < 0.2


def test_half_hop_puts_a_slow_node_into_each_edge_to_a_chosen_node():
    edges = torch.tensor([[0, 1, 2, 2], [1, 2, 0, 2]])
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]])
    view = HalfHop(p=1.0, alpha=0.25)(GraphView(GraphStructure(edges, 3), Features(x)), rng())
    assert view.num_nodes == 6
    assert view.sample_rows == 3
    found = {tuple(edge) for edge in view.edge_index.t().tolist()}
    # 0 → 1 by node 3, 1 → 2 by 4, 2 → 0 by 5; the self-loop stays
    assert found == {(2, 2), (0, 3), (3, 1), (1, 3), (1, 4), (4, 2), (2, 4), (2, 5), (5, 0), (0, 5)}
    torch.testing.assert_close(view.x[3:], 0.25 * x + 0.75 * x[[1, 2, 0]])
    weight = torch.randn(4, 2)
    torch.testing.assert_close(view.features.linear(weight), view.x @ weight.t())


def test_half_hop_of_some_nodes_slows_all_edges_to_these_and_no_others(graph):
    view = HalfHop(p=0.5)(graph, rng())
    chosen = torch.rand(NODES, generator=rng()) < 0.5
    source, target = graph.edge_index
    slowed = chosen[target] & (source != target)
    assert 0 < int(slowed.sum()) < EDGES
    assert view.num_nodes == NODES + int(slowed.sum())
    kept = {tuple(edge) for edge in graph.edge_index[:, ~slowed].t().tolist()}
    assert kept <= {tuple(edge) for edge in view.edge_index.t().tolist()}
    gone = {tuple(edge) for edge in graph.edge_index[:, slowed].t().tolist()}
    assert not gone & {tuple(edge) for edge in view.edge_index.t().tolist()}


def test_an_encoder_gives_all_nodes_and_slow_ones_and_a_run_counts_the_nodes_of_the_graph_alone():
    where = domain(type="chain", views=[[dict(type="half_hop", p=0.5)], [dict(type="edge_drop", p=0.2)]])
    batch = next(where.batches(0, Context()))
    encoder = GCN(where.in_shape, hidden=[4], norm="none")
    assert batch.views[0].num_nodes > 60
    assert len(encoder(batch.views[0])) == batch.views[0].num_nodes
    assert batch.views[0].sample_rows == 60
    assert batch.views[1].sample_rows is None
    dense = torch.zeros(batch.views[0].num_nodes, batch.views[0].num_nodes)
    matrix = batch.views[0].adjacency(gcn_matrix).dense()
    assert matrix.shape == dense.shape


def test_views_may_be_one_or_three_and_depend_on_seed_and_step_alone():
    step = [dict(type="edge_drop", p=0.5)]
    for count in (1, 3):
        where = domain(type="chain", views=[step] * count)
        first, again = (list(zip(range(2), where.batches(0, Context()), strict=False)) for _ in range(2))
        assert len(first[0][1].views) == count
        assert torch.equal(first[1][1].views[-1].keep, again[1][1].views[-1].keep)
        assert not torch.equal(first[0][1].views[0].keep, first[1][1].views[0].keep)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (dict(type="chain", views=[]), "a batch has one view at least"),
        (dict(type="chain", views=[[]], strength=1.5), r"strength: must be in \[0, 1\], got 1.5"),
        (dict(type="chain", views=[[dict(type="node_mask", p=1.0)]]), r"p: must be in \[0, 1\), got 1.0"),
        (dict(type="chain", views=[[dict(type="half_hop", alpha=2.0)]]), r"alpha: must be in \[0, 1\], got 2.0"),
        (dict(type="chain", views=[[dict(type="edge_dorp", p=0.5)]]), "did you mean 'edge_drop'"),
    ],
)
def test_views_that_cannot_be_are_refused_in_a_sentence(views, message):
    with pytest.raises(Exception, match=message):
        domain(**views)


@pytest.mark.parametrize("second", ["node_mask", "half_hop"])
@pytest.mark.parametrize("first", ["node_mask", "half_hop"])
def test_nodes_are_hidden_or_slowed_once_a_view(graph, first, second):
    chain = ViewChain(views=[[dict(type=first, p=0.5), dict(type=second, p=0.5)]])
    with pytest.raises(RecipeError, match=f"domain.views: {second}"):
        chain.make(graph, 0, rng())


def test_batches_of_neighbours_refuse_a_chain_before_data_are_read():
    where = GraphDomain(
        ".",
        dataset=DATASET,
        views=dict(type="chain", views=[[dict(type="edge_drop", p=0.5)]]),
        batching=dict(type="neighbours", batch_size=8),
    )
    with pytest.raises(RecipeError, match=r"NeighbourBatches draws edges .* no views of type 'chain'"):
        where.check(1)


def test_parts_take_a_chain():
    where = GraphDomain(
        ".",
        dataset=DATASET,
        views=dict(type="chain", views=[[dict(type="node_mask", p=0.5)]]),
        batching=dict(type="parts", parts=3),
    )
    view = next(where.batches(0, Context())).views[0]
    assert view.num_nodes == 20
    assert len(view.hidden.rows) == 10


def _sparse(x):
    from sslcollapse.nn.sparse import SparseMatrix

    return Features(SparseMatrix.from_csr(x.to_sparse_csr()))
