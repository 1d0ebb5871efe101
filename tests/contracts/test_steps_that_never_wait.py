"""A training step of every component on the meta device, which has shapes and no values.

What would make the host wait for an accelerator (``.item()``, ``nonzero``, a boolean index, a copy to the host) fails
there, and so does what mixes devices. Two things are supplied: what torch lacks for meta, the product of a sparse and a
dense matrix and AdamW's update with a rate in a tensor, as kernels of shapes; and a mode in which tensors do not admit
that they are meta, since what measures values refuses those with a message of its own.
"""

import functools
import sys
from pathlib import Path

import pytest
import torch
from test_combinations import FOR_KIND, PLAIN_ENCODER, READS, module_of
from test_registered_components import SHAPES, build
from tiny import random_graph, tiny_view
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sslcollapse.core.capture import HostNumbers
from sslcollapse.core.errors import RunError
from sslcollapse.core.registry import CONSTRAINTS, DOMAINS, ENCODERS, OBJECTIVES, OPTIMIZERS, REGULARIZERS
from sslcollapse.core.types import Batch, Context, Point
from sslcollapse.domains.graph.node_views import NodeMask
from sslcollapse.domains.graph.view import GraphStructure, GraphView, augment
from sslcollapse.domains.samples import SampleDomain, Samples
from sslcollapse.domains.vision.domain import VisionDomain
from sslcollapse.domains.vision.views import ImageViews
from sslcollapse.encoders.gcn import gcn_matrix
from sslcollapse.encoders.sage import mean_matrix
from sslcollapse.optim.base import OptimizerSpec, stepped
from sslcollapse.probes.linear import OnlineProbe
from sslcollapse.rank import batch as rank_batch
from sslcollapse.rank import gradients as rank_gradients
from sslcollapse.rank.gradients import penalty_gradients
from sslcollapse.rank.measure import Observation, measure
from sslcollapse.rank.monitor import CollapseMonitor
from sslcollapse.training.module import SSLModule
from sslcollapse.training.static import StaticStep

META = torch.device("meta")


class Accelerator(TorchFunctionMode):
    """Tensors on meta do not say so, and pass for those of an accelerator."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function == torch.Tensor.is_meta.__get__:
            return False
        return function(*args, **(kwargs or {}))


class NoWaitingCopies(TorchDispatchMode):
    """Refuses copies from the host that wait until the device has done what it was given before."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            there = kwargs.get("device")
            assert there is None or there.type == "cpu" or kwargs.get("non_blocking"), "a copy that waits"
        return function(*args, **kwargs)


class Copies(TorchDispatchMode):
    """Writes down the bytes of each copy from the host to the device."""

    def __init__(self):
        super().__init__()
        self.bytes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        here = [value for value in inputs if value.device.type == "cpu" and value.dim()]  # a number is no copy
        if here and any(
            value.device == META for value in [*inputs, *tree_leaves(out)] if isinstance(value, torch.Tensor)
        ):
            self.bytes.append(sum(value.nbytes for value in here))
        return out


