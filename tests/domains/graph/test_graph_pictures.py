"""Pictures of views of a graph: which neighbourhood, what is kept and dropped of it, always the same."""

import numpy as np
import pytest
import torch
from PIL import Image

from sslcollapse.core.errors import MissingDataError
from sslcollapse.domains.graph.data import Graph, GraphDataset, csr_tensor
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.picture import (
    DROPPED,
    GAP,
    HALF,
    KEPT,
    NODES,
    SIDE,
    STRIP,
    TITLE,
    _edges,
    neighbourhood,
)
from sslcollapse.domains.graph.view import augment

PATH_EDGES = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4], [1, 0, 2, 1, 3, 2, 4, 3]])  # 0 – 1 – 2 – 3 – 4, and 5 alone
X = torch.eye(6)
Y = torch.tensor([0, 1, 0, 1, 0, 1])


def domain(tmp_path, graphs=1, **views):
    small = {"type": "csbm", "nodes": 60, "features": 9, "train_per_class": 3, "validation_per_class": 3}
    made = GraphDomain(tmp_path, dataset=small, views=views)
    if graphs > 1:
        several = tuple(Graph(X, PATH_EDGES, Y) for _ in range(graphs))
        made.use(GraphDataset("paths", several, 2, {}, tuple(range(graphs))))
    return made


def panels(path, rows, columns=5):
    """[row][column] → pixels."""
    sheet = np.asarray(Image.open(path))
    return [
        [
            sheet[TITLE + r * (SIDE + STRIP + GAP) :, GAP + c * (SIDE + GAP) :][: SIDE + STRIP, :SIDE]
            for c in range(columns)
        ]
        for r in range(rows)
    ]


def test_a_neighbourhood_has_the_nearest_nodes_their_edges_and_their_features():
    place = neighbourhood(PATH_EDGES, X, Y, 2)
    assert (place.nodes, place.rings, place.labels) == ([2, 1, 3, 0, 4], [0, 1, 1, 2, 2], [0, 1, 1, 0, 0])
    assert place.edges.tolist() == list(range(8))
    assert torch.equal(place.features, X[place.nodes][:, place.columns])
    assert neighbourhood(PATH_EDGES, X, torch.zeros(6, 3), 5).labels == [-1], "of several labels there is no one colour"


def test_a_neighbourhood_is_cut_where_a_node_has_very_many_neighbours_and_reads_sparse_features():
    star = torch.stack([torch.zeros(200).long(), torch.arange(1, 201)])
    x = torch.rand(201, 80) * (torch.rand(201, 80) < 0.1)
    place = neighbourhood(star, x, torch.zeros(201).long(), 0)
    assert place.nodes == list(range(NODES))
    assert len(place.edges) == NODES - 1
    sparse = csr_tensor((x != 0).sum(1), x.nonzero()[:, 1], x[x != 0], (201, 80))
    assert torch.equal(neighbourhood(star, sparse, torch.zeros(201).long(), 0).features, place.features)


def test_an_edge_is_drawn_by_how_many_of_its_directions_a_view_has_kept():
    place = neighbourhood(PATH_EDGES, X, Y, 2)
    keep = torch.tensor([True, True, True, False, False, False, False, True])
    assert _edges(place, PATH_EDGES, keep) == {(0, 1): KEPT, (1, 2): HALF, (2, 3): DROPPED, (3, 4): HALF}
    assert set(_edges(place, PATH_EDGES, None).values()) == {KEPT}


def test_a_picture_is_the_same_each_time_and_another_with_another_seed(tmp_path):
    made = domain(tmp_path)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        made.draw(tmp_path / name / "sheet.png", 2, seed)
    first, second, third = ((tmp_path / name / "sheet.png").read_bytes() for name in "abc")
    assert first == second != third


def test_views_of_strength_0_are_drawn_as_the_sample_and_others_are_not(tmp_path):
    domain(tmp_path, strength=0.0).draw(tmp_path / "same.png", 2, 0)
    for row in panels(tmp_path / "same.png", 2):
        assert all(np.array_equal(panel, row[0]) for panel in row[1:])
    domain(tmp_path, edge_drop=[0.9, 0.0], feature_mask=[0.0, 0.9]).draw(tmp_path / "other.png", 1, 0)
    ((sample, *views),) = panels(tmp_path / "other.png", 1)
    assert [np.array_equal(view[: SIDE - 4], sample[: SIDE - 4]) for view in views] == [False, False, True, True]
    assert [np.array_equal(view[SIDE + 4 :], sample[SIDE + 4 :]) for view in views] == [True, True, False, False]


def test_undirected_views_have_no_edge_of_one_direction(tmp_path):
    place = neighbourhood(PATH_EDGES, X, Y, 2)
    base = domain(tmp_path, graphs=2).union([0])
    view = augment(base, 0.5, 0.0, torch.Generator().manual_seed(0), undirected=True)
    assert set(_edges(place, PATH_EDGES, view.keep).values()) == {KEPT, DROPPED}


@pytest.mark.parametrize(("graphs", "samples", "rows"), [(2, 4, 4), (3, 2, 2), (2, 40, 10)])
def test_samples_are_spread_over_graphs_and_are_no_more_than_there_are_nodes_with_an_edge(
    graphs, samples, rows, tmp_path
):
    domain(tmp_path, graphs).draw(tmp_path / "sheet.png", samples, 0)
    height = Image.open(tmp_path / "sheet.png").height
    assert height == rows * (SIDE + STRIP + GAP) + 2 * TITLE + GAP


def test_data_that_are_not_there_are_named_and_no_picture_is_made(tmp_path, no_network):
    made = GraphDomain(tmp_path, dataset={"type": "planetoid", "name": "Cora"})
    with pytest.raises(MissingDataError, match="Cora"):
        made.draw(tmp_path / "sheet.png", 2, 0)
    assert not (tmp_path / "sheet.png").exists()
