"""Views that are made on a device: those of the CPU, or from draws with the same odds."""

import pytest
import torch
from on_device import CPU, DEVICE, assert_near, on_gpu, there
from tiny import random_graph, tiny_view

from sslcollapse.core.seeding import generator
from sslcollapse.domains.graph.domain import augment
from sslcollapse.domains.graph.view import GraphView
from sslcollapse.domains.vision.torchvision import TorchvisionViews
from sslcollapse.domains.vision.views import PRESETS, ImageViews
from sslcollapse.encoders.gcn import gcn_matrix
from sslcollapse.encoders.sage import mean_matrix

pytestmark = on_gpu

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]


def pixels(samples=12, size=24):
    return torch.randint(0, 256, (samples, 3, size, size), generator=generator(CPU, "pixels"), dtype=torch.uint8)


@pytest.mark.parametrize("matrix", [gcn_matrix, mean_matrix])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_graph_view_with_the_same_edges_and_columns_is_the_same_matrix_on_a_device(sparse, matrix):
    base = tiny_view(sparse=sparse, dtype=torch.float32)
    keep = torch.tensor([True, False, True, True, True, True, False, True, True, True])
    mask = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])
    here = GraphView(base.structure, base.features.masked(mask), keep)
    moved = base.to(DEVICE)
    away = GraphView(moved.structure, moved.features.masked(mask.to(DEVICE)), keep.to(DEVICE))
    assert away.edge_index.device.type == DEVICE.type
    assert torch.equal(away.edge_index.cpu(), here.edge_index)
    weight, dense = torch.randn(4, 5, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    results = []
    for view, place in ((here, CPU), (away, DEVICE)):
        w, x = (value.detach().to(place).requires_grad_() for value in (weight, dense))
        out = {"features": view.features.linear(w), "product": view.adjacency(matrix) @ x}
        sum((value * value).sum() for value in out.values()).backward()
        results.append({**out, "of weight": w.grad, "of rows": x.grad, "x": view.x})
    assert_near(results[1], results[0])


@pytest.mark.parametrize("undirected", [False, True])
def test_drawn_graph_views_depend_on_their_key_alone_and_keep_their_odds(undirected):
    base = random_graph(nodes=400, degree=10, features=200).to(DEVICE)

    def drawn(step):
        rng = generator(DEVICE, "view", 0, step, 0, 0)
        return augment(base, 0.3, 0.2, rng, undirected=undirected)

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert torch.equal(first.edge_index, again.edge_index)
    assert torch.equal(first.features.mask, again.features.mask)
    assert not torch.equal(first.edge_index, other.edge_index)
    edges = base.structure.edge_index.shape[1]
    assert abs(first.edge_index.shape[1] / edges - 0.7) < 0.06  # five standard deviations of 2,000 draws
    assert abs(float(first.features.mask.mean()) - 0.8) < 0.15


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_preset_makes_the_views_of_the_cpu(preset):
    for size in (24, 64):
        for k, make in enumerate(ImageViews(preset=preset).augmentations(size, 3, MEAN, STD)):
            wanted = make(pixels(size=size), generator(CPU, "views", k))
            found = make(pixels(size=size).to(DEVICE), generator(CPU, "views", k))
            assert found.device.type == DEVICE.type
            assert_near({"view": found}, {"view": wanted}, 1e-3)  # rounding before a threshold, as of solarise
            assert float((found.to(CPU) - wanted).abs().median()) < 1e-5


@pytest.mark.parametrize(
    "pipeline",
    [
        [{"type": "Resize", "size": [16, 16]}],
        [{"type": "CenterCrop", "size": 16}, {"type": "RandomHorizontalFlip", "p": 1.0}],
    ],
)
def test_torchvision_transforms_without_draws_make_the_views_of_the_cpu(pipeline):
    (make,) = TorchvisionViews(pipeline=pipeline, count=1).augmentations(16, 3, MEAN, STD)
    wanted = make(pixels(), generator(CPU, "views"))
    found = make(pixels().to(DEVICE), generator(CPU, "views"))
    assert found.device.type == DEVICE.type
    assert float((found.to(CPU) - wanted).abs().max()) <= 1.01 / (255 * min(STD))  # one grey value of 255


def test_drawn_torchvision_views_depend_on_their_key_alone_and_leave_the_streams_of_the_device():
    pipeline = [{"type": "RandomResizedCrop", "size": 16}, {"type": "ColorJitter", "brightness": 0.5}]
    (make,) = TorchvisionViews(pipeline=pipeline, count=1).augmentations(16, 3, MEAN, STD)
    torch.manual_seed(0)
    wanted = torch.rand(3, device=DEVICE)
    torch.manual_seed(0)
    images = there(pixels())
    first, again = (make(images, generator(CPU, "views", 1)) for _ in range(2))
    assert torch.equal(torch.rand(3, device=DEVICE), wanted)
    assert torch.equal(first, again)
    assert not torch.equal(first, make(images, generator(CPU, "views", 2)))
