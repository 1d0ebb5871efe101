"""ogbn-products and ogbn-papers100M on miniature files in their formats, packed a piece at a time."""

import gzip

import numpy as np
import pytest
import torch

from sslcollapse.core.errors import DataError, MissingDataError, RecipeError
from sslcollapse.domains.graph import ogb_large
from sslcollapse.domains.graph import pack as packing
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.ogb_large import LargeOGBN
from sslcollapse.domains.graph.packed import PackedGraph
from sslcollapse.domains.graph.stored import Sizes

NODES = 60
RNG = np.random.default_rng(0)
EDGES = RNG.integers(0, NODES, size=(2, 300))
PARTS = {"train": [5, 3, 1], "valid": [7, 6], "test": [40, 41, 39]}


def write_table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.writelines(",".join(map(str, row)) + "\n" for row in rows)


def write(root, name, saved=np.savez):
    """The miniature of a dataset; its features and labels as they are to be read."""
    width = LargeOGBN.SIZES[name].features
    folder = root / "graph/OGB" / name.replace("-", "_")
    x = np.round(np.random.default_rng(1).normal(size=(NODES, width)), 4).astype(np.float32)
    labels = np.arange(NODES) % 40
    if name == "ogbn-products":
        write_table(folder / "raw/edge.csv.gz", EDGES.T)
        write_table(folder / "raw/node-feat.csv.gz", x)
        write_table(folder / "raw/node-label.csv.gz", labels[:, None])
    else:
        (folder / "raw").mkdir(parents=True)
        lists = dict(num_nodes_list=np.array([NODES]), num_edges_list=np.array([300]))
        saved(folder / "raw/data.npz", edge_index=EDGES, node_feat=x, node_year=np.zeros((NODES, 1)), **lists)
        labels[10:] = -1
        given = np.where(labels < 0, np.nan, labels).astype(np.float32)[:, None]
        saved(folder / "raw/node-label.npz", node_label=given)
    for part, nodes in PARTS.items():
        where = "sales_ranking" if name == "ogbn-products" else "time"
        write_table(folder / f"split/{where}/{part}.csv.gz", [[node] for node in nodes])
    return x, labels


def domain(root, name):
    made = GraphDomain(root, dataset=dict(type="ogbn_large", name=name))
    known = LargeOGBN.SIZES[name]
    made.source.sizes = Sizes(NODES, 300, known.features, known.classes)
    return made


@pytest.fixture(
    params=[("ogbn-products", None), ("ogbn-papers100M", np.savez), ("ogbn-papers100M", np.savez_compressed)]
)
def dataset(request, tmp_path, monkeypatch):
    name, saved = request.param
    monkeypatch.setattr(ogb_large, "PIECE", 4000)
    monkeypatch.setattr(packing, "SAVE_EVERY", 1)
    return name, write(tmp_path, name, saved or np.savez)


def test_raw_files_become_an_undirected_graph_with_their_features_labels_and_split(dataset, tmp_path):
    name, (x, labels) = dataset
    assert domain(tmp_path, name).pack(tmp_path / "stored", memory=48 * 100, progress=lambda text: None)
    stored = PackedGraph(tmp_path, path="stored")
    stored.verify()
    found = stored.load()
    graph = found.graphs[0]
    expected = {(s, t) for s, t in EDGES.T.tolist()} | {(t, s) for s, t in EDGES.T.tolist()}
    listed = graph.edge_index.t().tolist()
    assert len(listed) == len(expected)
    assert {(s, t) for s, t in listed} == expected
    assert np.array_equal(graph.x.numpy(), x)
    assert graph.y.tolist() == labels.tolist()
    assert found.num_classes == LargeOGBN.SIZES[name].classes
    (split,) = found.splits["public"]
    assert [part.tolist() for part in (split.train, split.validation, split.test)] == [[1, 3, 5], [6, 7], [39, 40, 41]]
    assert graph.y.dtype == torch.int64


def test_packing_that_was_stopped_goes_on_within_the_raw_files(dataset, tmp_path):
    name, _ = dataset
    domain(tmp_path, name).pack(tmp_path / "at once", progress=lambda text: None)

    class StoppedError(Exception):
        pass

    def until(number):
        left = iter(range(number))

        def told(text):
            if next(left, None) is None:
                raise StoppedError

        return told

    stops = 0
    for number in range(1, 40, 2):
        try:
            domain(tmp_path, name).pack(tmp_path / "stopped", progress=until(number))
            break
        except StoppedError:
            stops += 1
    assert stops >= 2
    for path in (tmp_path / "at once").iterdir():
        assert path.read_bytes() == (tmp_path / "stopped" / path.name).read_bytes()


def test_a_raw_file_that_was_cut_is_named(tmp_path, dataset):
    name, _ = dataset
    made = domain(tmp_path, name)
    for file in made.source.files()[:2]:
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(DataError, match=rf"{file.name}: truncated or corrupt"):
            domain(tmp_path, name).pack(tmp_path / f"cut {file.name}", progress=lambda text: None)
        file.write_bytes(whole)


def test_lines_that_are_missing_columns_that_are_too_many_and_words_are_errors(tmp_path):
    write(tmp_path, "ogbn-products")
    edge = tmp_path / "graph/OGB/ogbn_products/raw/edge.csv.gz"
    for rows, message in [
        (EDGES.T[:-1], "lists 299 edges instead of 300"),
        ([[1, 2, 3]], "3 columns instead of 2"),
        ([["one", 2]], "edge.csv.gz: truncated or corrupt"),
    ]:
        write_table(edge, rows)
        with pytest.raises(DataError, match=message):
            list(domain(tmp_path, "ogbn-products").source.stream().edges(0))


def test_a_line_without_end_is_refused_before_it_fills_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(ogb_large, "LONGEST_LINE", 1000)
    monkeypatch.setattr(ogb_large, "PIECE", 1000)
    write(tmp_path, "ogbn-products")
    with gzip.open(tmp_path / "graph/OGB/ogbn_products/raw/edge.csv.gz", "wb") as file:
        file.write(b"1" * 5000)
    with pytest.raises(DataError, match="a line of more than 1,000 bytes"):
        list(domain(tmp_path, "ogbn-products").source.stream().edges(0))


def test_an_array_of_objects_or_of_another_shape_is_refused(tmp_path):
    write(tmp_path, "ogbn-papers100M")
    data = tmp_path / "graph/OGB/ogbn_papers100M/raw/data.npz"
    stream = domain(tmp_path, "ogbn-papers100M").source.stream()
    np.savez(data, edge_index=np.array([None]), node_feat=np.zeros((3, 128)))
    with pytest.raises(DataError, match="an array of object"):
        list(stream.edges(0))
    with pytest.raises(DataError, match=r"an array of \[3, 128\] instead of \[60, 128\]"):
        list(stream.features(0))


def test_files_that_are_missing_and_training_without_packing_say_what_to_do(tmp_path):
    made = GraphDomain(tmp_path, dataset=dict(type="ogbn_large", name="ogbn-products"))
    assert "6 of 6 files missing" in made.describe()
    with pytest.raises(MissingDataError, match=r"get its archive from OGB\. Put edge\.csv\.gz, "):
        made.pack(tmp_path / "stored")
    assert not (tmp_path / "stored").exists()
    with pytest.raises(RecipeError, match="sslcollapse graph pack RECIPE DIR"):
        made.load()
