"""What holds for the process in a run, and that it is put back; and what stays in float32 whatever holds."""

import json
import os

import pytest
import torch
from safetensors.torch import load
from tiny import tiny_recipe
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sslcollapse.core import precision
from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.precision import full_precision, in_force, numerics, precisely
from sslcollapse.core.registry import CONSTRAINTS, OBJECTIVES, PROBES, REGULARIZERS
from sslcollapse.core.types import Batch, Branch, Hidden, ProbeSet, Split
from sslcollapse.domains.base import flat_rows
from sslcollapse.layers.map import layer_map
from sslcollapse.probes.evaluate import run_probes
from sslcollapse.probes.linear import OnlineProbe
from sslcollapse.rank.diagnose.outputs import with_statistics
from sslcollapse.rank.measure import measure, represent
from sslcollapse.rank.views import measure_shared
from sslcollapse.recipe import identify
from sslcollapse.regularizers.base import WeightPenalty
from sslcollapse.regularizers.constraints import Constrained
from sslcollapse.training import evaluate as evaluate_module
from sslcollapse.training.trainer import train

CPU, GPU = torch.device("cpu"), torch.device("cuda")
USUAL = dict(matmul="high", cudnn_benchmark=True, deterministic=False)


def state():
    """All switches that a policy may touch."""
    backends = torch.backends
    return {
        **in_force(),
        "overall": torch.get_float32_matmul_precision(),
        "rnn": backends.cudnn.rnn.fp32_precision,
        "cpu": backends.mkldnn.matmul.fp32_precision,
        "allow_tf32": (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32),
        "workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


def fail_under(settings):
    with numerics(settings, GPU):
        assert in_force()["cuda_matmul"] == "ieee"
        raise KeyError


@pytest.mark.parametrize(("matmul", "type_"), [("highest", "ieee"), ("high", "tf32"), ("medium", "tf32")])
def test_a_gpu_gets_the_products_of_the_recipe_and_afterwards_what_it_had(matmul, type_):
    before = state()
    with numerics({**USUAL, "matmul": matmul}, GPU):
        assert in_force()["cuda_matmul"] == in_force()["cudnn_conv"].replace("none", "ieee") == type_
        assert in_force()["cudnn_benchmark"] is True
        assert torch.get_float32_matmul_precision() == matmul
        assert torch.backends.cudnn.allow_tf32 == (type_ == "tf32")
        assert state()["cpu"] == before["cpu"]
    assert state() == before


def test_a_policy_is_put_back_after_an_error_and_over_what_a_program_had_set():
    torch.set_float32_matmul_precision("high")
    try:
        before = state()
        with pytest.raises(KeyError):
            fail_under({**USUAL, "matmul": "highest", "deterministic": True})
        assert state() == before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_cpu_is_left_as_it_is():
    before = state()
    with numerics({**USUAL, "matmul": "medium"}, CPU):
        assert state() == before


def test_deterministic_is_torchs_on_any_device_and_leaves_nothing_to_be_tried_by_cudnn():
    before = state()
    for device in (CPU, GPU):
        with numerics({**USUAL, "deterministic": True}, device):
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
            assert not in_force()["cudnn_benchmark"]
    assert state() == before


@pytest.mark.parametrize("convolutions", [False, True])
def test_full_precision_takes_tf32_off_a_gpu_and_gives_it_back(convolutions):
    with numerics(USUAL, GPU):
        before = state()
        with full_precision(GPU, convolutions=convolutions):
            assert in_force()["cuda_matmul"] == "ieee"
            assert (in_force()["cudnn_conv"] == "tf32") is not convolutions
            assert torch.get_float32_matmul_precision() == "high"  # nothing asks in vain
            with full_precision(GPU):
                assert in_force()["cuda_matmul"] == "ieee"
            assert in_force()["cuda_matmul"] == "ieee"
        assert state() == before


class Products(TorchDispatchMode):
    """The types of the factors of every matrix product, also of backward passes."""

    def __init__(self):
        super().__init__()
        self.types = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm):
            self.types += [tensor.dtype for tensor in args if isinstance(tensor, torch.Tensor)]
        return function(*args, **(kwargs or {}))


def test_under_bf16_a_network_multiplies_in_bf16():
    with torch.autocast("cpu", torch.bfloat16), Products() as products:
        nn.Linear(6, 9)(torch.randn(4, 6))
    assert set(products.types) == {torch.bfloat16}


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_under_bf16_penalties_and_their_gradients_are_computed_in_float32(name):
    penalty, network = REGULARIZERS.build({"type": name}), nn.Linear(6, 9)
    features, gather = [torch.randn(12, 6, requires_grad=True)], Gather(enabled=False)
    with Products() as products:
        with torch.autocast("cpu", torch.bfloat16):
            on_weights = isinstance(penalty, WeightPenalty)
            values = penalty(layer_map(network)) if on_weights else {"": penalty(features, gather, 0)}
        sum(values.values()).backward()
    assert set(products.types) <= {torch.float32, torch.float64}
    assert all(value.dtype in (torch.float32, torch.float64) for value in values.values())


