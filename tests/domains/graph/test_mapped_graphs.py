"""Graphs whose arrays are mapped from files, against the same graphs in memory."""

import copy
from itertools import islice

import numpy as np
import pytest
import torch
from tiny import tiny_edges

from sslcollapse.core.errors import RunError
from sslcollapse.core.types import Context
from sslcollapse.domains.graph import mapped
from sslcollapse.domains.graph.data import Graph, GraphDataset
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.mapped import MappedFeatures, MappedGraph, MappedStructure
from sslcollapse.domains.graph.neighbours import InEdges

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


def test_the_probe_set_and_copies_of_a_mapped_graph_share_what_is_mapped(tmp_path):
    _, theirs = both(tmp_path, type="full")
    graph = theirs.dataset.graphs[0]
    probes = theirs.probe_set().to(torch.device("cpu"))
    place = graph.view().features.stored.data_ptr()
    assert probes.views[0].features.stored.data_ptr() == place
    assert probes.labels.data_ptr() == graph.y.data_ptr()
    assert copy.deepcopy(theirs.dataset).graphs[0].view().features.stored.data_ptr() == place
    assert np.array_equal(probes.views[0].x, graph.x)
