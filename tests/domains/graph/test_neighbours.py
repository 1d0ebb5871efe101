from itertools import islice

import pytest
import torch
from tiny import random_graph, tiny_edges

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.registry import ENCODERS
from sslcollapse.core.seeding import generator
from sslcollapse.core.types import Context
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.neighbours import InEdges, hashed, sampled
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView, augment
from sslcollapse.nn.inputs import gcn_matrix
from sslcollapse.nn.sparse import SparseMatrix
from sslcollapse.recipe import recipe_hash, resolve

DATASET = dict(type="csbm", nodes=120, features=12, train_per_class=5, validation_per_class=5)
AS_IT_IS = dict(edge_drop=[0.0, 0.0], feature_mask=[0.0, 0.0])
ALL = 10**6


def domain(tmp_path, *, views=None, **batching):
    made = GraphDomain(
        tmp_path,
        dataset=DATASET,
        batching={"type": "neighbours", "batch_size": 12, **batching},
        **({} if views is None else {"views": views}),
    )
    made.load()
    return made


def encoder(name, **arguments):
    torch.manual_seed(0)
    return ENCODERS.build({"type": name, "hidden": [8, 8], "norm": "layer", **arguments}, (12,)).double().eval()


def in_double(view):
    x = view.features.masked(None)._x
    return GraphView(view.structure, Features(x.double(), None), view.keep)


def splitmix64(state):
    mask = (1 << 64) - 1
    z = state & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_the_hash_is_splitmix64_of_each_coordinate_in_turn():
    step, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    for key, node, slot in [(0, 1, 0), (2**63 - 1, 12345678901, 9), (77, 0, 3)]:
        expected = splitmix64(splitmix64(key + node * step) + slot * step) & (mask >> 1)
        assert hashed(key, torch.tensor([node]), slot).item() == expected
        assert hashed(key, torch.tensor([node]), torch.tensor([slot])).item() == expected
    assert hashed(0, torch.tensor([1])).item() == 0xE220A8397B1DCDAF & (mask >> 1)  # first output of the published code


def test_a_node_draws_that_many_different_neighbours_and_every_one_is_drawn_equally_often():
    source = torch.arange(1, 13)
    edges = InEdges.of(GraphStructure(torch.stack([source, torch.zeros_like(source)]), 13))
    counts = torch.zeros(13)
    for key in range(3000):
        row, drawn = edges.drawn(torch.tensor([0]), 5, key)
        assert row.tolist() == [0] * 5
        assert len(set(drawn.tolist())) == 5
        counts[drawn] += 1
    expected = 3000 * 5 / 12  # its standard deviation is 27
    assert counts[0] == 0
    assert (counts[1:] - expected).abs().max() < 100


def test_what_a_node_draws_does_not_depend_on_those_beside_it():
    edges = InEdges.of(random_graph(nodes=80, degree=16).structure)
    row, together = edges.drawn(torch.arange(80), 4, 9)
    for node in (0, 17, 79):
        assert edges.drawn(torch.tensor([node]), 4, 9)[1].tolist() == together[row == node].tolist()
    assert edges.drawn(torch.arange(80), 4, 10)[1].tolist() != together.tolist()


def plainly_sampled(edges, roots, fanout, keys):
    """Node by node, as it is defined."""
    hops, drawn, weights = [roots.tolist()], [], []
    for most, key in zip(fanout, keys, strict=True):
        pairs = []
        for node in hops[-1]:
            near = edges.sources[edges.pointers[node] : edges.pointers[node + 1]].tolist()
            slots = list(range(len(near)))
            if len(near) > most:
                slots = []
                for j in range(most):
                    top = len(near) - most + j
                    pick = hashed(key, torch.tensor([node]), j).item() % (top + 1)
                    slots.append(top if pick in slots else pick)
            pairs += [(near[slot], node, len(near) / len(slots)) for slot in slots]
        hops.append(sorted({source for source, _, _ in pairs}))
        start, end = sum(map(len, hops[:-2])), sum(map(len, hops[:-1]))
        drawn += [(end + hops[-1].index(a), start + hops[-2].index(b)) for a, b, _ in pairs]
        weights += [weight for *_, weight in pairs]
    return [node for hop in hops for node in hop], drawn, weights


@pytest.mark.parametrize("fanout", [[4, 3], [20, 1], [1, 2, 3], [ALL]])
@pytest.mark.parametrize("narrow", [False, True])
def test_a_sample_is_what_drawing_node_by_node_gives(fanout, narrow):
    edges = InEdges.of(random_graph(nodes=90, degree=8).structure)
    edges = InEdges(edges.pointers, edges.sources.int() if narrow else edges.sources.long())
    roots, keys = torch.tensor([7, 0, 89, 30]), [5, 2**63 - 1, 11][: len(fanout)]
    nodes, pairs, weights = plainly_sampled(edges, roots, fanout, keys)
    sample = sampled(edges, roots, fanout, keys)
    assert sample.nodes.tolist() == nodes
    assert sample.edge_index.t().tolist() == [list(pair) for pair in pairs]
    assert sample.weight.tolist() == pytest.approx(weights)
    assert sample.edge_index.dtype == sample.nodes.dtype == torch.int64


