"""Feature preparation and the checks every graph passes."""

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import NormalizeFeatures

from sslcollapse.core.errors import DataError
from sslcollapse.domains.graph import data as graph_data
from sslcollapse.domains.graph.data import Graph, check_graph, prepare_features, split_from_masks

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])
LABELS = torch.tensor([0, 1, 0])


def bag_of_words(density: float) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return (torch.rand(40, 30, generator=rng) < density).float()


@pytest.mark.parametrize("density", [0.05, 0.6])
@pytest.mark.parametrize("sparse_input", [False, True])
def test_normalised_features_equal_pyg_normalize_features(density, sparse_input):
    x = bag_of_words(density)
    x[3] = 0  # a row sum below 1 is not divided by
    given = x.to_sparse_csr() if sparse_input else x
    wanted = NormalizeFeatures()(Data(x=x.clone())).x
    prepared = prepare_features(given, normalize=True)
    assert torch.equal(prepared.to_dense(), wanted)
    assert torch.equal(given.to_dense(), x)  # the input is left alone


@pytest.mark.parametrize("sparse_input", [False, True])
def test_negative_features_are_shifted_as_pyg_does(sparse_input):
    x = bag_of_words(0.1) * torch.randn(40, 30, generator=torch.Generator().manual_seed(1))
    wanted = NormalizeFeatures()(Data(x=x.clone())).x
    prepared = prepare_features(x.to_sparse_csr() if sparse_input else x, normalize=True)
    assert torch.allclose(prepared.to_dense(), wanted)


@pytest.mark.parametrize("normalize", [False, True])
def test_features_become_csr_exactly_below_a_quarter_of_non_zeros(normalize):
    x = torch.zeros(4, 10)
    x.view(-1)[:10] = 1
    assert prepare_features(x, normalize).layout == torch.strided
    x[0, 0] = 0
    assert prepare_features(x, normalize).layout == torch.sparse_csr


def test_block_size_does_not_change_prepared_features(monkeypatch):
    x = bag_of_words(0.1)
    whole = prepare_features(x, normalize=True)
    monkeypatch.setattr(graph_data, "_CHUNK_ELEMENTS", 70)  # two rows at a time
    assert torch.equal(prepare_features(x, normalize=True).to_dense(), whole.to_dense())


def test_features_are_kept_as_they_are_without_normalisation():
    x = bag_of_words(0.1) * 3
    assert torch.equal(prepare_features(x, normalize=False).to_dense(), x)
    assert torch.equal(prepare_features(x.to_sparse_csr(), normalize=False).to_dense(), x)


def test_graph_without_edges_is_refused():
    graph = Graph(torch.ones(3, 2), torch.empty(2, 0, dtype=torch.long), LABELS)
    with pytest.raises(DataError, match="tiny: the graph has no edges"):
        check_graph(graph, "tiny")


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_features_are_counted_and_the_first_is_located(value, sparse):
    x = torch.eye(3, 4)
    x[1, 2] = x[2, 0] = value
    graph = Graph(x.to_sparse_csr() if sparse else x, EDGES, LABELS)
    with pytest.raises(DataError, match=f"tiny: 2 NaN or infinite features, first {value} at node 1, column 2"):
        check_graph(graph, "tiny")


def test_edge_to_a_missing_node_is_quoted():
    edges = torch.tensor([[0, 1, 2], [1, 7, -1]])
    with pytest.raises(DataError, match="2 of 3 edges point outside the 3 nodes, first edge 1: 1 -> 7"):
        check_graph(Graph(torch.ones(3, 2), edges, LABELS), "tiny")


def test_labels_that_do_not_fit_the_nodes_are_refused():
    with pytest.raises(DataError, match="2 labels for 3 nodes"):
        check_graph(Graph(torch.ones(3, 2), EDGES, LABELS[:2]), "tiny")


def test_a_node_in_two_parts_of_a_split_is_refused():
    train = torch.tensor([True, False, False])
    rest = torch.tensor([False, True, True])
    with pytest.raises(DataError, match="in split 0 a node is in more than one of train, validation and test"):
        split_from_masks(train, rest, rest, 3, "tiny")
    with pytest.raises(DataError, match="split 0 has an empty part"):
        split_from_masks(train, torch.zeros(3, dtype=torch.bool), rest, 3, "tiny")
    with pytest.raises(DataError, match="a split mask has 3 rows for 4 nodes"):
        split_from_masks(train, rest, rest, 4, "tiny")
