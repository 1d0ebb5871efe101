"""Graphs whose arrays are mapped from files, against the same graphs in memory."""

import copy
from itertools import islice

import numpy as np
import pytest
import torch
from tiny import tiny_edges

from sslcollapse.core.errors import DataError, RunError
from sslcollapse.core.types import Context
from sslcollapse.domains.graph import mapped
from sslcollapse.domains.graph.data import Graph, GraphDataset
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.mapped import MappedFeatures, MappedGraph, MappedStructure, graph_of_stores
from sslcollapse.domains.graph.neighbours import InEdges
from sslcollapse.domains.graph.view import GraphStructure
from sslcollapse.nn.sparse import import_geometric

DATASET = dict(type="csbm", nodes=120, features=12, train_per_class=5, validation_per_class=5)


def mapped_like(graph):
    """The same graph, edges by target with 32 bits a number."""
    source, target = graph.edge_index
    edges = InEdges.of(graph.view().structure)
    loops = source[source == target]
    structure = MappedStructure(InEdges(edges.pointers, edges.sources.int()), loops if len(loops) else None)
    return MappedGraph(MappedFeatures(graph.x), structure, graph.y)


def both(tmp_path, **batching):
    """The same domain with its graph in memory, and mapped."""
    made = [GraphDomain(tmp_path, dataset=DATASET, batching=batching) for _ in range(2)]
    data = made[0].dataset
    made[1].use(GraphDataset("mapped", (mapped_like(data.graphs[0]),), data.num_classes, data.splits))
    return made


@pytest.mark.parametrize(
    "batching",
    [dict(type="neighbours", batch_size=12, fanout=[3, 3]), dict(type="parts", parts=6, per_batch=2)],
    ids=lambda batching: batching["type"],
)
def test_sampled_batches_of_a_mapped_graph_are_to_the_bit_those_of_the_graph_in_memory(tmp_path, batching, monkeypatch):
    ours, theirs = both(tmp_path, **batching)
    monkeypatch.setattr(MappedStructure, "edge_index", property(lambda self: pytest.fail("all edges were made")))
    monkeypatch.setattr(MappedFeatures, "_x", property(lambda self: pytest.fail("all features were made")))
    pairs = zip(ours.batches(5, Context(seed=3)), theirs.batches(5, Context(seed=3)), strict=False)
    for expected, found in islice(pairs, 3):
        for one, other in zip(expected.views, found.views, strict=True):
            assert torch.equal(one.edge_index, other.edge_index)
            assert torch.equal(one.x, other.x)


def test_edges_and_self_loops_of_a_mapped_graph_are_those_it_was_made_of():
    graph = Graph(torch.eye(7), tiny_edges(), torch.zeros(7, dtype=torch.long))
    found = mapped_like(graph)
    assert sorted(found.edge_index.t().tolist()) == sorted(graph.edge_index.t().tolist())
    assert found.num_edges == graph.num_edges
    assert (found.num_nodes, found.num_features) == (7, 7)
    assert torch.equal(found.x, graph.x)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.int8])
def test_rows_are_float32_whatever_is_stored_and_masks_hold_for_them(kind, monkeypatch):
    monkeypatch.setattr(mapped, "ROWS_AT_ONCE", 8)  # two rows at a time
    stored, scale = torch.tensor([[1, -2, 3], [4, 5, -6], [7, 8, 9]]).to(kind), None
    if kind == torch.int8:
        scale = torch.tensor([1.0, 0.5, 2.0])
    expected = stored.float() * (1.0 if scale is None else scale[:, None])
    features = MappedFeatures(stored, scale, torch.tensor([1.0, 0.0, 1.0]))
    assert features.dense.dtype == features.rows(torch.tensor([2])).dtype == torch.float32
    kept = expected * torch.tensor([1.0, 0.0, 1.0])
    assert torch.equal(features.dense, kept)
    assert torch.equal(features.rows(torch.tensor([2, 0], dtype=torch.int32)).dense, kept[[2, 0]])
    assert torch.equal(features.first(2).dense, kept[:2])
    assert torch.equal(features.masked(None).dense, expected)


def test_what_needs_a_whole_graph_is_refused_with_a_sentence_where_memory_has_no_room(tmp_path, monkeypatch):
    _, theirs = both(tmp_path, type="full")
    theirs.load()
    monkeypatch.setattr(mapped, "machine_memory", lambda: 4 * 120 * 12)
    with pytest.raises(RunError, match=r"all of it at once needs at least .* 'neighbours' or 'parts'"):
        theirs.load()
    with pytest.raises(RunError, match="a list of all edges at once"):
        _ = theirs.dataset.graphs[0].edge_index
    monkeypatch.setattr(mapped, "machine_memory", lambda: 100)
    with pytest.raises(RunError, match="features of all nodes at once"):
        _ = theirs.dataset.graphs[0].x


