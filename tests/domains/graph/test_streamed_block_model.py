"""The block model in pieces: the same graph whatever is drawn at a time, and the statistics of the one in memory."""

import hashlib
from itertools import chain

import numpy as np
import pytest
import torch

from sslcollapse.domains.graph import blocks
from sslcollapse.domains.graph.blocks import StreamedCSBM
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.neighbours import InEdges
from sslcollapse.domains.graph.synthetic import CSBM, triangle

SMALL = dict(nodes=1003, classes=4, features=6, degree=8.0, homophily=0.7, seed=3)


def test_classes_differ_by_one_node_at_most_and_members_are_those_of_their_label():
    made = StreamedCSBM(".", **SMALL)
    labels = made.labels(0, 1003)
    assert np.ptp(np.bincount(labels)) == 1
    assert np.array_equal(made.labels(17, 400), labels[17:400])
    for label, size in enumerate(made._sizes()):
        assert np.array_equal(np.sort(made.members(label, np.arange(size))), np.flatnonzero(labels == label))
    assert len({tuple(labels[k : k + 4]) for k in range(0, 1000, 4)}) == 4  # not the same order in every run


def test_a_packed_block_model_is_the_streamed_one_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "AT_ONCE", 100)
    domain = GraphDomain(tmp_path, dataset=dict(type="csbm", **SMALL))
    assert domain.pack(tmp_path / "graph", memory=48 * 500, progress=lambda text: None)
    assert domain.loaded() is None  # it was not made in memory
    stored = GraphDomain(tmp_path, dataset=dict(type="stored", path="graph")).dataset
    monkeypatch.setattr(blocks, "AT_ONCE", 10**6)
    whole = GraphDomain(tmp_path, dataset=dict(type="csbm_streamed", **SMALL)).dataset
    one, other = stored.graphs[0], whole.graphs[0]
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.y, other.y)
    found, expected = (InEdges.of(graph.view().structure) for graph in (one, other))
    assert torch.equal(found.pointers, expected.pointers)
    assert torch.equal(found.sources.long(), expected.sources.long())
    for part in ("train", "validation", "test"):
        assert np.array_equal(*(getattr(data.splits["public"][0], part) for data in (stored, whole)))
    assert stored.name == "CSBM in pieces"


def test_pieces_from_a_row_or_a_number_on_are_those_that_follow(monkeypatch):
    monkeypatch.setattr(blocks, "ROWS", 100)
    monkeypatch.setattr(blocks, "PAIRS", 200)
    stream = StreamedCSBM(".", **SMALL).stream()
    x = np.concatenate(list(stream.features(0)))
    assert x.shape == (1003, 6)
    assert np.array_equal(np.concatenate(list(stream.features(250))), x[250:])
    pieces = list(stream.edges(0))
    assert len(pieces) > 15
    for one, other in zip(stream.edges(11), pieces[11:], strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("pairs", [500, 1 << 19])
def test_degree_homophily_signal_and_splits_are_those_that_were_asked_for(pairs, monkeypatch):
    monkeypatch.setattr(blocks, "PAIRS", pairs)
    data = StreamedCSBM(".", nodes=4000, classes=4, features=50, degree=12.0, homophily=0.7, signal=2.0).load()
    graph, labels = data.graphs[0], data.graphs[0].y
    source, target = graph.edge_index
    assert graph.num_edges / 4000 == pytest.approx(12.0, rel=0.03)
    assert (labels[source] == labels[target]).double().mean().item() == pytest.approx(0.7, abs=0.02)
    assert (source != target).all()
    keys = source * 4000 + target
    assert len(keys.unique()) == len(keys)
    assert torch.equal((target * 4000 + source).sort().values, keys)
    degrees = torch.bincount(target, minlength=4000).double()
    assert degrees.var().item() == pytest.approx(12.0, rel=0.1)  # as of a Poisson distribution
    means = torch.stack([graph.x[labels == c].mean(dim=0) for c in range(4)])
    assert means.norm(dim=1).mean().item() == pytest.approx(2.0, rel=0.2)
    assert (graph.x - means[labels]).norm(dim=1).square().mean().item() == pytest.approx(1.0, rel=0.05)
    split = data.splits["public"][0]
    assert torch.bincount(labels[split.train]).tolist() == [20] * 4
    assert torch.bincount(labels[split.validation]).tolist() == [30] * 4
    assert sorted(chain(split.train, split.validation, split.test)) == list(range(4000))


def test_pairs_of_a_class_of_any_size_are_found_by_their_number():
    n = 3 * 10**8
    i = np.array([0, 1, 12345678, 149999999, n - 3, n - 2])
    j = np.array([n - 1, 2, 12345679, n - 1, n - 1, n - 1])
    number = i * (2 * n - i - 1) // 2 + j - i - 1
    assert [each.tolist() for each in triangle(number, n)] == [i.tolist(), j.tolist()]


def test_the_block_model_in_memory_draws_what_it_always_did():
    edges = CSBM(".", **SMALL).load().graphs[0].edge_index
    digest = hashlib.sha256(edges.numpy().tobytes()).hexdigest()
    assert digest == "bbeb439322e49197e9245cd8babb421859612b1c22e8ac748fbb0715a25a5f39"
