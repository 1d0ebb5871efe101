"""All nodes of a graph encoded layer by layer in chunks, against one forward pass over all of them."""

import copy
import tempfile
from itertools import product
from pathlib import Path

import pytest
import torch
from tiny import random_graph

from sslcollapse.core.errors import RecipeError, RunError
from sslcollapse.core.registry import ENCODERS
from sslcollapse.core.types import Partwise
from sslcollapse.domains.graph.chunks import NodeChunks
from sslcollapse.domains.graph.domain import propagated
from sslcollapse.domains.graph.mapped import MappedFeatures, MappedStructure
from sslcollapse.domains.graph.neighbours import InEdges
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView
from sslcollapse.nn.sparse import SparseMatrix
from sslcollapse.rank.diagnose.diagnosis import with_statistics
from sslcollapse.rank.measure import measure, represent

NODES = 300
LITTLE = 60_000
"""Bytes: several chunks, and what layers put out is in a mapped file."""


def graph():
    """With self-loops, parallel edges, a node that many have an edge to, and nodes without any."""
    view = random_graph(NODES - 10, 6)
    edges = view.structure.edge_index
    hub = torch.stack([torch.arange(100), torch.full((100,), 7)])
    edges = torch.cat([edges, edges[:, :9], hub, torch.arange(0, 90, 3).repeat(2, 1)], dim=1)
    x = torch.cat([view.x, torch.ones(10, 12)])
    return GraphView(GraphStructure(edges, NODES), Features(x))


def mapped(view):
    """The same graph as it is on disk, of which nothing may be read whole."""
    source, target = view.structure.edge_index
    structure = MappedStructure(InEdges.of(GraphStructure(view.structure.edge_index, NODES)), source[source == target])
    return GraphView(structure, MappedFeatures(view.x))


@pytest.fixture
def nothing_whole(monkeypatch):
    monkeypatch.setattr(MappedStructure, "edge_index", property(lambda self: pytest.fail("all edges were made")))
    monkeypatch.setattr(MappedFeatures, "_x", property(lambda self: pytest.fail("all features were made")))


def encoder(name, view, **arguments):
    """With running statistics of its own."""
    torch.manual_seed(0)
    made = ENCODERS.build({"type": name, "hidden": [8, 8, 8], **arguments}, (12,))
    with torch.no_grad():
        made(view)
    return made.eval().requires_grad_(False)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


CASES = [
    *product(["gcn"], ["batch", "layer", "graph", "none"], [False, True]),
    *product(["sage"], ["batch", "layer", "graph", "none"], [False, True]),
]


@pytest.mark.parametrize(("name", "norm", "residual"), CASES)
def test_nodes_in_chunks_have_the_representations_of_one_forward_pass(name, norm, residual, nothing_whole):
    view = graph()
    network = encoder(name, view, norm=norm, residual=residual)
    expected = network(view)
    for given in (view, mapped(view)):
        close(NodeChunks(given, memory=LITTLE).encoded(network), expected)
    rows = torch.tensor([0, 7, 150, NODES - 1])
    close(NodeChunks(mapped(view), memory=LITTLE).only(rows).encoded(network), expected[rows])
    close(NodeChunks(view).only(torch.arange(50, 250)).only(torch.tensor([3, 9])).encoded(network), expected[[53, 59]])


@pytest.mark.parametrize("name", ["gcn", "sage"])
def test_sparse_features_and_standardised_weights_are_encoded_in_chunks(name):
    view = graph()
    x = view.x * (view.x > 1)
    sparse = GraphView(view.structure, Features(SparseMatrix.from_csr(x.to_sparse_csr())))
    network = encoder(name, sparse, **({"weight_standardization": True} if name == "gcn" else {}))
    close(NodeChunks(sparse, memory=LITTLE).encoded(network), network(sparse))


def test_no_chunk_is_larger_than_its_memory_but_for_a_single_node_and_all_rows_are_computed_once():
    view, rows, widths = graph(), [], []
    network = encoder("gcn", view)

    def count(module, inputs, output):
        rows.append(len(output))
        widths.append(inputs[1].shape[1])

    for conv in network.convs:
        conv.register_forward_hook(count)
    NodeChunks(view, memory=LITTLE).encoded(network)
    assert sum(rows) == 3 * NODES
    many = [entries for each, entries in zip(rows, widths, strict=True) if each > 1]
    assert max(many) <= LITTLE // 4 // (8 * 8 + 128) < NODES
    assert max(widths) > 100  # the node with a hundred neighbours, by itself


