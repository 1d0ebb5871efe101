"""Every registered component on a device has the values and gradients that it has on the CPU."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from on_device import CPU, DEVICE, EXACT, assert_near, gradients, half, needs_its_library, on_gpu, there
from tiny import SHAPES, build, random_graph
from torch import nn

from sslcollapse.core.distributed import Gather
from sslcollapse.core.registry import ENCODERS, OBJECTIVES, OPTIMIZERS, PROBES, REGULARIZERS
from sslcollapse.core.types import Branch, ProbeSet, Split
from sslcollapse.layers.map import layer_map
from sslcollapse.regularizers.base import WeightPenalty
from sslcollapse.regularizers.werank import orthogonality_defect, orthogonality_defects

pytestmark = on_gpu

HALF_VALUE, HALF_GRADIENT = 3e-2, 2e-1
"""Relative distance of values and of gradients in bfloat16, whose numbers have 8 bits, from those in float32."""
DEEP, DEEP_VALUE = ("resnet18", "resnet34", "resnet50"), 3e-1
"""Encoders of so many layers that, untrained, rounding turns their gradients round: of these lengths are compared."""
ROUNDED = 1e-2
"""Relative distance of gradients that are computed in float32 and kept in bfloat16."""
READ = [(name, kind) for name in ENCODERS.names() for kind in ENCODERS.get(name).reads]


def encoded(encoder, view, cotangent, precision=nullcontext):
    """Output and gradients of an encoder in train mode; autocast is for the forward pass alone, as in training."""
    encoder.train().zero_grad()
    with precision():
        out = encoder(view)
    (out.float() * cotangent).sum().backward()
    return {"output": out}, gradients(encoder)


@pytest.mark.parametrize(("name", "kind"), READ)
def test_an_encoder_has_the_output_and_gradients_of_the_cpu(name, kind):
    encoder = build(ENCODERS, name, SHAPES[kind])
    view = random_graph() if kind == "graph" else torch.randn(16, *SHAPES[kind])
    rows = 60 if kind == "graph" else 16
    cotangent = torch.randn(rows, encoder.out_dim)
    on_device = there(encoder)
    torch.manual_seed(0)
    wanted, wanted_gradients = encoded(encoder, view, cotangent)
    torch.manual_seed(0)
    found, found_gradients = encoded(on_device, there(view), there(cotangent))
    assert found["output"].device.type == DEVICE.type
    assert_near(found, wanted)
    assert_near(found_gradients, wanted_gradients, 10 * EXACT)
    torch.manual_seed(0)
    found, found_gradients = encoded(on_device, there(view), there(cotangent), half)
    exact = torch.cat([value.flatten() for value in wanted_gradients.values()])
    rounded = torch.cat([found_gradients[key].float().flatten() for key in wanted_gradients]).to(CPU)
    if name in DEEP:
        assert_near(found, wanted, DEEP_VALUE)
        assert 0.5 < float(rounded.norm() / exact.norm()) < 2
    else:
        assert_near(found, wanted, HALF_VALUE)
        assert_near({"all gradients": rounded}, {"all gradients": exact}, HALF_GRADIENT)


def branches_of(objective, rows=32, width=16):
    """Online and target branches of random features, with gradients for the online ones."""
    torch.manual_seed(1)
    projector = objective.projector(width)
    embedding = width if projector is None else projector.out_dim

    def branch():
        h = torch.randn(rows, width, requires_grad=True)
        z = h if projector is None else torch.randn(rows, embedding, requires_grad=True)
        predicts = objective.predictor(embedding) is not None
        return Branch(h, z, torch.randn(rows, embedding, requires_grad=True) if predicts else None)

    target = [Branch(torch.randn(rows, width), torch.randn(rows, embedding), None) for _ in range(2)]
    return [branch(), branch()], target if objective.needs_target else None


def judged(objective, online, target, precision=nullcontext):
    """Losses of an objective, and the gradients of the features that it reads."""
    torch.manual_seed(2)
    with precision():
        losses = objective(online, target, Gather())
    sum(losses.values()).backward()
    leaves = {f"{kind}{k}": getattr(b, kind) for k, b in enumerate(online) for kind in ("h", "z", "p")}
    return losses, {key: leaf.grad for key, leaf in leaves.items() if leaf is not None and leaf.grad is not None}


def copies(branches):
    """Branches on the device; an embedding that is the representation stays it."""
    if branches is None:
        return None
    made = []
    for h, z, p in branches:
        moved = there(h)
        made.append(Branch(moved, moved if z is h else there(z), None if p is None else there(p)))
    return made


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_an_objective_has_the_losses_and_gradients_of_the_cpu(name):
    needs_its_library(name)
    objective = build(OBJECTIVES, name)
    online, target = branches_of(objective)
    on_device = there(objective)
    first, second = (copies(online), copies(target)), (copies(online), copies(target))
    wanted, wanted_gradients = judged(objective, online, target)
    found, found_gradients = judged(on_device, *first)
    assert all(loss.device.type == DEVICE.type for loss in found.values())
    assert_near(found, wanted)
    assert_near(found_gradients, wanted_gradients)
    found, found_gradients = judged(on_device, *second, half)
    assert all(loss.dtype == torch.float32 for loss in found.values()) or name == "lightly"
    assert_near(found, wanted, HALF_VALUE)
    assert_near(found_gradients, wanted_gradients, HALF_GRADIENT)


def penalised(penalty, network, features, precision=nullcontext):
    """Values of a penalty on weights or on features, and their gradients."""
    if isinstance(penalty, WeightPenalty):
        with precision():
            values = penalty(layer_map(network))
        sum(values.values()).backward()
        return dict(values), gradients(network)
    with precision():
        value = penalty(features, Gather(), 3)
    value.backward()
    return {"penalty": value}, {str(k): feature.grad for k, feature in enumerate(features)}


def regularized():
    """A network with two layers of one shape, and features of two views."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 8))
    return network, [torch.randn(96, 8, requires_grad=True) for _ in range(2)]


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_a_regularizer_has_the_values_and_gradients_of_the_cpu(name):
    penalty, (network, features) = build(REGULARIZERS, name), regularized()
    on_device, others, again = there(penalty), (there(network), there(features)), (there(network), there(features))
    wanted, wanted_gradients = penalised(penalty, network, features)
    found, found_gradients = penalised(on_device, *others)
    assert all(value.device.type == DEVICE.type for value in found.values())
    assert_near(found, wanted)
    assert_near(found_gradients, wanted_gradients)
    found, found_gradients = penalised(on_device, *again, half)  # which a penalty is computed outside of
    assert all(value.dtype == torch.float32 for value in found.values())
    assert_near(found, wanted)
    assert_near(found_gradients, wanted_gradients)


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_a_regularizer_of_what_is_kept_in_bfloat16_has_the_values_and_gradients_of_the_cpu(name):
    penalty, (network, features) = build(REGULARIZERS, name), regularized()
    network, features = network.bfloat16(), [f.detach().bfloat16().requires_grad_() for f in features]
    others = there(penalty), there(network), there(features)
    wanted, wanted_gradients = penalised(penalty, network, features)
    found, found_gradients = penalised(*others)
    assert all(value.dtype == torch.float32 for value in found.values())
    assert all(value.dtype == torch.bfloat16 for value in found_gradients.values())
    assert_near(found, wanted)
    assert_near(found_gradients, wanted_gradients, ROUNDED)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("gram", ["output", "input", "smaller"])
