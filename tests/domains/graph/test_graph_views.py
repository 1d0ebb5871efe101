from pathlib import Path

import pytest
import torch
from tiny import random_graph, tiny_edges, tiny_view
from torch_geometric.nn import GCNConv as LibraryGCNConv
from torch_geometric.nn import SAGEConv as LibrarySAGEConv

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.seeding import generator
from sslcollapse.core.types import Context
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.view import GraphStructure, augment
from sslcollapse.domains.graph.views import GraphViews
from sslcollapse.encoders.gcn import gcn_matrix
from sslcollapse.encoders.sage import mean_matrix
from sslcollapse.nn.sparse import SparseMatrix

CPU = torch.device("cpu")


def dropped(view, edge_drop=0.4, feature_mask=0.4, key=(0, 1)):
    return augment(view, edge_drop, feature_mask, generator(CPU, "test", *key))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("edge_drop", [0.0, 0.5])
def test_gcn_adjacency_propagates_as_the_library_convolution_on_the_same_dropped_edges(sparse, edge_drop):
    view = dropped(tiny_view(sparse=sparse), edge_drop)
    library = LibraryGCNConv(5, 3, bias=False).double()
    weight = library.lin.weight.detach()
    ours = view.adjacency(gcn_matrix) @ view.features.linear(weight)
    torch.testing.assert_close(ours, library(view.x, view.edge_index).detach())


@pytest.mark.parametrize("edge_drop", [0.0, 0.5])
def test_mean_adjacency_averages_as_the_library_convolution_on_the_same_dropped_edges(edge_drop):
    view = dropped(tiny_view(), edge_drop)
    library = LibrarySAGEConv(5, 3, bias=False, root_weight=False).double()
    ours = (view.adjacency(mean_matrix) @ view.x) @ library.lin_l.weight.t()
    torch.testing.assert_close(ours, library(view.x, view.edge_index))


def test_edge_index_of_a_view_has_no_dropped_edge_and_its_adjacency_has_no_other():
    view = dropped(random_graph(), edge_drop=0.5)
    assert view.edge_index.shape[1] < view.structure.edge_index.shape[1]
    mean = view.adjacency(mean_matrix).dense()
    present = torch.zeros(60, 60, dtype=torch.bool)
    present[view.edge_index[1], view.edge_index[0]] = True
    assert torch.equal(mean > 0, present)


@pytest.mark.parametrize("sparse", [False, True])
def test_masked_features_are_zero_in_whole_columns_for_all_nodes(sparse):
    view = dropped(tiny_view(sparse=sparse), key=(0, 3))
    full = tiny_view(sparse=sparse)
    masked = view.features.mask == 0
    assert 0 < int(masked.sum()) < 5
    assert torch.equal(view.x[:, masked], torch.zeros_like(view.x[:, masked]))
    assert torch.equal(view.x[:, ~masked], full.x[:, ~masked])


def test_each_direction_of_an_edge_is_dropped_independently():
    view = random_graph(nodes=400, degree=20)
    keep = dropped(view, edge_drop=0.5).keep
    half = keep.numel() // 2
    both = (keep[:half] & keep[half:]).double().mean()
    assert 0.2 < both < 0.3  # 0.5 if the directions went together


def test_both_directions_of_an_edge_go_together_where_undirected_is_asked_for():
    view = random_graph(nodes=400, degree=20)
    keep = augment(view, 0.3, 0.0, generator(CPU, "test", 1), undirected=True).keep
    half = keep.numel() // 2
    assert torch.equal(keep[:half], keep[half:])  # the second half are the reverses of the first
    assert abs(float((~keep).double().mean()) - 0.3) < 0.03


def test_edges_without_a_reverse_keep_draws_of_their_own():
    structure = GraphStructure(torch.tensor([[0, 1, 2, 0, 3], [1, 2, 2, 1, 2]]), 4)  # 0 → 1 twice, a self-loop
    first, second, loop, again, other = structure.undirected_edges.tolist()
    assert first == again
    assert len({first, second, loop, other}) == structure.num_undirected_edges == 4