def test_of_few_wanted_nodes_each_layer_computes_those_that_the_next_one_reads():
    view, rows = graph(), []
    network = encoder("gcn", view)
    for conv in network.convs:
        conv.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    source, target = view.structure.edge_index
    near = {200} | set(source[target == 200].tolist())
    NodeChunks(view).only(torch.tensor([200])).encoded(network)
    assert rows[-2:] == [len(near), 1]
    assert rows[0] < NODES


def test_layers_beyond_the_memory_are_in_a_file_without_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    view = graph()
    parts = NodeChunks(view, memory=LITTLE).parts(encoder("gcn", view))
    next(parts)
    mapped_files = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert mapped_files
    assert all("(deleted)" in line for line in mapped_files)
    assert not list(tmp_path.iterdir())


def test_a_temporary_folder_without_room_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    view = graph()
    with pytest.raises(RunError, match=r"gone: no room for 9600 bytes.*set TMPDIR"):
        NodeChunks(view, memory=LITTLE).encoded(encoder("gcn", view))


def test_an_encoder_without_layers_makes_one_pass_in_memory_and_is_refused_on_disk():
    view = graph()
    network = ENCODERS.build({"type": "mlp", "hidden": [8, 6]}, (12,)).eval()
    rows = torch.tensor([4, 5, 200])
    with torch.no_grad():
        assert torch.equal(NodeChunks(view).only(rows).encoded(network), network(view)[rows])
    with pytest.raises(RecipeError, match=r"encoder: MLP needs the whole graph.*use the encoder 'gcn' or 'sage'"):
        NodeChunks(mapped(view)).check(network)


def test_propagated_features_in_chunks_are_those_of_the_whole_graph():
    view = graph()
    for hops in range(3):
        close(propagated(NodeChunks(mapped(view), memory=LITTLE), hops), propagated(view, hops))
    close(NodeChunks(view).only(torch.tensor([7])).propagated(2), propagated(view, 2)[7:8])


def test_statistics_measured_in_chunks_are_those_of_one_pass():
    view = graph()
    network = encoder("gcn", view)
    whole, chunked = (copy.deepcopy(network) for _ in range(2))
    with torch.no_grad():
        with_statistics(whole, [view])
        with_statistics(chunked, [NodeChunks(view, memory=LITTLE)])
    for one, other in zip(chunked.buffers(), whole.buffers(), strict=True):
        close(one, other)
    assert not torch.equal(whole.norm_acts[0].norm.running_var, network.norm_acts[0].norm.running_var)


@pytest.mark.parametrize("samples", [None, 20])
@pytest.mark.parametrize(("name", "norm"), [("gcn", "batch"), ("sage", "graph")])
def test_ranks_of_every_layer_and_head_in_chunks_are_those_of_one_pass(name, norm, samples):
    view = graph()
    network = encoder(name, view, norm=norm)
    heads = dict(projector=torch.nn.Linear(8, 6), predictor=torch.nn.Linear(6, 6))
    rows = None if samples is None else torch.linspace(0, NODES - 1, samples).long()
    whole = measure(network, [view], rows=rows, **heads)
    chunked = measure(network, [NodeChunks(mapped(view), memory=LITTLE)], rows=rows, **heads)
    assert [row.point for row in chunked.rows] == [row.point for row in whole.rows]
    assert {row.n for row in chunked.rows if row.kind != "weight"} == {samples or NODES}
    for one, other in zip(chunked.rows, whole.rows, strict=True):
        assert one.effective_rank == pytest.approx(other.effective_rank, rel=1e-5)
        if one.kind != "weight":
            assert one.effective_rank_centred == pytest.approx(other.effective_rank_centred, rel=1e-5)
        singular = torch.from_numpy(chunked.singular[one.point.key]), torch.from_numpy(whole.singular[one.point.key])
        torch.testing.assert_close(*singular, rtol=1e-5, atol=1e-5 * float(singular[1].max()))


def test_ranks_over_several_graphs_count_the_rows_of_each():
    first, second = graph(), random_graph(50)
    network = encoder("gcn", first)
    rows = torch.tensor([0, 299, 300, 349])
    whole = measure(network, [first, second], rows=rows)
    chunked = measure(network, [NodeChunks(first, memory=LITTLE), NodeChunks(second)], rows=rows)
    assert chunked.rows[0].n == 4
    assert chunked.rows[0].effective_rank == pytest.approx(whole.rows[0].effective_rank, rel=1e-5)
    both = [NodeChunks(first), NodeChunks(second)]
    assert all(isinstance(each, Partwise) for each in both)
    close(represent(network, both), represent(network, [first, second]))


def test_a_memory_below_a_byte_is_refused():
    with pytest.raises(ValueError, match="memory must be >= 1 byte, got 0"):
        NodeChunks(graph(), memory=0)