def test_weights_of_one_shape_multiplied_together_have_the_defects_of_each_alone(gram, squared):
    torch.manual_seed(4)
    shapes = {"a": (24, 40), "b": (24, 40), "c": (40, 24), "d": (24, 40), "e": (16, 16)}
    weights = {name: torch.randn(shape, requires_grad=True) for name, shape in shapes.items()}
    alone = {name: orthogonality_defect(weight, squared=squared, gram=gram) for name, weight in weights.items()}
    sum(alone.values()).backward()
    wanted = {name: weight.grad for name, weight in weights.items()}
    for grouped in (None, True, False):
        moved = {name: there(weight) for name, weight in weights.items()}
        found = orthogonality_defects(moved, squared=squared, gram=gram, grouped=grouped)
        sum(found.values()).backward()
        assert_near(found, alone)
        assert_near({name: weight.grad for name, weight in moved.items()}, wanted)


STEP_BOUND = {"timm": 5e-2}
"""timm's Muon orthogonalises updates in bfloat16."""


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_an_optimizer_moves_parameters_as_on_the_cpu(name):
    class Trained(nn.Sequential):
        layers = property(lambda self: layer_map(self))

        def regularized_layers(self):
            return set()

    torch.manual_seed(5)
    first = Trained(nn.Linear(12, 16), nn.LayerNorm(16), nn.Linear(16, 8))
    second, spec = there(first), build(OPTIMIZERS, name)
    began = {key: p.detach().clone() for key, p in first.named_parameters()}
    drawn = [{key: torch.randn_like(p) for key, p in began.items()} for _ in range(5)]
    for module in (first, second):
        optimizer = spec.build(module)
        for step, given in enumerate(drawn):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * (1 + step)
            for key, p in module.named_parameters():
                p.grad = given[key].to(p.device)
            optimizer.step()
    wanted = {key: p.detach() - began[key] for key, p in first.named_parameters()}
    found = {key: p.detach().to(CPU) - began[key] for key, p in second.named_parameters()}
    assert all(float(value.abs().max()) > 1e-4 for value in wanted.values())
    assert_near(found, wanted, STEP_BOUND.get(name, EXACT))


