"""Graphs written to disk and read from there: the same graph, whatever ended the writing, and nothing damaged."""

import json
import os
import resource
import signal
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_edges

from sslcollapse import cli
from sslcollapse.core.errors import DataError, MissingDataError, RunError, WriteError
from sslcollapse.core.types import Context, Split
from sslcollapse.domains.graph import pack as packing
from sslcollapse.domains.graph import packed, stream
from sslcollapse.domains.graph.data import Graph, GraphDataset, csr_tensor
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.neighbours import InEdges
from sslcollapse.domains.graph.pack import pack
from sslcollapse.domains.graph.packed import PackedGraph
from sslcollapse.domains.graph.stream import stream_of

DATASET = dict(type="csbm", nodes=120, features=12, train_per_class=5, validation_per_class=5)


def write(dataset, folder, *, kind="float32", memory=10**6, key="this", progress=lambda text: None):
    given = dataset if isinstance(dataset, stream.GraphStream) else stream_of(dataset)
    return pack(given, folder, key=key, kind=kind, memory=memory, progress=progress)


def read(folder):
    return PackedGraph(folder.parent, path=folder.name).load()


def small(x=None, **changes):
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)) if x is None else x
    split = Split(np.array([0, 1]), np.array([2]), np.array([4, 5]))
    graph = Graph(x, tiny_edges(), torch.tensor([0, 1, 0, 1, 0, 1, -1]))
    return GraphDataset("small", (graph,), 2, {"public": (split, split)}, **changes)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def blocks():
    """A block model in memory."""
    return GraphDomain(".", dataset=DATASET).dataset


@pytest.fixture
def stored(tmp_path):
    """A folder with a small graph."""
    write(small(), tmp_path / "graph")
    return tmp_path / "graph"


def described(folder, **changes):
    path = folder / "graph.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_stored_graph_has_features_labels_edges_loops_and_splits_of_the_one_it_was_made_of(stored):
    expected, found = small(), read(stored)
    graph = found.graphs[0]
    assert torch.equal(graph.x, expected.graphs[0].x)
    assert torch.equal(graph.y, expected.graphs[0].y)
    assert sorted(graph.edge_index.t().tolist()) == sorted(tiny_edges().t().tolist())
    assert (tiny_edges()[0] == tiny_edges()[1]).any()  # self-loops among them
    assert (found.name, found.num_classes, found.train_graphs) == ("small", 2, (0,))
    for one, other in zip(found.splits["public"], expected.splits["public"], strict=True):
        assert one.train.tolist() == other.train.tolist()
        assert one.validation.tolist() == other.validation.tolist()
        assert one.test.tolist() == other.test.tolist()
    PackedGraph(stored, path=str(stored)).verify()


def test_several_graphs_labels_of_several_classes_and_sparse_features_are_stored_too(tmp_path):
    dense = torch.eye(7)
    sparse = csr_tensor(torch.ones(7, dtype=torch.long), torch.arange(7), torch.ones(7), (7, 7))
    y = torch.tensor([[1.0, 0.0]] * 7)
    graphs = (Graph(sparse, tiny_edges(), y), Graph(2 * dense, tiny_edges().flip(0), 1 - y))
    write(GraphDataset("two", graphs, 2, {}, (1,)), tmp_path / "two")
    found = read(tmp_path / "two")
    assert found.multilabel
    assert found.train_graphs == (1,)
    for one, other in zip(found.graphs, graphs, strict=True):
        assert torch.equal(one.x, other.x.to_dense())
        assert torch.equal(one.y, other.y)
        assert sorted(one.edge_index.t().tolist()) == sorted(other.edge_index.t().tolist())
    PackedGraph(tmp_path, path="two").verify()


@pytest.mark.parametrize("memory", [10**6, 480])
def test_edges_are_by_target_in_the_order_of_the_graph_in_memory_however_little_memory_sorts_them(
    tmp_path, blocks, memory, monkeypatch
):
    monkeypatch.setattr(stream, "BLOCK", 77)
    write(blocks, tmp_path / "graph", memory=memory)
    expected, found = (InEdges.of(data.graphs[0].view().structure) for data in (blocks, read(tmp_path / "graph")))
    assert torch.equal(found.pointers, expected.pointers)
    assert torch.equal(found.sources.long(), expected.sources.long())
    assert found.sources.dtype == torch.int32


