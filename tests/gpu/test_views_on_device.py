"""Views that are made on a device: those of the CPU, or from draws with the same odds."""

import gc
import warnings
from itertools import islice

import pytest
import torch
from on_device import CPU, DEVICE, assert_near, half, on_gpu, there
from tiny import random_graph, tiny_view

from sslcollapse.core.memory import onto_together
from sslcollapse.core.seeding import generator
from sslcollapse.core.types import Context
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.view import GraphView, augment
from sslcollapse.domains.vision.domain import VisionDomain
from sslcollapse.domains.vision.torchvision import TorchvisionViews
from sslcollapse.domains.vision.views import PRESETS, ImageViews
from sslcollapse.encoders.gcn import gcn_matrix
from sslcollapse.encoders.resnet import NarrowResNet
from sslcollapse.encoders.sage import mean_matrix
from sslcollapse.objectives.simclr import SimCLR
from sslcollapse.training.module import SSLModule

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


def batches(feed, device, workers=2):
    dataset, views = dict(type="fake", train=96, test=16, size=16), ImageViews(preset="byol", blur=0.3)
    domain = VisionDomain(None, dataset=dataset, views=views, batch_size=32, feed=feed, workers=workers, grow=[[2, 12]])
    return domain.batches(0, Context(seed=3, device=device))


@pytest.mark.parametrize("feed", ["resident", "streamed"])
def test_batches_of_images_are_those_of_the_cpu_step_by_step(feed):
    for found, wanted in zip(islice(batches(feed, DEVICE), 5), batches("resident", CPU), strict=False):
        assert found.index.device.type == DEVICE.type
        assert torch.equal(found.index.to(CPU), wanted.index)
        assert torch.equal(found.labels.to(CPU), wanted.labels)
        for view, other in zip(found.views, wanted.views, strict=True):
            assert_near({"view": view}, {"view": other}, 1e-3)
            assert float((view.to(CPU) - other).abs().median()) < 1e-5


def test_a_block_that_is_written_again_at_once_does_not_change_what_was_sent_before():
    sent = [onto_together(DEVICE, [torch.full((1 << 20,), k), torch.tensor([k])]) for k in range(50)]
    for k, (many, one) in enumerate(sent):
        assert int(many.min()) == int(many.max()) == int(one) == k


def held() -> int:
    """Bytes of all tensors on the device."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()
    with warnings.catch_warnings():  # of what else torch has there
        warnings.simplefilter("ignore")
        kept = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
    return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in kept}.values())


@pytest.mark.parametrize("feed", ["resident", "streamed"])
def test_steps_on_images_leave_nothing_behind_on_the_device(feed):
    encoder = NarrowResNet((3, 16, 16), width=8)
    module = SSLModule(encoder, SimCLR(projector=[16, 8]), total_steps=40).to(DEVICE)
    module.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    views = batches(feed, DEVICE, workers=0)  # whose batches would wait on the host, on a CPU the device
    after = []
    for step, batch in zip(range(24), views, strict=False):
        with half():
            loss = module(batch, step)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        del batch, loss
        if step % 8 == 7:
            after.append(held())
    assert after[0] == after[1] == after[2]
    if DEVICE.type == "cuda":  # of blocks that are freed and taken again
        assert torch.cuda.memory_reserved() <= 4 * torch.cuda.max_memory_allocated() + (32 << 20)


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("on_device", [False, True])
def test_neighbours_drawn_on_a_device_are_those_drawn_on_the_host(tmp_path, ahead, on_device):
    def batches(device, **arguments):
        batching = dict(type="neighbours", batch_size=12, fanout=[3, 2], **arguments)
        dataset = dict(type="csbm", nodes=120, features=12, train_per_class=5, validation_per_class=5)
        domain = GraphDomain(tmp_path, dataset=dataset, batching=batching)
        return islice(domain.batches(2, Context(seed=1, device=device)), 3)

    for here, away in zip(batches(CPU), batches(DEVICE, ahead=ahead, on_device=on_device), strict=True):
        for view, same in zip(here.views, away.views, strict=True):
            assert same.x.device.type == same.structure.nodes.device.type == DEVICE.type
            for name in ("nodes", "edge_index", "weight", "unseen"):
                assert torch.equal(getattr(same.structure, name).cpu(), getattr(view.structure, name))
            assert torch.equal(same.keep.cpu(), view.keep)
            assert torch.equal(same.x.cpu(), view.x)