def test_self_loops_are_left_out_and_a_node_without_neighbours_keeps_itself():
    structure = sampled(InEdges.of(GraphStructure(tiny_edges(), 7)), torch.tensor([2, 6]), [3, 3], [1, 2])
    source, target = structure.nodes[structure.edge_index]
    assert (source != target).all()
    assert structure.nodes[: structure.hops[0]].tolist() == [2, 6]
    assert 6 not in target.tolist()
    view = GraphView(structure, Features(torch.eye(7)).rows(structure.nodes))
    assert torch.equal(view.adjacency(gcn_matrix).dense()[1], torch.eye(len(structure.nodes))[1])


@pytest.mark.parametrize("name", ["gcn", "sage"])
@pytest.mark.parametrize("edge_drop", [0.0, 0.4])
def test_with_all_neighbours_a_root_is_what_it_is_in_the_full_graph(tmp_path, name, edge_drop):
    views = dict(edge_drop=[edge_drop, 0.0], feature_mask=[0.0, 0.0], undirected=True)
    made = domain(tmp_path, views=views, fanout=[ALL, ALL, ALL])  # a hop more, so that degrees after dropping are known
    batch = next(made.batches(3, Context(seed=1)))
    sample = batch.views[0]
    whole = made.probe_set().views[0]
    keep = None
    if edge_drop:  # the edges that the sample has lost are lost in the full graph
        source, target = sample.structure.nodes[sample.structure.edge_index[:, ~sample.keep]]
        lost = set(zip(source.tolist(), target.tolist(), strict=True))
        assert lost
        keep = torch.tensor([pair not in lost for pair in zip(*whole.edge_index.tolist(), strict=True)])
    full = encoder(name)(GraphView(whole.structure, Features(whole.x.double()), keep))
    torch.testing.assert_close(encoder(name)(in_double(sample)), full[batch.index])


