"""Graph datasets from files: the values of PyTorch Geometric, errors for missing or damaged files."""

import hashlib
import io
import os
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from raw_files import contents, tiny, write_npz, write_planetoid, write_ppi, write_webkb, write_wikics
from torch_geometric import datasets as pyg
from torch_geometric.transforms import NormalizeFeatures

from sslcollapse.core.errors import DataError, MissingDataError, RecipeError
from sslcollapse.core.registry import GRAPH_DATASETS
from sslcollapse.domains.graph.datasets import (
    PPI,
    Amazon,
    CitationFull,
    Coauthor,
    Planetoid,
    WebKB,
    WikiCS,
)

pytestmark = pytest.mark.usefixtures("no_network")
needs_real_data = pytest.mark.skipif("SSLCOLLAPSE_DATA" not in os.environ, reason="needs SSLCOLLAPSE_DATA")
FAMILIES = (Planetoid, CitationFull, Amazon, Coauthor, WebKB)
PHOTO = "graph/Amazon/Photo/raw/amazon_electronics_photo.npz"


def every_dataset(root):
    named = [family(root, name=name) for family in FAMILIES for name in family.SIZES]
    return [*named, WikiCS(root), PPI(root)]


def test_files_are_those_the_pyg_loader_wants(tmp_path):
    for dataset in every_dataset(tmp_path):
        assert [str(path) for path in dataset.files()] == dataset.loader(dataset.root).raw_paths, dataset.title


def test_constructing_and_describing_touches_no_files(tmp_path):
    for dataset in every_dataset(tmp_path):
        assert dataset.num_features > 0
        assert f"{dataset.num_features:,} features" in dataset.describe()
        assert "to be downloaded" in dataset.describe()
    assert contents(tmp_path) == set()


def test_planetoid_equals_pyg_with_normalised_features(tmp_path):
    write_planetoid(tmp_path / "a")
    write_planetoid(tmp_path / "b")
    ours = tiny(Planetoid(tmp_path / "a", name="Cora")).load()
    theirs = pyg.Planetoid(str(tmp_path / "b/graph/Planetoid"), "Cora", transform=NormalizeFeatures())[0]
    graph, (split,) = ours.graphs[0], ours.splits["public"]
    assert graph.x.layout == torch.sparse_csr
    assert torch.equal(graph.x.to_dense(), theirs.x)
    assert torch.equal(graph.edge_index, theirs.edge_index)
    assert torch.equal(graph.y, theirs.y)
    for part, mask in zip((split.train, split.validation, split.test), ("train", "val", "test"), strict=True):
        assert np.array_equal(part, theirs[f"{mask}_mask"].nonzero().view(-1).numpy())
    assert (len(split.train), len(split.validation), len(split.test)) == (7, 500, 20)
    assert ours.num_classes == 7
    assert not ours.multilabel


@pytest.mark.parametrize(
    ("family", "name", "path"),
    [
        (Amazon, "Photo", PHOTO),
        (Coauthor, "Physics", "graph/Coauthor/Physics/raw/ms_academic_phy.npz"),
        (CitationFull, "Cora_ML", "graph/CitationFull/cora_ml/raw/cora_ml.npz"),
    ],
)
def test_npz_graph_equals_pyg_loader(tmp_path, family, name, path):
    for copy in "ab":
        write_npz(tmp_path / copy / path, family.SIZES[name].features)
    ours = tiny(family(tmp_path / "a", name=name, normalize_features=False)).load().graphs[0]
    theirs = getattr(pyg, family.__name__)(str(tmp_path / "b/graph" / family.__name__), name)[0]
    assert torch.equal(ours.x.to_dense(), theirs.x)
    assert torch.equal(ours.edge_index, theirs.edge_index)
    assert torch.equal(ours.y, theirs.y)
    assert ours.x.values().unique().tolist() == [-1.5, 1.0]  # counts become 1, zeros are not stored
    assert ours.edge_index.shape[1] == 8  # 0-1, 1-2, 2-4, 3-0 both ways, without the self-loop


def test_webkb_keeps_edge_directions_and_has_ten_splits(tmp_path):
    write_webkb(tmp_path)
    dataset = tiny(WebKB(tmp_path, name="Cornell")).load()
    assert dataset.graphs[0].edge_index.tolist() == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]
    splits = dataset.splits["public"]
    assert len(splits) == 10
    assert (splits[0].train.tolist(), splits[0].validation.tolist(), splits[0].test.tolist()) == (
        [0, 1, 2],
        [3, 4],
        [5],
    )
    assert splits[1].test.tolist() == [0]


