"""Smoothness over the edges of a graph and overlap of consecutive weights, against values found by hand."""

import json
import math

import pytest
import torch
from tiny import random_graph, tiny_recipe, tiny_view
from torch import nn

from sslcollapse.core.types import Neighbours
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.view import augment
from sslcollapse.encoders.gcn import GCN
from sslcollapse.layers.map import layer_map
from sslcollapse.nn.heads import Head
from sslcollapse.rank import depth as depth_module
from sslcollapse.rank.depth import SMOOTHNESS, Smoothness, consecutive, overlaps, smoothness, subspace_overlap
from sslcollapse.rank.measure import measure
from sslcollapse.recipe import identify
from sslcollapse.training.trainer import train

SMALL = dict(type="csbm", nodes=60, features=4, train_per_class=5, validation_per_class=5)
PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])  # 0 - 1 - 2


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(x, edges):
    """The four measures, pair by pair."""
    pairs = [(i, j) for i in range(len(x)) for j in range(len(x))]
    apart = {(i, j): float((x[i] - x[j]).square().sum()) for i, j in pairs}
    near = [tuple(edge) for edge in edges.t().tolist()]
    cosine = {
        (i, j): 1 - float(x[i] @ x[j] / (x[i].norm() * x[j].norm())) for i, j in pairs if x[i].any() and x[j].any()
    }
    far = [value for (i, j), value in cosine.items() if i != j]
    along = [cosine[edge] for edge in near if edge in cosine]
    energy = sum(apart[edge] for edge in near)
    return [
        energy / len(x),
        energy / len(near) / (sum(apart.values()) / (len(pairs) - len(x))),
        sum(far) / len(far),
        sum(along) / len(along),
    ]


def test_the_energy_of_a_path_is_that_found_by_hand():
    found = smoothness(torch.tensor([[0.0], [1.0], [3.0]]), PATH)
    # Each edge counts in both directions: (1 + 1 + 4 + 4) / 3. All pairs: 2 (1 + 9 + 4) / 6.
    assert found["dirichlet_energy"] == pytest.approx(10 / 3)
    assert found["dirichlet_ratio"] == pytest.approx((10 / 4) / (28 / 6))


def test_the_distances_of_a_path_are_those_found_by_hand():
    root = math.sqrt(0.5)
    found = smoothness(torch.tensor([[2.0, 0.0], [3 * root, 3 * root], [0.0, 5.0]]), PATH)
    assert found["mad_neighbours"] == pytest.approx(1 - root)
    assert found["mad"] == pytest.approx((2 * (1 - root) + 1) / 3)


@pytest.mark.parametrize("chunk", [1, 2**22])
def test_all_measures_are_those_of_their_definitions_pair_by_pair(chunk, monkeypatch):
    monkeypatch.setattr(depth_module, "_CHUNK", chunk)
    x = drawn(0, 7, 5) + 1
    x[3] = 0  # has no cosine
    edges = tiny_view().structure.edge_index
    edges = edges[:, edges[0] != edges[1]]
    assert list(smoothness(x, edges).values()) == pytest.approx(by_definition(x, edges), rel=1e-10)


def test_constant_features_have_neither_energy_nor_distance():
    assert smoothness(torch.full((7, 3), 0.1), PATH) == pytest.approx(dict.fromkeys(SMOOTHNESS, 0), abs=1e-12)
    assert smoothness(torch.zeros(7, 3), PATH) == dict.fromkeys(SMOOTHNESS, 0)
    assert smoothness(drawn(0, 3, 2), torch.zeros(2, 0, dtype=torch.long))["dirichlet_ratio"] == 0


def test_the_ratio_is_one_where_every_pair_has_an_edge():
    edges = (~torch.eye(5, dtype=torch.bool)).nonzero().T
    assert smoothness(drawn(0, 5, 3), edges)["dirichlet_ratio"] == pytest.approx(1, abs=1e-12)


def test_the_ratio_is_about_one_for_features_that_know_nothing_of_the_graph_and_free_of_scale_and_shift():
    view, x = random_graph(nodes=600), drawn(0, 600, 32)
    edges = view.edge_index
    ratio = smoothness(x, edges)["dirichlet_ratio"]
    assert ratio == pytest.approx(1, abs=0.05)
    assert smoothness(1e-3 * x + 1e6, edges)["dirichlet_ratio"] == pytest.approx(ratio, rel=1e-6)