def with_stores(graph, *, by_target=False):
    """The same graph in the stores of PyTorch Geometric that are in memory."""
    geometric = import_geometric("testing")
    features, edges = geometric.MyFeatureStore(), geometric.MyGraphStore()
    features.put_tensor(graph.x, group_name="paper", attr_name="x", index=None)
    kind, size = ("paper", "cites", "paper"), (graph.num_nodes, graph.num_nodes)
    if by_target:
        found = InEdges.of(graph.view().structure)
        edges.put_edge_index((found.sources.long(), found.pointers), edge_type=kind, layout="csc", size=size)
    else:
        edges.put_edge_index(graph.edge_index, edge_type=kind, layout="coo", size=size)
    return features, edges


def test_stores_of_pytorch_geometric_by_target_give_the_batches_of_arrays(tmp_path):
    ours, theirs = both(tmp_path, type="neighbours", batch_size=12, fanout=[3, 3])
    graph = ours.dataset.graphs[0]
    found = graph_of_stores(*with_stores(graph, by_target=True), graph.y, group_name="paper", attr_name="x")
    theirs.use(GraphDataset("stores", (found,), ours.dataset.num_classes, ours.dataset.splits))
    pairs = zip(ours.batches(0, Context()), theirs.batches(0, Context()), strict=False)
    for expected, other in islice(pairs, 2):
        for one, two in zip(expected.views, other.views, strict=True):
            assert torch.equal(one.edge_index, two.edge_index)
            assert torch.equal(one.x, two.x)
    assert torch.equal(found.x, graph.x)


def test_a_graph_of_pytorch_geometric_is_a_store_and_its_self_loops_are_kept_beside():
    graph = Graph(torch.eye(7), tiny_edges(), torch.zeros(7, dtype=torch.long))
    data = import_geometric("data").Data(x=graph.x, edge_index=graph.edge_index, num_nodes=7)
    found = graph_of_stores(data, data, graph.y)
    assert sorted(found.edge_index.t().tolist()) == sorted(graph.edge_index.t().tolist())
    assert torch.equal(found.view().features.first(3).dense, torch.eye(7)[:3])
    expected, sources = (InEdges.of(each.view().structure) for each in (graph, found))
    assert torch.equal(expected.pointers, sources.pointers)


def test_stores_that_do_not_fit_are_refused():
    graph = Graph(torch.eye(7), tiny_edges(), torch.zeros(7, dtype=torch.long))
    features, edges = with_stores(graph)
    features.put_tensor(torch.eye(5), group_name="author", attr_name="x", index=None)
    features.put_tensor(torch.ones(7), group_name="paper", attr_name="year", index=None)
    with pytest.raises(DataError, match="edges of 7 nodes, and features of 5"):
        graph_of_stores(features, edges, graph.y, group_name="author", attr_name="x")
    with pytest.raises(DataError, match=r"where \[N, F\] should be"):
        graph_of_stores(features, edges, graph.y, group_name="paper", attr_name="year")
    kind, size = ("author", "writes", "paper"), (5, 7)
    edges.put_edge_index(torch.tensor([[1], [2]]), edge_type=kind, layout="coo", size=size)
    with pytest.raises(DataError, match="2 types of edges"):
        graph_of_stores(features, edges, graph.y, group_name="paper", attr_name="x")


@pytest.mark.parametrize("matrix", ["with_loops", "plain"])
def test_a_graph_whose_matrix_cannot_be_counted_in_32_bits_is_refused(matrix, monkeypatch):
    structure = GraphStructure(tiny_edges(), 7)
    expected = getattr(structure, matrix)
    monkeypatch.setattr("sslcollapse.nn.sparse.MOST", 8)
    with pytest.raises(RunError, match=r"7 x 7 with \d+ non-zeros: products count in 32 bits.*'neighbours'"):
        getattr(GraphStructure(tiny_edges(), 7), matrix)
    monkeypatch.setattr("sslcollapse.nn.sparse.MOST", len(expected.row))
    assert torch.equal(getattr(GraphStructure(tiny_edges(), 7), matrix).row, expected.row)


def test_the_probe_set_and_copies_of_a_mapped_graph_share_what_is_mapped(tmp_path):
    _, theirs = both(tmp_path, type="full")
    graph = theirs.dataset.graphs[0]
    probes = theirs.probe_set().to(torch.device("cpu"))
    place = graph.view().features.stored.data_ptr()
    assert probes.views[0].features.stored.data_ptr() == place
    assert probes.labels.data_ptr() == graph.y.data_ptr()
    assert copy.deepcopy(theirs.dataset).graphs[0].view().features.stored.data_ptr() == place
    assert np.array_equal(probes.views[0].x, graph.x)