@pytest.mark.parametrize("name", PROBES.names())
@pytest.mark.parametrize("multilabel", [False, True])
def test_a_probe_of_features_on_the_device_finds_what_it_finds_on_the_cpu(name, multilabel):
    probe, rng = build(PROBES, name), torch.Generator().manual_seed(6)
    rows, classes = 240, 4
    labels = torch.arange(rows) % classes
    columns = nn.functional.one_hot(labels, classes).float()
    features = 1.5 * columns @ torch.randn(classes, 12, generator=rng) + torch.randn(rows, 12, generator=rng)
    if multilabel:
        if getattr(probe, "single_label", None):
            pytest.skip("reads one class a row")
        labels = (features[:, :classes] > 0).float()
    splits = {"public": [Split(*np.array_split(np.random.default_rng(0).permutation(rows), 3))]}
    probe_set = ProbeSet((), labels, classes, splits)
    wanted = probe(features, probe_set)
    found = copy.deepcopy(probe)(features.to(DEVICE), probe_set)
    # A sample of the test part on the edge of two classes may fall to either side.
    assert np.abs(np.subtract(found.test, wanted.test)).max() <= 2 / (rows / 3)
    assert np.abs(np.subtract(found.validation, wanted.validation)).max() <= 2 / (rows / 3)
    assert found.splits == wanted.splits
    assert found.metric == wanted.metric


@pytest.mark.parametrize("solver", ["auto", "liblinear"])
def test_splits_that_are_fitted_together_on_the_device_choose_what_each_does_on_the_cpu(solver):
    rng = torch.Generator().manual_seed(7)
    rows, classes = 600, 4
    labels = torch.arange(rows) % classes
    features = nn.functional.one_hot(labels, classes).float() @ torch.randn(classes, 24, generator=rng)
    features += 1.5 * torch.randn(rows, 24, generator=rng)
    probe = PROBES.build({"type": "logistic", "split": "random", "repeats": 6, "solver": solver})
    probe_set = ProbeSet((), labels, classes, {})
    wanted, found = probe(features, probe_set), probe(features.to(DEVICE), probe_set)
    assert (wanted.details["unconverged"], found.details["unconverged"]) == (0, 0)
    assert np.abs(np.subtract(found.test, wanted.test)).max() <= 1 / (0.8 * rows)
    assert found.details["chosen_c"] == wanted.details["chosen_c"]