def test_propagation_smooths():
    view, x = random_graph(nodes=200), drawn(0, 200, 8)
    edges = view.edge_index
    mean = torch.eye(200, dtype=torch.float64)
    mean[edges[1], edges[0]] = 1
    mean /= mean.sum(1, keepdim=True)
    courses = [smoothness(torch.matrix_power(mean, steps) @ x, edges) for steps in range(4)]
    for name in SMOOTHNESS:
        values = [course[name] for course in courses]
        assert values == sorted(values, reverse=True), name


def test_two_graphs_count_as_their_disjoint_union():
    first, second = drawn(0, 3, 4), drawn(1, 3, 4)
    sums = Smoothness(4, torch.device("cpu"))
    sums.add(first, PATH)
    sums.add(second, PATH)
    together = smoothness(torch.cat([first, second]), torch.cat([PATH, PATH + 3], dim=1))
    assert sums.values().tolist() == pytest.approx(list(together.values()))


def test_a_graph_domain_gives_the_edges_that_are_left_without_loops():
    domain = GraphDomain(None, dataset=SMALL)
    whole = tiny_view()
    found = domain.neighbours(whole)
    assert isinstance(found, Neighbours)
    assert (found.nodes, found.edges.shape) == (7, (2, 9))  # one of ten is a loop
    some = augment(whole, 0.5, 0.0, torch.Generator().manual_seed(0))
    left = domain.neighbours(some).edges
    assert 0 < left.shape[1] < 9
    assert (left[0] != left[1]).all()


def orthogonal(seed, d):
    return torch.linalg.qr(drawn(seed, d, d))[0]


def test_weights_that_are_aligned_by_construction_overlap_by_one_and_turned_ones_by_none():
    u, v, w = (orthogonal(seed, 12) for seed in range(3))
    sizes = torch.arange(12, 0, -1).double()
    earlier, later = u * sizes @ v.t(), w * sizes @ u.t()
    assert subspace_overlap(earlier, later, k=3) == pytest.approx(1)
    assert subspace_overlap(earlier, w * sizes @ u.flip(1).t(), k=3) == pytest.approx(0, abs=1e-12)
    # Two of three directions in common.
    mixed = u[:, [0, 1, 5, 2, 3, 4, *range(6, 12)]]
    assert subspace_overlap(earlier, w * sizes @ mixed.t(), k=3) == pytest.approx(2 / 3)


def test_random_weights_overlap_by_k_over_d_on_average():
    found = [subspace_overlap(drawn(seed, 40, 30), drawn(1000 + seed, 20, 40), k=8) for seed in range(60)]
    assert sum(found) / len(found) == pytest.approx(8 / 40, abs=0.02)


def test_complex_weights_overlap_as_real_ones_do():
    u, _ = torch.linalg.qr(torch.complex(drawn(0, 9, 9), drawn(1, 9, 9)))
    sizes = torch.arange(9, 0, -1).to(u.dtype)
    assert subspace_overlap(u * sizes, sizes[:, None] * u.mH, k=4) == pytest.approx(1)


def test_weights_that_do_not_follow_each_other_are_refused():
    with pytest.raises(ValueError, match=r"\[d, in\] and \[out, d\], got \(4, 3\) and \(5, 3\)"):
        subspace_overlap(drawn(0, 4, 3), drawn(0, 5, 3))
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        subspace_overlap(drawn(0, 4, 3), drawn(0, 5, 4), k=0)


def test_a_layer_is_compared_with_the_one_before_it_on_the_main_path():
    assert consecutive(layer_map(GCN(12, hidden=[8, 6, 6]))) == {"convs.1": "convs.0", "convs.2": "convs.1"}
    between = nn.Sequential(nn.Linear(3, 4), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 4))
    assert consecutive(layer_map(between)) == {"3": "2"}  # 4 outputs are not what a layer of 8 inputs reads

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.shortcut = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    found = consecutive(layer_map(nn.Sequential(Block(), nn.Linear(6, 6))))
    assert found == {"0.second": "0.first", "1": "0.second"}