def test_wikics_is_undirected_and_validates_on_val_masks(tmp_path):
    write_wikics(tmp_path)
    dataset = tiny(WikiCS(tmp_path)).load()
    graph, splits = dataset.graphs[0], dataset.splits["public"]
    edges = set(map(tuple, graph.edge_index.t().tolist()))
    assert edges == {(i, i + 1) for i in range(7)} | {(i + 1, i) for i in range(7)}
    assert len(splits) == 20
    assert (splits[0].train.tolist(), splits[0].validation.tolist()) == ([0, 1], [2])  # stopping is node 3
    assert all(split.test.tolist() == [4, 5, 6, 7] for split in splits)


def test_wikics_columns_are_standardised_after_row_normalisation(tmp_path):
    write_wikics(tmp_path)
    x = tiny(WikiCS(tmp_path)).load().graphs[0].x
    assert torch.allclose(x.mean(0), torch.zeros(300), atol=1e-5)
    assert torch.allclose(x.std(0, unbiased=False), torch.ones(300), atol=1e-4)
    plain = tiny(WikiCS(tmp_path, standardize_features=False)).load().graphs[0].x
    assert torch.allclose(plain.sum(1), torch.ones(8))


def test_ppi_splits_are_the_node_rows_of_their_graphs(tmp_path):
    write_ppi(tmp_path)
    dataset = tiny(PPI(tmp_path)).load()
    (split,) = dataset.splits["public"]
    assert [graph.num_nodes for graph in dataset.graphs] == [3, 4, 3, 5]
    assert split.train.tolist() == list(range(7))
    assert split.validation.tolist() == [7, 8, 9]
    assert split.test.tolist() == [10, 11, 12, 13, 14]
    assert dataset.multilabel
    assert dataset.num_classes == 121
    features = np.load(tmp_path / "graph/PPI/raw/valid_feats.npy")
    assert np.allclose(dataset.graphs[2].x.numpy(), features)
    assert dataset.graphs[1].edge_index.shape[1] == 8  # a ring of 4, both directions


@pytest.mark.parametrize(("pretrain", "graphs"), [("train", (0, 1)), ("train+val", (0, 1, 2)), ("all", (0, 1, 2, 3))])
def test_ppi_pretrains_on_the_chosen_graphs(tmp_path, pretrain, graphs):
    write_ppi(tmp_path)
    assert tiny(PPI(tmp_path, pretrain=pretrain)).load().train_graphs == graphs


def test_ppi_refuses_unknown_pretrain(tmp_path):
    with pytest.raises(RecipeError, match=r"pretrain must be one of train, train\+val, all, got 'trian'"):
        PPI(tmp_path, pretrain="trian")


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (
            "planetoid",
            "Coar",
            "unknown Planetoid name 'Coar'; did you mean 'Cora'.*known: Cora, CiteSeer, PubMed",
        ),
        ("planetoid", "citeseer", "unknown Planetoid name 'citeseer'; did you mean 'CiteSeer'"),
        ("coauthor", "physics", "unknown Coauthor name 'physics'; did you mean 'Physics'"),
        ("webkb", "Texax", "unknown WebKB name 'Texax'; did you mean 'Texas'"),
    ],
)
def test_misspelt_name_is_answered_with_a_suggestion(tmp_path, kind, name, message):
    with pytest.raises(RecipeError, match=message):
        GRAPH_DATASETS.build({"type": kind, "name": name}, tmp_path)


@pytest.mark.parametrize("make", [lambda r: Planetoid(r, name="Cora"), lambda r: Amazon(r, name="Photo"), PPI])
def test_missing_dataset_without_network_names_files_folder_and_alternative(tmp_path, make):
    dataset = make(tmp_path / "data")
    with pytest.raises(MissingDataError) as caught:
        dataset.load()
    message = str(caught.value)
    for wanted in (
        dataset.files()[-1].name,
        str(dataset.files()[0].parent),
        "data_root",
        "SSLCOLLAPSE_DATA",
        "./data",
        "recipes/quickstart.py",
    ):
        assert wanted in message
    assert contents(tmp_path) == set()  # nothing half-written, no empty folders


