"""The embedded digits graph and the contextual stochastic block model."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.registry import GRAPH_DATASETS
from sslcollapse.domains.graph.synthetic import CSBM, DigitsGraph, draw_distinct, triangle

NOWHERE = Path("/nonexistent")


@pytest.fixture(scope="module")
def digits():
    return DigitsGraph(NOWHERE).load()


def adjacency(graph):
    return torch.zeros(graph.num_nodes, graph.num_nodes).index_put_(
        tuple(graph.edge_index), torch.ones(graph.edge_index.shape[1]), accumulate=True
    )


def check_split(dataset, train, validation):
    """Each class has its number of nodes in each part, and the parts divide all nodes."""
    (split,) = dataset.splits["public"]
    labels = dataset.graphs[0].y.numpy()
    assert np.bincount(labels[split.train]).tolist() == [train] * dataset.num_classes
    assert np.bincount(labels[split.validation]).tolist() == [validation] * dataset.num_classes
    together = np.concatenate([split.train, split.validation, split.test])
    assert np.array_equal(np.sort(together), np.arange(len(labels)))


def test_digits_edges_are_exactly_the_symmetrised_nearest_neighbours(digits):
    graph = digits.graphs[0]
    pixels = (16 * graph.x).long()
    distances = (pixels[:, None] - pixels).square().sum(-1)  # exact, and unique once the index breaks ties
    distances = (distances * 1797 + torch.arange(1797)).fill_diagonal_(torch.iinfo(torch.long).max)
    near = distances <= distances.kthvalue(10, dim=1).values[:, None]
    joined = adjacency(graph)
    assert joined.max() == 1  # no duplicates
    assert joined.diagonal().sum() == 0
    assert torch.equal(joined, joined.T)
    assert torch.equal(joined.bool(), near | near.T)


def test_digits_features_are_pixels_in_zero_to_one_with_scikit_learn_labels(digits):
    images = load_digits()
    assert torch.equal(digits.graphs[0].x, torch.from_numpy(images.data / 16).float())
    assert torch.equal(digits.graphs[0].y, torch.from_numpy(images.target).long())
    assert digits.num_features == DigitsGraph.num_features == 64


def test_digits_split_is_stratified_and_the_same_every_time(digits):
    check_split(digits, 20, 30)
    again = DigitsGraph(NOWHERE).load()
    assert np.array_equal(again.splits["public"][0].train, digits.splits["public"][0].train)
    assert torch.equal(again.graphs[0].edge_index, digits.graphs[0].edge_index)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be between 1 and 1796, got 0"),
        ({"train_per_class": 0}, "train_per_class must be >= 1, got 0"),
        (
            {"train_per_class": 100, "validation_per_class": 90},
            "100 and validation_per_class 90 leave no test",
        ),
    ],
)
def test_digits_arguments_are_checked_with_the_value_quoted(arguments, message):
    with pytest.raises(RecipeError, match=message):
        DigitsGraph(NOWHERE, **arguments)


@pytest.mark.parametrize(("classes", "degree", "homophily"), [(2, 8.0, 0.9), (5, 30.0, 0.2), (4, 100.0, 0.5)])
def test_csbm_has_the_asked_degree_and_homophily(classes, degree, homophily):
    graph = CSBM(NOWHERE, nodes=3000, classes=classes, degree=degree, homophily=homophily).load().graphs[0]
    source, target = graph.edge_index
    pairs = graph.edge_index.shape[1] / 2
    within = (graph.y[source] == graph.y[target]).float().mean().item()
    assert abs(2 * pairs / 3000 - degree) < 5 * 2 * np.sqrt(pairs) / 3000  # five standard deviations
    assert abs(within - homophily) < 5 * np.sqrt(homophily * (1 - homophily) / pairs)


def test_csbm_graph_is_simple_and_undirected():
    joined = adjacency(CSBM(NOWHERE, nodes=400, classes=3, degree=100.0, homophily=0.6).load().graphs[0])
    assert joined.max() == 1
    assert joined.diagonal().sum() == 0
    assert torch.equal(joined, joined.T)


def test_csbm_signal_is_the_length_of_class_means_over_that_of_the_noise():
    graph = CSBM(NOWHERE, nodes=4000, classes=2, features=500, signal=3.0).load().graphs[0]
    means = torch.stack([graph.x[graph.y == c].mean(0) for c in range(2)])
    noise = graph.x - means[graph.y]
    assert means.norm(dim=1).mean().item() == pytest.approx(3.0, rel=0.1)
    assert noise.norm(dim=1).mean().item() == pytest.approx(1.0, rel=0.02)


def test_csbm_is_fixed_by_its_seed_and_changes_with_it():
    first, same, other = (CSBM(NOWHERE, seed=seed).load() for seed in (1, 1, 2))
    assert torch.equal(first.graphs[0].x, same.graphs[0].x)
    assert torch.equal(first.graphs[0].edge_index, same.graphs[0].edge_index)
    assert np.array_equal(first.splits["public"][0].test, same.splits["public"][0].test)
    assert not torch.equal(first.graphs[0].x, other.graphs[0].x)


def test_csbm_split_is_stratified():
    check_split(CSBM(NOWHERE, nodes=503, train_per_class=5, validation_per_class=7).load(), 5, 7)


def test_csbm_of_arxiv_size_is_drawn_in_seconds():
    start = time.perf_counter()
    dataset = CSBM(NOWHERE, nodes=169_343, classes=40, degree=13.7, features=8).load()
    assert time.perf_counter() - start < 60
    assert dataset.graphs[0].edge_index.shape[1] / 169_343 == pytest.approx(13.7, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "classes must be >= 2, got 1"),
        ({"features": 0}, "features must be >= 1, got 0"),
        ({"degree": 0.0}, "degree must be > 0, got 0.0"),
        ({"degree": float("nan")}, "degree must be > 0, got nan"),
        ({"homophily": 1.5}, r"homophily must be in \[0, 1\], got 1.5"),
        ({"signal": -1.0}, "signal must be >= 0 and finite, got -1.0"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"nodes": 100}, "leave no test nodes in a class of 20"),
        ({"degree": 300.0, "homophily": 1.0}, "degree 300.0 with homophily 1.0 needs more neighbours"),
    ],
)
def test_csbm_arguments_are_checked_with_the_value_quoted(arguments, message):
    with pytest.raises(RecipeError, match=message):
        CSBM(NOWHERE, **arguments)


@pytest.mark.parametrize("n", [2, 3, 50, 333])
def test_triangle_lists_every_pair_once_in_order(n):
    i, j = triangle(np.arange(n * (n - 1) // 2), n)
    wanted = np.triu_indices(n, 1)
    assert np.array_equal(i, wanted[0])
    assert np.array_equal(j, wanted[1])


def test_triangle_is_exact_at_row_ends_of_a_large_list():
    n = 2_000_000
    rows = np.array([0, 1, 999_999, n - 3, n - 2])
    starts = rows * (2 * n - rows - 1) // 2
    assert np.array_equal(triangle(starts, n)[0], rows)
    assert np.array_equal(triangle(starts[1:] - 1, n)[0], rows[1:] - 1)


@pytest.mark.parametrize("probability", [0.0, 0.01, 0.5, 1.0])
def test_drawn_numbers_are_distinct_and_as_many_as_the_probability_says(probability):
    drawn = draw_distinct(10_000, probability, np.random.default_rng(0))
    assert len(np.unique(drawn)) == len(drawn)
    assert abs(len(drawn) - 10_000 * probability) <= 5 * np.sqrt(10_000 * probability * (1 - probability))


def test_embedded_datasets_need_no_files_and_say_so():
    for name in ("digits", "csbm"):
        dataset = GRAPH_DATASETS.build({"type": name}, NOWHERE)
        assert dataset.files() == []
        assert "no files" in dataset.describe()