def test_the_input_directions_of_a_convolution_are_those_of_its_channels():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3), nn.Conv2d(5, 4, 3, groups=1))
    u = orthogonal(0, 6).float()
    sizes = torch.arange(6, 0, -1).float()
    with torch.no_grad():
        network[0].weight.copy_((u * sizes @ torch.linalg.qr(torch.randn(27, 6))[0].t()).view(6, 3, 3, 3))
        taps = torch.linalg.qr(torch.randn(45, 6))[0]
        network[1].weight.copy_((taps * sizes @ u.t()).view(5, 3, 3, 6).permute(0, 3, 1, 2))
    found = overlaps(layer_map(network), 2)
    assert list(found) == ["1", "2"]
    value, chance = found["1"]
    assert float(value) == pytest.approx(1, abs=1e-5)
    assert chance == 2 / 6


def test_a_measurement_has_them_beside_the_ranks_where_they_are_asked_for():
    torch.manual_seed(0)
    encoder, predictor = GCN(12, hidden=[8, 6]), Head(6, 7, 6)
    domain, view = GraphDomain(None, dataset=SMALL), random_graph()
    plain = measure(encoder, [view], predictor=predictor)
    asked = dict(neighbours=domain.neighbours, overlap=4)
    found = measure(encoder, [view], predictor=predictor, **asked)
    layers = found.ranks["layers"]
    h = encoder.eval()(view).detach()
    for name, value in smoothness(h, domain.neighbours(view).edges).items():
        assert found.ranks["representation"][name] == pytest.approx(value)
        assert found.metrics()[f"rank/representation/{name}"] == pytest.approx(value)
        assert name in layers["convs.0"]["output"]
        assert name in layers["predictor.layers.0"]["output"]
    expected = subspace_overlap(*(encoder.convs[k].weight.detach() for k in range(2)), k=4)
    assert layers["convs.1"]["weight"]["overlap"] == pytest.approx(expected)
    assert layers["convs.1"]["weight"]["overlap_random"] == 4 / 8
    assert layers["predictor.layers.1"]["weight"]["overlap_random"] == 4 / 7
    assert "overlap" not in layers["convs.0"]["weight"]
    assert "overlap" not in layers["predictor.layers.0"]["weight"]  # the first of its network
    for name, parts in plain.ranks["layers"].items():  # nothing else has changed
        for part, values in parts.items():
            assert values == {key: layers[name][part][key] for key in values}
    some = measure(encoder, [view], rows=torch.arange(0, 60, 7), **asked)  # energies are of the whole graph
    assert some.ranks["representation"]["mad"] == pytest.approx(found.ranks["representation"]["mad"])


def test_outputs_without_a_row_a_node_and_views_without_edges_have_no_smoothness():
    network = nn.Sequential(nn.Linear(5, 4), nn.Unflatten(0, (4, 3)), nn.Linear(4, 4), nn.Flatten(0, 1))
    edges = torch.tensor([[0, 1], [1, 0]])
    found = measure(network, [drawn(0, 12, 5).float()], neighbours=lambda view: Neighbours(edges, len(view)))
    assert "mad" in found.ranks["layers"]["0"]["output"]
    assert "mad" not in found.ranks["layers"]["2"]["output"]
    none = measure(network, [drawn(0, 12, 5).float()], neighbours=lambda view: None)
    assert "mad" not in none.ranks["representation"]


def test_a_run_records_them_over_time_if_its_monitor_says_so_under_the_hash_that_it_has_without(tmp_path):
    quick = dict(optim=dict(type="adamw", lr=1e-3), train=dict(steps=2), evaluate=dict())
    plain, asked = (
        tiny_recipe("deep", **quick, monitor=dict(every=1, **more)) for more in ({}, dict(smoothness=True, overlap=4))
    )
    assert identify(plain)[1] == identify(asked)[1]
    path = train(asked, out=tmp_path)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for name in ("layers/convs.0/output/dirichlet_ratio", "representation/mad", "layers/convs.1/weight/overlap"):
        assert [line["step"] for line in lines if f"rank/{name}" in line] == [0, 1, 2], name
    result = json.loads((path / "result.json").read_text())
    assert 0 <= result["rank"]["layers"]["convs.1"]["weight"]["overlap"] <= 1
    path = train(plain, out=tmp_path / "plain")
    assert "overlap" not in (path / "metrics.jsonl").read_text()
    assert "mad" not in (path / "result.json").read_text()