def test_edges_of_a_graph_whose_pairs_are_one_edge_each_are_stored_once_in_order_of_their_sources(tmp_path, blocks):
    edges = blocks.graphs[0].edge_index.numpy()[:, ::-1]
    given = replace(stream_of(blocks), unique=True, edges=lambda skip: iter([edges, edges, np.full((2, 3), 5)][skip:]))
    write(given, tmp_path / "graph", memory=4800)
    graph = read(tmp_path / "graph").graphs[0]
    expected = InEdges.of(blocks.graphs[0].view().structure)  # whose edges are sorted
    assert torch.equal(InEdges.of(graph.view().structure).sources.long(), expected.sources.long())
    assert graph.num_edges == edges.shape[1] + 1
    assert graph.view().structure.loops.tolist() == [5]


def test_steps_on_a_stored_graph_are_to_the_bit_those_on_the_graph_in_memory(tmp_path, blocks):
    write(blocks, tmp_path / "graph")
    batching = dict(type="neighbours", batch_size=12, fanout=[3, 3])
    ours = GraphDomain(tmp_path, dataset=DATASET, batching=batching)
    theirs = GraphDomain(tmp_path, dataset=dict(type="stored", path="graph"), batching=batching)
    assert theirs.in_shape == ours.in_shape
    for expected, found in islice(zip(ours.batches(0, Context()), theirs.batches(0, Context()), strict=False), 2):
        for one, other in zip(expected.views, found.views, strict=True):
            assert torch.equal(one.edge_index, other.edge_index)
            assert torch.equal(one.x, other.x)
    assert json.loads(theirs.data_key())[2]  # the files, with their times


@pytest.mark.parametrize(("kind", "error"), [("float16", 2.0**-11), ("int8", 0.5 / 127)])
def test_features_of_fewer_bits_are_as_near_as_these_allow(tmp_path, blocks, kind, error):
    x = blocks.graphs[0].x.clone()
    x[3] = 0.0
    graph = Graph(x, blocks.graphs[0].edge_index, blocks.graphs[0].y)
    write(replace(blocks, graphs=(graph,)), tmp_path / "graph", kind=kind)
    features = read(tmp_path / "graph").graphs[0].view().features
    found = features.rows(torch.arange(120)).dense
    assert found.dtype == torch.float32
    assert features.stored.dtype == getattr(torch, kind)
    assert ((found - x).abs() <= error * 1.001 * x.abs().max(dim=1, keepdim=True).values).all()
    assert found[3].abs().max() == 0


def failing(folder, tries, attempt):
    """Attempts that each end at a later point than the one before, until one does not end."""
    for k in range(tries):
        if attempt(k):
            return k
        with pytest.raises(DataError, match="not packed to its end; give the same `sslcollapse graph pack` command"):
            read(folder)
    pytest.fail("never complete")


@pytest.fixture
def in_pieces(monkeypatch):
    """Everything comes in small pieces, each of which is written down."""
    monkeypatch.setattr(packing, "SAVE_EVERY", 1)
    monkeypatch.setattr(stream, "BLOCK", 400)


def test_a_packing_that_a_full_disk_ended_goes_on_and_writes_the_same_bytes(tmp_path, blocks, in_pieces):
    write(blocks, tmp_path / "at once", kind="int8", memory=9600)
    folder, usual = tmp_path / "graph", resource.getrlimit(resource.RLIMIT_FSIZE)
    begun, said = [], []

    def attempt(k):  # files may have 500 bytes more each time
        given = stream_of(blocks)
        noted = replace(given, features=lambda start: (begun.append(start), given.features(start))[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (700 + 500 * k, usual[1]))
        try:
            return write(noted, folder, kind="int8", memory=9600)
        except WriteError as error:
            said.append(str(error))
            return False
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)

    assert failing(folder, 100, attempt) > 3
    assert all("then give the same command again" in message for message in said)
    assert max(begun) > 0  # it went on where it had stopped
    assert contents(folder) == contents(tmp_path / "at once")


def test_a_packing_that_was_killed_anywhere_goes_on_and_writes_the_same_bytes(tmp_path, blocks, in_pieces):
    write(blocks, tmp_path / "at once", memory=48000)
    folder = tmp_path / "graph"

    def attempt(k):
        child = os.fork()
        if not child:
            told = iter(range(k + 1))  # of each attempt a message more
            write(
                blocks,
                folder,
                memory=48000,
                progress=lambda text: os.kill(os.getpid(), signal.SIGKILL) if next(told) == k else None,
            )
            os._exit(0)
        return os.waitpid(child, 0)[1] == 0

    assert failing(folder, 30, attempt) > 1
    assert contents(folder) == contents(tmp_path / "at once")