def test_the_matrix_of_a_sampled_graph_convolution_estimates_that_of_the_graph_without_bias(tmp_path):
    made = domain(tmp_path, views=AS_IT_IS, fanout=[3], batch_size=120)
    whole = made.probe_set().views[0]
    expected = whole.adjacency(gcn_matrix).dense().double() @ whole.x.double()
    mean = torch.zeros_like(expected)
    for batch in islice(made.batches(0, Context()), 1500):
        view = batch.views[0]
        mean[batch.index] += view.adjacencies(gcn_matrix, 1)[0].dense().double() @ view.x.double() / 1500
    assert (mean - expected).abs().max() < 0.03
    assert (mean - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("name", ["gcn", "sage"])
@pytest.mark.parametrize("sparse", [False, True])
def test_rows_that_no_later_layer_reads_are_left_out_and_change_nothing(name, sparse):
    graph = random_graph()
    structure = sampled(InEdges.of(graph.structure), torch.arange(5), [3, 3], [1, 2])
    x = graph.x.double()
    if sparse:
        x = SparseMatrix.from_csr((x * (x > 0.5)).to_sparse_csr())
    view = GraphView(structure, Features(x).rows(structure.nodes))
    network = encoder(name)
    trimmed = network(view)
    assert trimmed.shape == (5, 8)
    for layer, rows in zip(network.convs, (structure.hops[1], structure.hops[0]), strict=True):
        seen = []
        layer.register_forward_hook(lambda module, inputs, out, seen=seen: seen.append(len(out)))
        network(view)
        assert seen == [rows]
    whole = GraphView(structure, Features(x).rows(structure.nodes))
    whole.adjacencies = lambda normalized, layers: [whole.adjacency(normalized)] * layers
    torch.testing.assert_close(trimmed, network(whole)[:5])


def test_rows_of_sparse_features_are_those_of_dense_ones_in_any_order():
    dense = torch.rand(6, 4) * (torch.rand(6, 4) > 0.5)
    index = torch.tensor([5, 0, 0, 3])
    assert torch.equal(SparseMatrix.from_csr(dense.to_sparse_csr()).rows(index).dense(), dense[index])


def test_an_edge_is_in_a_view_or_not_wherever_it_is_met_and_a_masked_column_is_masked_for_all(tmp_path):
    made = domain(tmp_path, fanout=[6, 6], batch_size=60)
    for view in next(made.batches(0, Context())).views:
        pairs = view.structure.nodes[view.structure.edge_index].t().tolist()
        kept = {}
        for pair, keep in zip(map(tuple, pairs), view.keep.tolist(), strict=True):
            assert kept.setdefault(pair, keep) == keep
        assert len(kept) < len(pairs)  # some were met at two hops
        assert 0.3 < sum(kept.values()) / len(kept) < 0.75
        assert set(view.features.mask.tolist()) == {0.0, 1.0}


def test_both_directions_of_an_edge_go_together_where_undirected_is_asked_for(tmp_path):
    made = domain(tmp_path, views=dict(undirected=True), fanout=[ALL, ALL], batch_size=60)
    view = next(made.batches(0, Context())).views[0]
    pairs = view.structure.nodes[view.structure.edge_index].t().tolist()
    kept = dict(zip(map(tuple, pairs), view.keep.tolist(), strict=True))
    both = [(kept[pair], kept[pair[::-1]]) for pair in kept if pair[::-1] in kept]
    assert len(both) > 50
    assert all(one == other for one, other in both)


def test_views_share_a_neighbourhood_unless_they_are_to_draw_their_own(tmp_path):
    shared = next(domain(tmp_path, fanout=[2, 2]).batches(0, Context()))
    own = next(domain(tmp_path, fanout=[2, 2], shared=False).batches(0, Context()))
    assert torch.equal(*(view.structure.edge_index for view in shared.views))
    first, second = (view.structure for view in own.views)
    assert torch.equal(own.index, shared.index)
    assert not torch.equal(first.nodes, second.nodes)


def test_a_resumed_run_draws_the_very_batches(tmp_path):
    made = domain(tmp_path)
    later = islice(domain(tmp_path).batches(9, Context(seed=4)), 4)
    for early, late in zip(islice(made.batches(0, Context(seed=4)), 9, 13), later, strict=True):
        assert torch.equal(early.index, late.index)
        for one, other in zip(early.views, late.views, strict=True):
            assert torch.equal(one.structure.nodes, other.structure.nodes)
            assert torch.equal(one.structure.edge_index, other.structure.edge_index)
            assert torch.equal(one.keep, other.keep)
            assert torch.equal(one.x, other.x)


def test_an_epoch_has_every_node_as_a_root_once(tmp_path):
    roots = torch.cat([batch.index for batch in islice(domain(tmp_path).batches(0, Context()), 10)])
    assert sorted(roots.tolist()) == list(range(120))


def test_full_is_the_default_and_changes_neither_hash_nor_views(tmp_path):
    def recipe(**parts):
        return dict(
            name="tiny",
            domain=dict(type="graph", dataset=DATASET, **parts),
            encoder=dict(type="gcn", hidden=[8, 8]),
            objective=dict(type="bgrl"),
            optim=dict(type="adamw", lr=1e-3),
            train=dict(steps=2),
        )

    plain = recipe_hash(resolve(recipe()))
    assert recipe_hash(resolve(recipe(batching=dict(type="full")))) == plain
    assert recipe_hash(resolve(recipe(batching=dict(type="neighbours", batch_size=8)))) != plain
    assert plain == "5d5cbaa0"
    made = GraphDomain(tmp_path, dataset=DATASET, batching=dict(type="full"))
    assert made.replicated
    batch = next(made.batches(5, Context(seed=2)))
    rng = generator(torch.device("cpu"), "view", 2, 5, 0, 0)
    expected = augment(made.probe_set().views[0], 0.5, 0.5, rng)
    assert torch.equal(batch.views[0].keep, expected.keep)
    assert torch.equal(batch.views[0].x, expected.x)


@pytest.mark.parametrize(
    ("batching", "words"),
    [
        (dict(batch_size=0), r"domain\.batching.*batch_size must be >= 1, got 0"),
        (dict(batch_size=4, fanout=[]), r"domain\.batching.*fanout: needs a number >= 1 for each hop, got \[\]"),
        (dict(batch_size=4, fanout=[5, 0]), r"domain\.batching.*fanout: needs .* got \[5, 0\]"),
        (dict(), r"domain\.batching.*batch_size"),
    ],
)
def test_a_size_below_one_is_refused(tmp_path, batching, words):
    with pytest.raises(RecipeError, match=words):
        GraphDomain(tmp_path, dataset=DATASET, batching={"type": "neighbours", **batching})


def test_what_the_graph_or_the_ranks_cannot_share_is_refused_with_what_to_do(tmp_path):
    many = GraphDomain(tmp_path, dataset=DATASET, batching=dict(type="neighbours", batch_size=121))
    with pytest.raises(RecipeError, match=r"batching.batch_size: 121 root nodes are more than the 120 pre-training"):
        many.load()
    with pytest.raises(RecipeError, match=r"121 root nodes cannot be shared equally by 2 ranks; use a multiple of 2"):
        many.check(2)
    both = GraphDomain(tmp_path, dataset=DATASET, batch_size=1, batching=dict(type="neighbours", batch_size=4))
    with pytest.raises(RecipeError, match=r"domain.batch_size: 1 graphs a step .* leave it out"):
        both.check(1)


def test_the_notice_says_what_each_rank_does(tmp_path):
    made = domain(tmp_path)
    assert made.notice(1) is None
    assert "12 root nodes a step on 2 ranks: each samples the neighbourhoods of its own 6" in made.notice(2)
    assert not made.replicated