@pytest.mark.parametrize("undirected", [False, True])
def test_the_domain_drops_edges_as_its_views_say(undirected):
    dataset = {"type": "csbm", "nodes": 60, "features": 12, "train_per_class": 3, "validation_per_class": 3}
    domain = GraphDomain(Path(), dataset=dataset, views=GraphViews(undirected=undirected))
    view = next(domain.batches(0, Context())).views[0]
    edges = set(map(tuple, view.edge_index.t().tolist()))
    assert ({(target, source) for source, target in edges} == edges) is undirected
    assert len(edges) < view.structure.edge_index.shape[1]


def test_edge_drop_and_feature_mask_rates_are_the_probabilities_asked_for():
    view = augment(random_graph(2000, 20, 4000), 0.3, 0.2, generator(CPU, "test", 5))
    assert abs(float((~view.keep).double().mean()) - 0.3) < 0.02
    assert abs(float((view.features.mask == 0).double().mean()) - 0.2) < 0.02


def test_sparse_features_send_the_same_gradient_to_the_weight_as_dense_ones():
    gradients = []
    for sparse in (False, True):
        view = dropped(tiny_view(sparse=sparse))
        weight = torch.ones(3, 5, dtype=torch.float64, requires_grad=True)
        (view.adjacency(gcn_matrix) @ view.features.linear(weight)).pow(2).sum().backward()
        gradients.append(weight.grad)
    torch.testing.assert_close(*gradients)


def test_sparse_product_gradient_is_exact():
    view = dropped(tiny_view())
    adjacency = view.adjacency(gcn_matrix)
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda dense: adjacency @ dense, [x])


def test_a_self_loop_counts_once_in_the_gcn_adjacency():
    view = tiny_view()
    source, target = tiny_edges()
    assert ((source == 2) & (target == 2)).any()
    in_degree = int(((target == 2) & (source != 2)).sum()) + 1
    torch.testing.assert_close(view.adjacency(gcn_matrix).dense()[2, 2], torch.tensor(1.0 / in_degree).double())


def test_strength_scales_all_probabilities_and_zero_leaves_the_graph_alone():
    edge, feature = GraphViews(edge_drop=[0.4, 0.2], feature_mask=[0.6, 0.0], strength=0.5).probabilities()
    assert edge == [0.2, 0.1]
    assert feature == [0.3, 0.0]
    edge, feature = GraphViews(strength=0.0).probabilities()
    view = augment(tiny_view(), edge[0], feature[0], generator(CPU, "test", 0))
    assert view.keep is None
    assert view.features.mask is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"edge_drop": [0.2]}, r"edge_drop: needs two probabilities .* got \[0.2\]"),
        ({"feature_mask": [0.2, 1.0]}, r"feature_mask: needs two probabilities .* got \[0.2, 1.0\]"),
        ({"strength": 1.5}, r"strength: must be in \[0, 1\], got 1.5"),
    ],
)
def test_impossible_view_settings_are_refused_with_their_value(arguments, message):
    with pytest.raises(RecipeError, match=message):
        GraphViews(**arguments)


def test_a_convolution_brings_its_own_matrix_which_a_view_makes_once_on_structures_of_the_graph():
    made = []

    def sums(edges, keep, dtype):
        made.append(keep)
        present = (
            torch.ones(edges.plain.row.numel(), dtype=dtype) if keep is None else keep[edges.plain.order].to(dtype)
        )
        return SparseMatrix(edges.plain, present)

    view = tiny_view()
    other = dropped(view)
    for each in (view, other):
        assert each.adjacency(sums) is each.adjacency(sums)
        expected = torch.zeros(view.num_nodes, view.num_nodes, dtype=torch.float64)
        expected.index_put_(tuple(each.edge_index.flip(0)), torch.ones(()).double(), accumulate=True)
        torch.testing.assert_close(each.adjacency(sums).dense(), expected)
    assert len(made) == 2, "once a view, however many layers and networks ask"
    assert view.adjacency(mean_matrix).pattern is other.adjacency(mean_matrix).pattern is other.adjacency(sums).pattern
    assert view.adjacency(gcn_matrix).pattern is other.adjacency(gcn_matrix).pattern, "sorted once a graph"