@pytest.mark.parametrize("name", ["bgrl", "simsiam", "simclr", "vicreg", "barlow_twins", "cca_ssg"])
def test_under_bf16_losses_are_computed_in_float32(name):
    objective = OBJECTIVES.build({"type": name})
    rows = [torch.randn(12, 6, requires_grad=True) for _ in range(2)]
    branches = [Branch(row, row, row) for row in rows]
    with Products() as products:
        with torch.autocast("cpu", torch.bfloat16):
            losses = objective(branches, branches, Gather(enabled=False))
        sum(losses.values()).backward()
    assert torch.bfloat16 not in products.types
    assert all(loss.dtype == torch.float32 for loss in losses.values())


class Exact(TorchDispatchMode):
    """Counts matrix products, and refuses those that a GPU would make in TF32."""

    def __init__(self):
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in PRODUCTS and args[0].dtype == torch.float32:
            self.products += 1
            assert in_force()["cuda_matmul"] == "ieee", f"{function} in TF32"
        return function(*args, **(kwargs or {}))


ATEN = torch.ops.aten
PRODUCTS = {ATEN.mm, ATEN.addmm, ATEN.addmm_, ATEN.bmm, ATEN.baddbmm, ATEN.mv, ATEN.addmv, ATEN.linalg_solve_ex}


@pytest.fixture
def as_a_gpu(monkeypatch):
    """The CPU counts as a device with TF32, which is on, as in a run on a GPU."""
    monkeypatch.setattr(precision, "TENSOR_CORES", ("cuda", "cpu"))
    with numerics(USUAL, GPU):
        assert in_force()["cuda_matmul"] == "tf32"
        yield


def test_products_of_a_plain_backward_pass_are_in_tf32_and_those_of_precisely_in_float32(as_a_gpu):
    a, b = torch.randn(4, 3, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    with full_precision(CPU):
        plain = (a @ b).sum()
    with pytest.raises(AssertionError, match="in TF32"), Exact():
        plain.backward()
    with Exact() as exact:
        precisely(torch.matmul, a, b).sum().backward()
    assert exact.products == 3


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_penalties_are_in_float32_in_both_passes_while_a_run_is_in_tf32(name, as_a_gpu):
    penalty, network = REGULARIZERS.build({"type": name}), nn.Linear(6, 9)
    features, gather = [torch.randn(12, 6, requires_grad=True)], Gather(enabled=False)
    with Exact():
        on_weights = isinstance(penalty, WeightPenalty)
        values = penalty(layer_map(network)) if on_weights else {"": penalty(features, gather, 0)}
        sum(values.values()).backward()
    assert (network.weight if on_weights else features[0]).grad.abs().sum() > 0


OURS = [{"type": name} for name in OBJECTIVES.names() if name != "lightly"]
OF_LIGHTLY = [
    {"type": "lightly", "loss": loss, "projector": []} for loss in ("NTXentLoss", "VICRegLoss", "BarlowTwinsLoss")
]


@pytest.mark.parametrize("spec", [*OURS, *OF_LIGHTLY])
def test_losses_are_in_float32_in_both_passes_while_a_run_is_in_tf32(spec, as_a_gpu):
    if spec["type"] == "lightly":
        pytest.importorskip("lightly")
    objective = OBJECTIVES.build(spec)
    rows = [torch.randn(12, 6, requires_grad=True) for _ in range(2)]
    hidden = Hidden(torch.arange(12), torch.randn(12, 6))
    branches = [Branch(row, row, row, row, hidden) for row in rows]
    with Exact():
        target = branches if objective.needs_target else None
        sum(objective(branches, target, Gather(enabled=False)).values()).backward()
    assert all(row.grad.abs().sum() > 0 for row in rows)


def test_the_second_derivatives_of_penalties_on_features_are_in_float32_too(as_a_gpu):
    for name in ("covariance", "sigreg"):
        penalty, features = REGULARIZERS.build({"type": name}), torch.randn(12, 6, requires_grad=True)
        with Exact() as exact:
            value = penalty([features], Gather(enabled=False), 0)
            (slope,) = torch.autograd.grad(value, features, create_graph=True)
            slope.square().sum().backward()
        assert exact.products
        assert features.grad.abs().sum() > 0


def test_an_online_probe_and_constrained_weights_are_in_float32_in_both_passes(as_a_gpu):
    probe = OnlineProbe(6, 3)
    with Exact() as exact:
        probe(torch.randn(12, 6), torch.arange(12) % 3)["loss"].backward()
    assert exact.products == 2
    assert probe.linear.weight.grad.abs().sum() > 0
    network = nn.Sequential(nn.Linear(6, 6, bias=False))
    constrained = Constrained({"set": CONSTRAINTS.build({"type": "orthogonal"})}, network, layer_map(network))
    with Exact() as exact, constrained.held():
        network[0].weight.square().mul(torch.randn(6, 6)).sum().backward()
    assert exact.products
    assert next(network.parameters()).grad.abs().sum() > 0


@pytest.mark.parametrize("order", [1, 2, 3])
def test_gradients_of_every_order_are_those_of_plain_autograd(order, as_a_gpu):
    inputs = [torch.randn(3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def function(a, b):
        return (a @ b).sin() @ a

    def derivatives(call):
        found = call(*inputs).square().sum()
        for _ in range(order):
            found = sum(slope.pow(3).sum() for slope in torch.autograd.grad(found, inputs, create_graph=True))
        return torch.autograd.grad(found, inputs)

    wanted = derivatives(function)
    with Exact():
        found = derivatives(lambda a, b: precisely(function, a, b))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_a_diagnosis_and_what_views_share_are_in_float32_while_a_program_is_in_tf32(as_a_gpu):
    network, x = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9)), torch.randn(60, 6)
    with Exact() as exact:
        with_statistics(network, [x])
        measure_shared(network, [Batch([x, x + 0.1], torch.arange(60), None, True)], 60, flat_rows)
    assert exact.products > 2


def test_an_evaluation_is_by_the_policy_of_the_run_and_leaves_the_process_as_it_was(tmp_path, monkeypatch):
    probes = dict(public=dict(type="knn", split="public"))
    quick = tiny_recipe("again", optim=dict(type="adamw", lr=1e-3), monitor=dict(every=0), evaluate=probes)
    path = train({**quick, "train": dict(steps=1, deterministic=True)}, out=tmp_path)
    before, seen, evaluate = state(), [], evaluate_module.evaluate_networks
    monkeypatch.setattr(evaluate_module, "evaluate_networks", lambda *args: seen.append(in_force()) or evaluate(*args))
    assert "test_accuracy" in evaluate_module.evaluate_run(path)["evaluation"]["public"]
    assert [each["deterministic"] for each in seen] == [True]
    assert state() == before
    assert evaluate_module.policy_of({"train": {"steps": 2}}) == USUAL  # of a run before there was one


def test_on_a_cpu_precisely_is_the_plain_call():
    a = torch.randn(3, 3, requires_grad=True)
    assert type(precisely(torch.matmul, a, a).grad_fn).__name__ == "MmBackward0"


def test_under_bf16_ranks_and_probes_are_those_of_float32():
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9)), torch.randn(60, 6)
    rows, labels = torch.arange(60).numpy(), (x[:, 0] > 0).long()
    probe_set = ProbeSet([x], labels, 2, {"public": [Split(rows[:30], rows[30:45], rows[45:])]})
    probes = {name: PROBES.build({"type": name, "split": "public"}) for name in PROBES.names()}

    def found():
        features = represent(network, [x])
        return measure(network, [x]).ranks, run_probes(probes, features, probe_set)[0], features

    ranks, scores, features = found()
    with torch.autocast("cpu", torch.bfloat16):
        ranks_then, scores_then, features_then = found()
    assert ranks == ranks_then
    assert scores == scores_then
    assert torch.equal(features, features_then)