def test_missing_file_among_present_ones_is_the_one_named(tmp_path):
    write_planetoid(tmp_path)
    (tmp_path / "graph/Planetoid/Cora/raw/ind.cora.ty").unlink()
    before = contents(tmp_path)
    with pytest.raises(MissingDataError, match=r"Put ind\.cora\.ty into"):
        Planetoid(tmp_path, name="Cora").load()
    assert contents(tmp_path) == before


@pytest.fixture
def photo_server(tmp_path, monkeypatch):
    """Amazon's download address, moved to a folder; returns the file that is served."""
    served = tmp_path / "server" / Path(PHOTO).name
    write_npz(served, 745)
    monkeypatch.setattr(pyg.Amazon, "url", served.parent.as_uri() + "/")
    return served


def test_download_puts_the_raw_file_in_place_and_is_not_repeated(tmp_path, photo_server):
    dataset = tiny(Amazon(tmp_path / "data", name="Photo"))
    first = dataset.load()
    assert {path for path in contents(tmp_path / "data") if path.endswith(".npz") or ".partial" in path} == {PHOTO}
    photo_server.unlink()
    assert torch.equal(dataset.load().graphs[0].edge_index, first.graphs[0].edge_index)


def test_truncated_download_is_not_kept(tmp_path, photo_server):
    photo_server.write_bytes(photo_server.read_bytes()[:500])
    with pytest.raises(MissingDataError, match=r"Amazon Photo was not found and its download failed \(BadZipFile"):
        Amazon(tmp_path / "data", name="Photo").load()
    assert not (tmp_path / "data").exists()


def test_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(self):
        Path(self.raw_paths[0]).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pyg.Amazon, "download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Amazon(tmp_path / "data", name="Photo").load()
    assert not (tmp_path / "data").exists()


def damage_npz(root):
    write_npz(root / PHOTO, 745)
    (root / PHOTO).write_bytes((root / PHOTO).read_bytes()[:500])
    return Amazon(root, name="Photo")


def damage_npz_indices(root):
    write_npz(root / PHOTO, 745)
    arrays = dict(np.load(root / PHOTO))
    arrays["attr_indices"] = arrays["attr_indices"] + 100_000
    np.savez(root / PHOTO, **arrays)
    return Amazon(root, name="Photo")


def damage_pickle(root):
    write_planetoid(root)
    path = root / "graph/Planetoid/Cora/raw/ind.cora.allx"
    path.write_bytes(path.read_bytes()[:1000])
    return Planetoid(root, name="Cora")


def empty_file(root):
    write_planetoid(root)
    (root / "graph/Planetoid/Cora/raw/ind.cora.graph").write_bytes(b"")
    return Planetoid(root, name="Cora")


def damage_text(root):
    write_webkb(root)
    path = root / "graph/WebKB/cornell/raw/out1_node_feature_label.txt"
    path.write_text(path.read_text()[:9000])
    return WebKB(root, name="Cornell")


def damage_json(root):
    write_wikics(root)
    path = root / "graph/WikiCS/raw/data.json"
    path.write_text(path.read_text()[:9000])
    return WikiCS(root)


def damage_ppi(root):
    write_ppi(root)
    for name in ("valid_graph.json", "valid_feats.npy"):
        path = root / "graph/PPI/raw" / name
        path.write_bytes(path.read_bytes()[:150])
    return PPI(root)


@pytest.mark.parametrize(
    "damage", [damage_npz, damage_npz_indices, damage_pickle, empty_file, damage_text, damage_json, damage_ppi]
)
def test_damaged_raw_file_is_reported_with_its_folder_and_the_remedy(tmp_path, damage):
    dataset = damage(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r"Delete .* and run again with a network") as caught:
        dataset.load()
    assert str(dataset.files()[0].parent) in str(caught.value)
    assert dataset.title in str(caught.value)
    assert contents(tmp_path) == before


def test_files_of_another_width_are_refused(tmp_path):
    write_npz(tmp_path / PHOTO, 100)
    with pytest.raises(DataError, match="100 feature columns instead of 745"):
        Amazon(tmp_path, name="Photo").load()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (damage_pickle, r"\): ind\.cora\.allx is truncated"),
        (empty_file, r"\): ind\.cora\.graph is truncated"),
        (damage_ppi, r"\): valid_feats\.npy, valid_graph\.json are truncated"),
    ],
)
def test_the_damaged_one_of_several_raw_files_is_named_alone(tmp_path, damage, named):
    with pytest.raises(DataError, match=named):
        damage(tmp_path).load()


def cut_lines(path, lines):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))


