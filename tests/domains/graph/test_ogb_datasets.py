"""ogbn-arxiv through the ogb package, on miniature files in its raw format."""

import builtins
import gzip
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from raw_files import contents, tiny, write_arxiv

from sslcollapse.core.errors import DataError, MissingDataError, RecipeError, RunError
from sslcollapse.domains.graph.ogb import OGBN, import_ogb

FOLDER = "graph/OGB/ogbn_arxiv"

try:
    import_ogb()
except RunError:
    pytest.skip("ogb is not installed", allow_module_level=True)


@pytest.fixture(autouse=True)
def no_questions(no_network, monkeypatch):
    """A question on the terminal fails the test instead of waiting for an answer."""

    def ask(*args):
        raise AssertionError(f"asked {args}")

    monkeypatch.setattr(builtins, "input", ask)


def table(path):
    with gzip.open(path, "rt") as file:
        return np.loadtxt(file, delimiter=",")


def test_arxiv_has_the_values_of_the_raw_files_and_undirected_edges(tmp_path):
    write_arxiv(tmp_path / FOLDER)
    dataset = tiny(OGBN(tmp_path)).load()
    graph = dataset.graphs[0]
    assert np.allclose(graph.x.numpy(), table(tmp_path / FOLDER / "raw/node-feat.csv.gz"), atol=1e-6)
    assert graph.x.dtype == torch.float32
    assert graph.y.tolist() == [i % 40 for i in range(30)]
    cited = {(i, i + d) for i in range(28) for d in (1, 2)}
    assert set(map(tuple, graph.edge_index.t().tolist())) == cited | {(j, i) for i, j in cited}
    assert dataset.num_classes == 40


def test_arxiv_split_is_the_official_one(tmp_path):
    write_arxiv(tmp_path / FOLDER)
    (split,) = tiny(OGBN(tmp_path)).load().splits["public"]
    assert split.train.tolist() == list(range(18))
    assert split.validation.tolist() == list(range(18, 24))
    assert split.test.tolist() == list(range(24, 30))


def test_nothing_is_asked_or_written_without_a_release_mark(tmp_path, capfd):
    write_arxiv(tmp_path / FOLDER)
    before = contents(tmp_path)
    tiny(OGBN(tmp_path)).load()
    assert contents(tmp_path) == before
    assert capfd.readouterr().out == ""


class Evil:
    def __reduce__(self):
        return Path.touch, (Path(self.mark),)


def test_pickles_beside_the_raw_files_are_never_loaded(tmp_path):
    write_arxiv(tmp_path / FOLDER)
    evil = Evil()
    evil.mark = str(tmp_path / "executed")
    for name in (
        "processed/geometric_data_processed.pt",
        "processed/pre_transform.pt",
        "split/time/split_dict.pt",
    ):
        path = tmp_path / FOLDER / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(evil))
    assert tiny(OGBN(tmp_path)).load().graphs[0].num_nodes == 30
    assert not (tmp_path / "executed").exists()


def test_weights_only_stays_the_default_and_no_class_stays_allowed(tmp_path):
    write_arxiv(tmp_path / FOLDER)
    before = set(torch.serialization.get_safe_globals())
    tiny(OGBN(tmp_path)).load()
    assert set(torch.serialization.get_safe_globals()) == before


def test_missing_arxiv_without_network_names_files_and_leaves_nothing(tmp_path):
    with pytest.raises(MissingDataError, match=r"OGB ogbn-arxiv was not found.*edge\.csv\.gz.*quickstart"):
        OGBN(tmp_path / "data").load()
    assert contents(tmp_path) == set()


def test_download_is_unpacked_into_place(tmp_path, monkeypatch):
    write_arxiv(tmp_path / "server/arxiv")
    archive = shutil.make_archive(str(tmp_path / "arxiv"), "zip", tmp_path / "server", "arxiv")

    def serve(url, folder):
        assert url.endswith("arxiv.zip")
        return shutil.copy(archive, folder)

    monkeypatch.setattr("ogb.utils.url.download_url", serve)
    dataset = tiny(OGBN(tmp_path / "data"))
    assert dataset.load().graphs[0].num_nodes == 30
    assert all(path.is_file() for path in dataset.files())
    assert {path.name for path in dataset.root.iterdir()} == {"ogbn_arxiv"}


def test_truncated_arxiv_file_is_reported(tmp_path):
    write_arxiv(tmp_path / FOLDER)
    path = tmp_path / FOLDER / "raw/node-feat.csv.gz"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"ogbn-arxiv cannot be read .*: node-feat\.csv\.gz is truncated or corrupt"):
        OGBN(tmp_path).load()


def test_unknown_name_is_answered_with_a_suggestion(tmp_path):
    with pytest.raises(RecipeError, match="unknown OGB name 'ogbn-arxv'; did you mean 'ogbn-arxiv'"):
        OGBN(tmp_path, name="ogbn-arxv")


def test_missing_package_is_answered_with_the_install_command(tmp_path, monkeypatch):
    write_arxiv(tmp_path / FOLDER)
    monkeypatch.setitem(sys.modules, "ogb.nodeproppred.dataset_pyg", None)
    with pytest.raises(RunError, match=r'pip install "sslcollapse\[ogb\]"'):
        OGBN(tmp_path).load()


def test_importing_ogb_starts_no_version_check(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ogb", "outdated")]:
        monkeypatch.delitem(sys.modules, name)
    import_ogb()
    assert sys.modules["ogb.version"].check_outdated is None
    assert "outdated" not in sys.modules


def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused_before_ogb_reads_it(tmp_path):
    write_arxiv(tmp_path / FOLDER)
    with gzip.open(tmp_path / FOLDER / "raw/node_year.csv.gz", "wb", compresslevel=1) as file:
        for _ in range(70):
            file.write(b"2010\n" * 2**18)
    with pytest.raises(DataError, match=r"node_year\.csv\.gz: .* that unpack to"):
        tiny(OGBN(tmp_path)).load()


def test_a_cache_of_ogb_beside_the_raw_files_is_not_read(tmp_path):
    write_arxiv(tmp_path / FOLDER)
    for name in ("processed/geometric_data_processed.pt", "split/time/split_dict.pt"):
        path = tmp_path / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"garbage, or code")
    assert tiny(OGBN(tmp_path)).load().num_classes == 40