@pytest.mark.parametrize("unique", [False, True])
def test_a_packing_that_ended_while_it_completed_self_loops_loses_none(tmp_path, monkeypatch, unique):
    graph = replace(stream_of(small()), unique=unique)
    write(graph, tmp_path / "at once")
    assert len(np.load(tmp_path / "at once" / "loops.npy"))
    for ends in ("append", "complete", "close"):
        usual = getattr(packing._GrowingArray, ends)
        with monkeypatch.context() as during:

            def stopped(array, *arguments, usual=usual):
                if array.path.name.startswith("loops") and os.path.exists(tmp_path / "graph" / "indices.npy"):
                    raise KeyboardInterrupt
                return usual(array, *arguments)

            during.setattr(packing._GrowingArray, ends, stopped)
            with pytest.raises(KeyboardInterrupt):
                write(graph, tmp_path / "graph")
    write(graph, tmp_path / "graph")
    assert contents(tmp_path / "graph") == contents(tmp_path / "at once")


def test_a_folder_has_one_lock_whatever_it_is_called(tmp_path, monkeypatch):
    (tmp_path / "graph").mkdir()
    (tmp_path / "link").symlink_to("graph")
    monkeypatch.chdir(tmp_path / "graph")

    def again(text):  # another packing, while this one is under way
        with pytest.raises(RunError, match="graph: this folder is in use by process"):
            write(small(), tmp_path / "link")
        told.append(text)

    told = []
    assert write(small(), Path("."), progress=again)
    assert told


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "graph").write_text("mine")
    with pytest.raises(RunError, match="graph: is no folder; give a new one"):
        write(small(), tmp_path / "graph")
    assert (tmp_path / "graph").read_text() == "mine"


def test_another_graph_or_files_of_somebody_else_are_not_mixed_with_a_stored_one(stored, tmp_path):
    before = contents(stored)
    assert not write(small(), stored)  # complete already
    with pytest.raises(RunError, match="has another graph, or was packed with other options"):
        write(small(), stored, key="other")
    with pytest.raises(RunError, match="other options"):
        write(small(), stored, kind="int8")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to.txt").write_text("you")
    with pytest.raises(RunError, match="is not empty"):
        write(small(), tmp_path / "letters")
    assert contents(stored) == before


def test_what_cannot_be_trained_on_is_found_while_packing(tmp_path):
    x = torch.zeros(7, 3)
    x[4, 1] = float("nan")
    with pytest.raises(DataError, match="small: nan at row 4, column 1; NaN or infinite features"):
        write(small(x), tmp_path / "nan")
    x[4, 1] = 1e6
    with pytest.raises(DataError, match="row 4 has a feature of 1e\\+06, which float16 cannot hold"):
        write(small(x), tmp_path / "large", kind="float16")
    given = stream_of(small())
    with pytest.raises(DataError, match="an edge 3 -> 7 points outside the 7 nodes"):
        write(replace(given, edges=lambda skip: iter([np.array([[0, 3], [1, 7]])])), tmp_path / "edges")
    with pytest.raises(DataError, match="no edges"):
        write(replace(given, edges=lambda skip: iter([])), tmp_path / "none")
    with pytest.raises(DataError, match="features of 5 nodes, where there are 7"):
        write(replace(given, features=lambda start: iter([np.zeros((5, 3), np.float32)])), tmp_path / "few")
    for name in ("nan", "large", "edges", "none", "few"):
        assert not (tmp_path / name / "graph.json").exists()


def cut(folder):
    path = folder / "x.npy"
    path.write_bytes(path.read_bytes()[:-5])


def of_another_type(folder):
    np.save(folder / "x.npy", np.zeros((7, 3), np.float64))


def of_objects(folder):
    np.save(folder / "y.npy", np.array([None] * 7), allow_pickle=True)


def with_pointers_of_another(folder):
    pointers = np.load(folder / "indptr.npy")
    pointers[-1] += 1
    np.save(folder / "indptr.npy", pointers)


