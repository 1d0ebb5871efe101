"""Which parameters each optimizer decays and adapts, and its learning rate."""

import pytest
import torch
from torch import nn

from sslcollapse.core.registry import OPTIMIZERS, RegistryError
from sslcollapse.layers.map import layer_map

ALL = [
    dict(type="adamw", lr=0.1),
    dict(type="sgd", lr=0.1),
    dict(type="lars", lr=0.1),
    dict(type="timm", name="muon", lr=0.1),
    dict(type="timm", name="lamb", lr=0.1),
]


class Network(nn.Module):
    """Two layers, the first regularised; a normalisation; a frozen matrix, as of a target."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.last = nn.Linear(5, 3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.layers = layer_map(self)

    def regularized_layers(self):
        return {"first"}

    def undecayed(self):
        return set()

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


def names(network, optimizer):
    """Weight decay → names of the parameters that have it."""
    name_of = {p: name for name, p in network.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        found.setdefault(group["weight_decay"], set()).update(name_of[p] for p in group["params"])
    return found


MATRICES = {"first.weight", "last.weight"}
VECTORS = {"first.bias", "norm.weight", "norm.bias", "last.bias"}


@pytest.mark.parametrize("spec", ALL)
def test_every_trainable_parameter_is_in_one_group_and_no_frozen_one(spec):
    network = Network()
    optimizer = OPTIMIZERS.build(spec).build(network)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {p for p in network.parameters() if p.requires_grad}


@pytest.mark.parametrize("spec", ALL)
def test_vectors_are_left_out_of_weight_decay_on_request(spec):
    network = Network()
    built = OPTIMIZERS.build({**spec, "weight_decay": 0.3, "exclude_norm_and_bias": True}).build(network)
    assert names(network, built) == {0.3: MATRICES, 0.0: VECTORS}
    built = OPTIMIZERS.build({**spec, "weight_decay": 0.3, "exclude_norm_and_bias": False}).build(network)
    assert names(network, built) == {0.3: MATRICES | VECTORS}


def test_by_default_adamw_and_sgd_decay_all_and_those_of_timm_leave_vectors_out():
    defaults = {spec.get("name", spec["type"]): OPTIMIZERS.build(spec).exclude_norm_and_bias for spec in ALL}
    assert defaults == {"adamw": False, "sgd": False, "lars": True, "muon": True, "lamb": True}


@pytest.mark.parametrize("spec", ALL)
def test_regularized_matrices_are_spared_from_weight_decay_on_request(spec):
    network = Network()
    wanted = {**spec, "weight_decay": 0.3, "exclude_norm_and_bias": False, "decay_regularized": False}
    built = OPTIMIZERS.build(wanted).build(network)
    assert names(network, built) == {0.3: {"last.weight"} | VECTORS, 0.0: {"first.weight"}}


@pytest.mark.parametrize("spec", ALL)
def test_the_learning_rate_warms_up_linearly_then_falls_to_zero(spec):
    built = OPTIMIZERS.build({**spec, "warmup_steps": 4, "schedule": "linear"})
    rates = [built.lr_at(step, 8) for step in range(9)]
    assert rates == pytest.approx([0.0, 0.025, 0.05, 0.075, 0.1, 0.075, 0.05, 0.025, 0.0])


def descend(network, optimizer, steps, rng):
    for _ in range(steps):
        network(torch.randn(8, 4, generator=rng)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("spec", [*ALL, dict(type="sgd", lr=0.1, nesterov=True)])
def test_an_optimizer_continues_from_its_saved_state_bit_by_bit(spec, tmp_path):
    spec = {**spec, "lr": 1e-2}
    through, parted = Network(), Network()
    rng = torch.Generator().manual_seed(1)
    descend(through, OPTIMIZERS.build(spec).build(through), 6, rng)
    rng = torch.Generator().manual_seed(1)
    first = OPTIMIZERS.build(spec).build(parted)
    descend(parted, first, 3, rng)
    torch.save({"network": parted.state_dict(), "optimizer": first.state_dict()}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = Network()
    resumed.load_state_dict(saved["network"])
    second = OPTIMIZERS.build(spec).build(resumed)
    second.load_state_dict(saved["optimizer"])
    descend(resumed, second, 3, rng)
    assert all(torch.equal(a, b) for a, b in zip(through.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_impossible_momenta_are_refused_with_the_value(name):
    with pytest.raises(RegistryError, match=r"momentum must be in \[0, 1\), got 1.2"):
        OPTIMIZERS.build({"type": name, "lr": 0.1, "momentum": 1.2})
    with pytest.raises(RegistryError, match="nesterov needs a momentum above 0"):
        OPTIMIZERS.build({"type": name, "lr": 0.1, "momentum": 0.0, "nesterov": True})


def test_impossible_betas_are_refused_with_the_values():
    with pytest.raises(RegistryError, match=r"betas must be two numbers in \[0, 1\), got \[0.9\]"):
        OPTIMIZERS.build({"type": "adamw", "lr": 0.1, "betas": [0.9]})