def test_a_test_index_cut_between_lines_is_refused_with_both_numbers_and_the_files(tmp_path):
    write_planetoid(tmp_path)
    dataset = tiny(Planetoid(tmp_path, name="Cora"))
    dataset.load()
    cut_lines(tmp_path / "graph/Planetoid/Cora/raw/ind.cora.test.index", 12)
    with pytest.raises(
        DataError, match=r"Planetoid Cora: 12 test nodes of split 0 instead of 20; .*test\.index.*Delete"
    ):
        dataset.load()


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("out1_graph_edges.txt", 4, r"WebKB Cornell: 3 edges instead of 5; .*out1_graph_edges\.txt.* is incomplete"),
        ("out1_node_feature_label.txt", 6, r"WebKB Cornell"),
    ],
)
def test_a_web_graph_cut_between_lines_is_refused(tmp_path, file, lines, message):
    write_webkb(tmp_path)
    dataset = tiny(WebKB(tmp_path, name="Cornell"))
    dataset.load()
    cut_lines(tmp_path / "graph/WebKB/cornell/raw" / file, lines)
    with pytest.raises(DataError, match=message):
        dataset.load()


def test_other_files_than_the_published_ones_are_refused_in_every_number(tmp_path):
    write_planetoid(tmp_path)
    with pytest.raises(DataError) as caught:
        Planetoid(tmp_path, name="Cora").load()
    for part in (
        "527 nodes instead of 2,708",
        "1,054 edges instead of 10,556",
        "7 train nodes of split 0 instead of 140",
    ):
        assert part in str(caught.value)
    assert "validation" not in str(caught.value)  # 500, as published
    assert "classes" not in str(caught.value)


def test_nan_feature_in_a_file_is_located(tmp_path):
    write_npz(tmp_path / PHOTO, 745)
    arrays = dict(np.load(tmp_path / PHOTO))
    arrays["attr_data"][-1] = np.nan
    np.savez(tmp_path / PHOTO, **arrays)
    with pytest.raises(DataError, match="Amazon Photo: 1 NaN or infinite features, first nan at node 4, column 0"):
        Amazon(tmp_path, name="Photo").load()


def test_corrupt_processed_cache_is_never_read_and_nothing_is_written(tmp_path):
    write_planetoid(tmp_path)
    processed = tmp_path / "graph/Planetoid/Cora/processed"
    processed.mkdir()
    for name in ("data.pt", "pre_transform.pt", "pre_filter.pt"):
        (processed / name).write_bytes(b"garbage")
    before = contents(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert tiny(Planetoid(tmp_path, name="Cora")).load().graphs[0].num_nodes == 527
    assert contents(tmp_path) == before  # so a read-only data root does as well


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("part", ["x", "tx", "allx", "y", "ty", "ally", "graph"])
def test_code_in_a_planetoid_file_is_refused_by_file_and_name_and_does_not_run(tmp_path, part):
    write_planetoid(tmp_path)
    path = tmp_path / f"graph/Planetoid/Cora/raw/ind.cora.{part}"
    path.write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(DataError, match=rf"ind\.cora\.{part}: refused: its pickle asks for \w+\.mkdir"):
        tiny(Planetoid(tmp_path, name="Cora")).load()
    assert not (tmp_path / "ran").exists()


def test_code_in_a_processed_cache_does_not_run(tmp_path):
    write_planetoid(tmp_path)
    processed = tmp_path / "graph/Planetoid/Cora/processed"
    processed.mkdir()
    for name in ("data.pt", "pre_transform.pt", "pre_filter.pt"):
        torch.save(Evil(tmp_path / "ran"), processed / name)
    tiny(Planetoid(tmp_path, name="Cora")).load()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("nodes", [528, 10**12])
def test_a_planetoid_file_of_more_nodes_than_were_published_is_refused_before_it_is_laid_out(tmp_path, nodes):
    write_planetoid(tmp_path)
    index = tmp_path / "graph/Planetoid/Cora/raw/ind.cora.test.index"
    index.write_text(index.read_text() + f"{nodes - 1}\n")
    with pytest.raises(DataError, match=f"{nodes:,} nodes instead of 527"):
        tiny(Planetoid(tmp_path, name="Cora")).load()


def test_a_test_index_that_names_a_known_node_is_refused(tmp_path):
    write_planetoid(tmp_path)
    (tmp_path / "graph/Planetoid/Cora/raw/ind.cora.test.index").write_text("-1\n507\n")
    with pytest.raises(DataError, match="the test index names node -1"):
        tiny(Planetoid(tmp_path, name="Cora")).load()


@pytest.mark.parametrize("make", [write_webkb, write_ppi])
def test_claims_in_array_headers_are_refused_before_the_loader_believes_them(tmp_path, make):
    make(tmp_path)
    dataset = tiny(WebKB(tmp_path, name="Cornell") if make is write_webkb else PPI(tmp_path))
    path = next(path for path in dataset.files() if path.suffix in (".npz", ".npy"))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    path.write_bytes(header.getvalue())
    if path.suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("train_mask.npy", header.getvalue())
    with pytest.raises(DataError, match=r"claims shape \(1000000000000,\)"):
        dataset.load()


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path):
    write_wikics(tmp_path)
    (tmp_path / "graph/WikiCS/raw/data.json").unlink()
    os.mkfifo(tmp_path / "graph/WikiCS/raw/data.json")
    with pytest.raises(DataError, match="a named pipe, not a regular file"):
        tiny(WikiCS(tmp_path)).load()