def test_a_run_records_what_was_in_force_and_puts_it_back(tmp_path):
    before = state()
    quick = tiny_recipe("quick", optim=dict(type="adamw", lr=1e-3), monitor=dict(every=0), evaluate=dict())
    bits = []
    for settings in ({}, dict(deterministic=True), dict(precision="bf16", matmul="highest")):
        path = train({**quick, "train": dict(steps=2, **settings)}, out=tmp_path)
        recorded = json.loads((path / "environment.json").read_text())["precision"]
        assert recorded["autocast"] == settings.get("precision", "no")
        assert recorded["deterministic"] is settings.get("deterministic", False)
        assert recorded.keys() == {"autocast", *in_force()}
        assert state() == before
        bits.append((path / "encoder.safetensors").read_bytes())
    assert len(bits[0]) == len(bits[1])
    assert load(bits[0]).keys() == load(bits[1]).keys()
    assert all(torch.equal(load(bits[0])[key], value) for key, value in load(bits[1]).items())


def test_the_policy_of_before_there_was_one_has_the_hash_that_it_had():
    recipe = tiny_recipe("same", optim=dict(type="adamw", lr=1e-3), train=dict(steps=2))
    stated = {**recipe, "train": dict(steps=2, matmul="high", cudnn_benchmark=True, deterministic=False)}
    assert identify(recipe)[1] == identify(stated)[1]
    for change in (dict(matmul="highest"), dict(cudnn_benchmark=False), dict(deterministic=True)):
        assert identify({**recipe, "train": dict(steps=2, **change)})[1] != identify(recipe)[1]


def test_a_precision_that_there_is_not_is_refused():
    recipe = tiny_recipe("no", optim=dict(type="adamw", lr=1e-3), train=dict(steps=2, matmul="tf32"))
    with pytest.raises(RecipeError, match=r"train\.matmul: .*'high'.*'tf32'"):
        identify(recipe)