def a_pipe(folder):
    (folder / "y.npy").unlink()
    os.mkfifo(folder / "y.npy")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "x.npy: truncated or damaged"),
        (lambda folder: (folder / "indices.npy").unlink(), "indices.npy: is not there, but graph.json names it"),
        (of_another_type, r"x.npy: holds float64 \[7, 3\], and graph.json says float32 \[7, 3\]"),
        (of_objects, "y.npy: an array of Python objects"),
        (with_pointers_of_another, "indices.npy: does not fit a graph of 7 nodes"),
        (a_pipe, "y.npy: a named pipe, not a regular file"),
        (lambda folder: described(folder, version=2), "has version 2 of the format.*reads 1; pack the graph again"),
        (lambda folder: described(folder, format="other"), "describes no stored graph"),
        (lambda folder: described(folder, graphs=[-7]), "where whole numbers should be"),
        (lambda folder: described(folder, arrays={}), "more splits than arrays"),
        (lambda folder: described(folder, arrays=[1]), "graph.json: not as graph pack writes it"),
        (lambda folder: (folder / "graph.json").write_text("[" * 10**5), "not as graph pack writes it"),
        (lambda folder: (folder / "graph.json").unlink(), "holds no stored graph .* sslcollapse graph pack RECIPE"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(stored, damage, message):
    damage(stored)
    with pytest.raises((DataError, MissingDataError), match=message):
        read(stored)


def test_a_path_of_the_working_folder_is_named_where_the_data_root_has_none(stored, tmp_path, monkeypatch):
    monkeypatch.chdir(stored.parent)
    with pytest.raises(MissingDataError, match=f"a relative path is one below the data root, and {stored} holds one"):
        PackedGraph(tmp_path / "root", path=stored.name).load()


def test_an_array_that_leads_out_of_the_folder_is_refused(stored):
    arrays = json.loads((stored / "graph.json").read_text())["arrays"]
    described(stored, arrays=arrays | {"../x": arrays["x"]})
    with pytest.raises(DataError, match=r"names an array '\.\./x', which graphs do not have"):
        read(stored)


def test_verify_finds_a_number_that_was_changed(stored):
    path = stored / "indices.npy"
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(data)
    read(stored)
    with pytest.raises(DataError, match=r"indices\.npy: its checksum is not the one"):
        PackedGraph(stored, path=str(stored)).verify()


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("indices", 0, 7, "indices.npy: has 7 at position 0, where numbers are from 0 to 6"),
        ("y", 2, 9, "y.npy: has 9 at position 2, where numbers are from -1 to 1"),
        ("x", (3, 2), np.inf, "x.npy: inf at row 3, column 2"),
        ("indptr", 1, -1, "indptr.npy: has -1 at position 1"),
        ("split.public.0.test", 0, -1, "split.public.0.test.npy: has -1"),
    ],
)
def test_verify_finds_numbers_that_no_packing_writes_even_with_their_checksum(stored, name, place, value, message):
    array = np.load(stored / f"{name}.npy")
    array[place] = value
    np.save(stored / f"{name}.npy", array)
    arrays = json.loads((stored / "graph.json").read_text())["arrays"]
    arrays[name]["sha256"] = packed.digest(stored / f"{name}.npy")
    described(stored, arrays=arrays)
    with pytest.raises(DataError, match=message):
        PackedGraph(stored, path=str(stored)).verify()


def test_the_command_packs_and_verifies_what_a_recipe_names(tmp_path, capsys):
    recipe = tmp_path / "recipe.json"
    parts = dict(encoder=dict(type="gcn", hidden=[8]), objective=dict(type="cca_ssg"))
    parts |= dict(optim=dict(type="adamw", lr=1e-3), train=dict(steps=1))
    recipe.write_text(json.dumps(dict(name="packed", domain=dict(type="graph", dataset=DATASET), **parts)))
    folder = tmp_path / "graph"
    command = ["graph", "pack", str(recipe), str(folder), "domain.dataset.nodes=130", "--features", "int8"]
    assert cli.main([*command, "--memory", "0.01"]) == 0
    assert f'"path": "{folder}"' in capsys.readouterr().err
    assert cli.main(command) == 0
    assert "was complete already" in capsys.readouterr().err
    assert cli.main(["graph", "verify", str(folder)]) == 0
    assert "130 nodes" in capsys.readouterr().err
    cut(folder)
    assert cli.main(["graph", "verify", str(folder)]) == cli.MENDABLE
    assert "x.npy: truncated" in capsys.readouterr().err
    assert cli.main([*command[:3], str(tmp_path / "toy"), "domain={'type': 'toy'}"]) == cli.MENDABLE
    assert not (tmp_path / "toy").exists()