@needs_real_data
@pytest.mark.parametrize(("name", "digest"), [("Cora", "a7593dd891228a82"), ("CiteSeer", "374c20c0ccf7bcc0")])
def test_real_citation_graphs_are_bit_for_bit_those_of_recorded_results(name, digest):
    dataset = Planetoid(Path(os.environ["SSLCOLLAPSE_DATA"]), name=name)
    if not all(path.is_file() for path in dataset.files()):
        pytest.skip(f"{dataset.title} is not below SSLCOLLAPSE_DATA")
    loaded = dataset.load()
    graph, (split,) = loaded.graphs[0], loaded.splits["public"]
    found = hashlib.sha256()
    tensors = (graph.x.crow_indices(), graph.x.col_indices(), graph.x.values(), graph.edge_index, graph.y)
    for tensor in tensors:
        found.update(str((tensor.dtype, tensor.shape)).encode() + tensor.numpy().tobytes())
    for rows in (split.train, split.validation, split.test):
        found.update(str(rows.dtype).encode() + rows.tobytes())
    assert found.hexdigest()[:16] == digest


@needs_real_data
@pytest.mark.parametrize(
    ("family", "name", "file", "lines", "message"),
    [
        (Planetoid, "Cora", "ind.cora.test.index", 600, "600 test nodes of split 0 instead of 1,000"),
        (WebKB, "Texas", "out1_graph_edges.txt", 100, "edges instead of 325"),
    ],
)
def test_a_real_raw_file_cut_between_lines_is_refused(tmp_path, family, name, file, lines, message):
    real = family(Path(os.environ["SSLCOLLAPSE_DATA"]), name=name)
    if not all(path.is_file() for path in real.files()):
        pytest.skip(f"{real.title} is not below SSLCOLLAPSE_DATA")
    copy = family(tmp_path, name=name)
    shutil.copytree(real.files()[0].parent, copy.files()[0].parent)
    copy.load()
    cut_lines(copy.files()[0].parent / file, lines)
    with pytest.raises(DataError, match=message):
        copy.load()


@needs_real_data
@pytest.mark.parametrize(("family", "name"), [(Amazon, "Photo"), (Planetoid, "CiteSeer"), (CitationFull, "Cora_ML")])
def test_real_dataset_equals_pyg_and_the_published_sizes(tmp_path, family, name):
    dataset = family(Path(os.environ["SSLCOLLAPSE_DATA"]), name=name)
    if not all(path.is_file() for path in dataset.files()):
        pytest.skip(f"{dataset.title} is not below SSLCOLLAPSE_DATA")
    ours = dataset.load()
    copy = tmp_path / dataset.files()[0].parent.relative_to(dataset.root)
    shutil.copytree(dataset.files()[0].parent, copy)
    theirs = getattr(pyg, family.__name__)(str(tmp_path), name, transform=NormalizeFeatures())[0]
    graph = ours.graphs[0]
    assert torch.allclose(graph.x.to_dense(), theirs.x, rtol=1e-6, atol=0)
    assert torch.equal(graph.edge_index, theirs.edge_index)
    assert torch.equal(graph.y, theirs.y)
    sizes = (graph.num_nodes, graph.edge_index.shape[1], ours.num_features, ours.num_classes)
    assert sizes == (dataset.sizes.nodes, dataset.sizes.edges, dataset.sizes.features, dataset.sizes.classes)