class NoNumbersOfTheHost(TorchFunctionMode):
    """Refuses tensors that are made on the device of numbers of the host, a copy that no dispatch mode sees."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        device = (kwargs or {}).get("device")
        assert function not in (torch.tensor, torch.as_tensor) or device is None or torch.device(device) != META
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def sparse_product():
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("addmm.out", lambda self, a, b, *, beta=1, alpha=1, out: out, "SparseCsrMeta")
        library.impl("_fused_adamw_.tensor_lr", lambda *args, **kwargs: None, "Meta")
        yield


@pytest.fixture(autouse=True)
def accelerator(monkeypatch):
    optim = sys.modules["torch.optim.optimizer"]
    fused = [*optim._get_fused_kernels_supported_devices(), "meta"]
    monkeypatch.setattr(optim, "_get_fused_kernels_supported_devices", lambda: fused)
    with Accelerator():
        yield


@functools.cache
def batch(kind: str, edges_dropped: float = 0.3) -> Batch:
    if kind == "graph":
        base, rng = random_graph().to(META), torch.Generator().manual_seed(0)
        views = [augment(base, edges_dropped, 0.2, rng) for _ in range(2)]
        return Batch(views, torch.tensor([0]), None, True)
    samples = torch.randn(2, 12, *SHAPES[kind], device=META)
    return Batch(list(samples), torch.arange(12, device=META), torch.zeros(12, dtype=torch.long, device=META), False)


def take_steps(module: SSLModule, views: Batch, optimizer: OptimizerSpec | None = None) -> None:
    """Two optimiser steps, as ``Trainer._step`` takes them."""
    module = module.to(META)
    spec = optimizer or build(OPTIMIZERS, "adamw")
    moved = spec.build(module)
    for step in range(2):
        for group in moved.param_groups:
            group["lr"] = spec.lr_at(step, 10)
        with NoWaitingCopies():
            parts = module(views, step)
            (parts["loss"] / 2).backward()
            if stepped(moved, None):
                module.constrained.after_step()
                module.update_target(step)
            moved.zero_grad()
        assert all(value.device == META and value.dim() == 0 for value in parts.values())


OF_LIGHTLY = pytest.mark.xfail(reason="theirs indexes with a mask", strict=True)


def hiding() -> Batch:
    views = [NodeMask(p=0.4, replace=0.2)(view, torch.Generator().manual_seed(0)) for view in batch("graph").views]
    return batch("graph")._replace(views=views)


@pytest.mark.parametrize(
    ("name", "kind"), [pytest.param(*pair, marks=OF_LIGHTLY if pair[0] == "lightly" else ()) for pair in FOR_KIND]
)
def test_a_step_of_an_objective_never_waits_for_the_device(name, kind):
    module = module_of(PLAIN_ENCODER[kind], name, kind)
    take_steps(module, hiding() if module.objective.needs_hidden else batch(kind))


@pytest.mark.parametrize("loss", ["BarlowTwinsLoss", "HypersphereLoss"])
def test_a_step_of_a_loss_of_lightly_does_not_wait_for_what_is_around_it(loss):
    objective = OBJECTIVES.build({"type": "lightly", "loss": loss, "projector": [9, 6]})
    take_steps(SSLModule(build(ENCODERS, "mlp", (12,)), objective, total_steps=10), batch("vector"))


@pytest.mark.parametrize(("name", "kind"), READS)
def test_a_step_of_an_encoder_never_waits_for_the_device(name, kind):
    # An encoder of PyTorch Geometric reads a list of the edges that are left, whose length the device would tell.
    take_steps(module_of(encoder=name, domain=kind), batch(kind, 0.0 if name == "pyg" else 0.3))


def test_only_edges_that_are_really_absent_are_waited_for():
    with pytest.raises(NotImplementedError, match="nonzero"):
        take_steps(module_of(encoder="pyg"), batch("graph"))


@pytest.mark.parametrize("norm", ["batch", "layer", "graph", "none"])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_step_on_several_graphs_never_waits_for_the_device(norm, sparse):
    view = tiny_view(sparse=sparse, dtype=torch.float32)
    structure = GraphStructure(view.structure.edge_index, 7, torch.tensor([0, 0, 0, 1, 1, 1, 1]))
    union, rng = GraphView(structure, view.features).to(META), torch.Generator().manual_seed(0)
    views = [augment(union, 0.3, 0.2, rng) for _ in range(2)]
    encoder = ENCODERS.build({"type": "sage", "hidden": [8, 8], "norm": norm}, (5,))
    take_steps(SSLModule(encoder, build(OBJECTIVES, "bgrl"), total_steps=10), Batch(views, torch.arange(2), None, True))


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_a_step_of_a_regularizer_never_waits_for_the_device(name, kind):
    take_steps(module_of(PLAIN_ENCODER[kind], domain=kind, regularizers=[name]), batch(kind))


WAITS = pytest.param("retraction", marks=pytest.mark.xfail(reason="an eigendecomposition is waited for", strict=True))


@pytest.mark.parametrize("name", [WAITS if name == "retraction" else name for name in CONSTRAINTS.names()])
def test_a_step_of_a_constraint_never_waits_for_the_device(name):
    constraints = {"set": build(CONSTRAINTS, name)}
    encoder, objective = build(ENCODERS, "mlp", (12,)), build(OBJECTIVES, "bgrl")
    take_steps(SSLModule(encoder, objective, total_steps=10, constraints=constraints), batch("vector"))


TIMM = ["muon", "lars", "lamb", "adamw", "sgdw"]


@pytest.mark.parametrize("name", [*(name for name in OPTIMIZERS.names() if name != "timm"), *TIMM])
def test_a_step_of_an_optimizer_never_waits_for_the_device(name):
    spec = {"type": name, "lr": 0.1} if name in OPTIMIZERS.names() else {"type": "timm", "name": name, "lr": 0.1}
    take_steps(module_of("mlp", "byol", "vector"), batch("vector"), OPTIMIZERS.build(spec))


def test_an_online_probe_never_waits_for_the_device():
    encoder, objective = build(ENCODERS, "mlp", (12,)), build(OBJECTIVES, "simclr")
    probe = OnlineProbe(encoder.out_dim, 3)
    take_steps(SSLModule(encoder, objective, total_steps=10, online_probe=probe), batch("vector"))


class OneBatch:
    """Fixed batches of which each is the same one."""

    def draw(self, step):
        pass

    def batch(self):
        return batch("graph")


LEFT_OUT = {"sigreg": "number of the step"}


CAPTURED = [name for name in OBJECTIVES.names() if name != "lightly" and not OBJECTIVES.get(name).needs_hidden]
PROGRAMS = [("bgrl", "sgd"), *((name, "adamw") for name in CAPTURED)]


@pytest.mark.parametrize(("name", "optimizer"), PROGRAMS)
def test_the_step_as_one_program_neither_waits_for_the_device_nor_takes_numbers_from_the_host(name, optimizer):
    penalties = [name for name in REGULARIZERS.names() if name not in LEFT_OUT]
    module = module_of("gcn", name, "graph", regularizers=penalties).to(META)
    spec = build(OPTIMIZERS, optimizer)
    static = StaticStep(module, module, spec.build(module), lambda step: spec.lr_at(step, 10), OneBatch(), META)
    static(0)
    with HostNumbers() as copies:
        row = static._program()
    assert copies.places == []
    assert (row.device, row.dtype) == (META, torch.float32)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_the_regularizers_that_are_left_out_of_the_program_are_those_that_read_the_number_of_the_step(name):
    module = module_of("gcn", "bgrl", "graph", regularizers=[name]).to(META)
    spec = build(OPTIMIZERS, "adamw")
    static = StaticStep(module, module, spec.build(module), lambda step: 0.1, OneBatch(), META)
    with pytest.raises(RunError, match=LEFT_OUT[name]):
        static(0)


@pytest.mark.parametrize("undirected", [False, True])
def test_the_views_of_a_graph_never_wait_for_the_device(undirected):
    view = random_graph()
    if undirected:
        _ = view.structure.undirected_edges  # as the domain asks for them
    with NoWaitingCopies():  # also the first time, since batches of graphs are new at every step
        views = augment(view.to(META), 0.3, 0.2, torch.Generator(), undirected=undirected)
        for convolution in (gcn_matrix, mean_matrix):
            product = views.adjacency(convolution) @ torch.ones(60, 4, device=META, requires_grad=True)
            product.sum().backward()


WITHOUT_FILES = [name for name in DOMAINS.names() if name != "graph"]  # whose generators are on the device; see above


@pytest.mark.parametrize("preset", ["simclr", "byol", "vicreg", "weak"])
def test_the_views_of_images_never_wait_for_the_device(preset):
    images = torch.zeros(12, 3, 32, 32, dtype=torch.uint8, device=META)
    augmentations = ImageViews(preset=preset, blur=0.5).augmentations(32, 3, [0.5] * 3, [0.2] * 3)
    with NoWaitingCopies():
        assert all(augment(images, torch.Generator()).device == META for augment in augmentations)


IMAGES = dict(type="fake", train=64, test=16, size=32)


@pytest.mark.parametrize("feed", ["resident", "streamed"])
@pytest.mark.parametrize("preset", ["simclr", "byol", "vicreg"])
def test_a_batch_of_images_is_one_copy_without_the_pixels_where_they_are_resident(preset, feed):
    views = dict(preset=preset, blur=0.5)
    domain = VisionDomain(None, dataset=IMAGES, views=ImageViews(**views), batch_size=48, feed=feed, workers=0)
    batches = domain.batches(0, Context(device=META))
    next(batches)  # all that stays on the device goes there
    with Copies() as copies, NoNumbersOfTheHost():
        batch = next(batches)
    assert len(batch.views) == 2
    assert {view.device for view in batch.views} == {META}
    pixels = 48 * 3 * 32 * 32
    assert len(copies.bytes) == 1
    assert (copies.bytes[0] > pixels) == (feed == "streamed")
    assert copies.bytes[0] % pixels < pixels / 4


@pytest.mark.parametrize("name", [name for name, kind in FOR_KIND if kind == "image" and name != "lightly"])
def test_a_step_on_images_copies_nothing_to_the_device(name):
    module, views = module_of("resnet_narrow", name, "image").to(META), batch("image")
    with Copies() as copies, NoNumbersOfTheHost():
        take_steps(module, views, build(OPTIMIZERS, "sgd"))
    assert copies.bytes == []


@pytest.mark.parametrize("name", WITHOUT_FILES)
def test_the_batches_of_a_domain_never_wait_for_the_device(name):
    domain = build(DOMAINS, name, None)
    domain.load()
    batches = domain.batches(0, Context(device=META))
    next(batches)  # data go to the device
    with NoWaitingCopies():
        assert all(view.device == META for view in next(batches).views)


def test_the_batches_of_a_domain_of_samples_never_wait_for_the_device():
    class Numbers(SampleDomain):
        kind, in_shape, num_classes = "vector", (4,), 2

        def read(self):
            return Samples(torch.randn(20, 4), torch.arange(20) % 2)

        def augment(self, batch, rng):
            return batch + torch.randn(batch.shape, generator=rng)

        def describe(self):
            return "numbers"

    domain = Numbers(Path(), batch_size=4)
    domain.load()
    with NoWaitingCopies():
        made = next(domain.batches(0, Context(device=META)))
    assert {tensor.device for tensor in (*made.views, made.index, made.labels)} == {META}


@pytest.fixture
def copies(monkeypatch):
    """The copies to the host that a measurement makes, in place of which it gets ones."""
    made = []

    def ones(values):
        assert values.device == META
        made.append(tuple(values.shape))
        return torch.ones(values.shape, dtype=values.dtype)

    for module in (rank_batch, rank_gradients):
        monkeypatch.setattr(module, "to_host", ones)
    return made


LARGE = ("resnet18", "resnet34", "resnet50")
MEASURED = [(name, kind, "single") for name, kind in READS if name not in LARGE]
MEASURED += [("mlp", "vector", "double"), ("mlp", "vector", "host")]


@pytest.mark.parametrize(("name", "kind", "route"), MEASURED)
def test_a_measurement_of_a_network_waits_for_the_device_once(name, kind, route, copies):
    module = module_of(encoder=name, domain=kind).to(META)
    views = batch(kind, 0.0 if name == "pyg" else 0.3).views
    with NoWaitingCopies():
        found = measure(
            module.encoder, views, projector=module.projector, predictor=module.predictor, rows=None, route=route
        )
    assert len(copies) == 1
    assert len(found.rows) > 2 * len(module.layers) - 1


def test_what_float32_does_not_settle_is_waited_for_once_more(copies, monkeypatch):
    module = module_of("mlp", domain="vector").to(META)
    monkeypatch.setattr(rank_batch, "settled_in_float32", lambda energy: torch.zeros(len(energy), dtype=torch.bool))
    measure(module.encoder, batch("vector").views, route="single")
    assert len(copies) == 2


def test_a_monitor_waits_for_the_device_once_a_summary_and_never_in_between(copies):
    module = module_of("mlp", domain="vector").to(META)
    with CollapseMonitor(module, every=1) as monitor, NoWaitingCopies():
        for step in range(2):
            module(batch("vector"), step)["loss"].backward()
        assert not copies
        rows = monitor.summary(route="single")
    assert len(copies) == 1
    assert {row.kind for row in rows} == {"weight", "output"}


def test_the_readings_of_controllers_and_the_comparison_of_gradients_wait_for_the_device_once_each(copies):
    module = module_of("mlp", domain="vector", regularizers=["werank"]).to(META)
    points = [Point("feature", "representation"), *(Point("weight", name) for name in module.layers)]
    points += [Point("output", name) for name in module.layers]
    observation = Observation(points, module.layers, module.encoder, predictor=module.predictor)
    with NoWaitingCopies():
        with observation:
            module(batch("vector"), 0)["loss"].backward()
        assert not copies
        assert len(observation.readings()) == len(points)
        assert len(copies) == 1
        assert len(penalty_gradients(module, 0)) > 1
    assert len(copies) == 2
