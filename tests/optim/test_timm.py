"""Optimizers of timm: LARS against its formula and lightly's, Muon's options, exact resume of all of them."""

import pytest
import torch
from lightly.utils import lars
from timm.optim import get_optimizer_info, list_optimizers
from torch import nn

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.registry import OPTIMIZERS, RegistryError
from sslcollapse.layers.map import layer_map
from sslcollapse.optim.timm import LARS, REFUSED
from sslcollapse.training.checkpoint import check_state


class OneLayer(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.layers = layer_map(self)

    def regularized_layers(self):
        return {"layer"}

    def undecayed(self):
        return set()


def linear(**settings):
    torch.manual_seed(0)
    module = OneLayer(nn.Linear(5, 3))
    return module, LARS(lr=0.2, **settings).build(module)


def take_step(module, optimizer, gradients):
    for p, gradient in zip(module.parameters(), gradients, strict=True):
        p.grad = gradient.clone()
    optimizer.step()


def test_a_matrix_moves_by_the_trust_ratio_and_a_bias_by_its_gradient():
    module, optimizer = linear(momentum=0.5, weight_decay=0.1, trust_coefficient=0.01, eps=0.0)
    w, b = (p.detach().double() for p in module.parameters())
    v_w, v_b = 0.0, 0.0
    for _ in range(3):
        g_w, g_b = torch.randn(3, 5), torch.randn(3)
        take_step(module, optimizer, [g_w, g_b])
        rate = 0.01 * w.norm() / (g_w.double().norm() + 0.1 * w.norm())
        v_w = 0.5 * v_w + rate * (g_w + 0.1 * w)
        v_b = 0.5 * v_b + g_b.double()
        w, b = w - 0.2 * v_w, b - 0.2 * v_b
    torch.testing.assert_close(module.layer.weight.detach().double(), w, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(module.layer.bias.detach().double(), b, rtol=1e-5, atol=1e-6)


def plain_lars(w, g, v, settings):
    """One step of the formula in float32, in the order of its operations."""
    lr, m, decay = 0.2, settings["momentum"], settings["weight_decay"]
    length = w.norm(2.0)
    rate = settings["trust_coefficient"] * length / (g.norm(2.0) + length * decay + 1e-8)
    if settings["clip"]:
        rate = torch.clamp(rate / lr, max=1.0)
    adapted = g.add(w, alpha=decay).mul_(rate)
    v = adapted.clone() if v is None else v.mul(m).add_(adapted)
    ahead = adapted.add(v, alpha=m) if settings["nesterov"] else v
    return w.add(ahead, alpha=-lr), v


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 1e-2])
def test_steps_are_bit_by_bit_those_of_the_plain_formula(decay, nesterov, clip):
    settings = dict(momentum=0.9, nesterov=nesterov, weight_decay=decay, trust_coefficient=0.02, clip=clip)
    module, optimizer = linear(**settings)
    w, v = module.layer.weight.detach().clone(), None
    for _ in range(5):
        g = torch.randn(3, 5)
        take_step(module, optimizer, [g, torch.zeros(3)])
        w, v = plain_lars(w, g, v, settings)
        assert torch.equal(module.layer.weight.detach(), w)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("exclude", [False, True])
def test_steps_are_lightlys_where_that_adapts_what_is_decayed(nesterov, exclude):
    settings = dict(momentum=0.9, nesterov=nesterov, trust_coefficient=0.02)
    module, optimizer = linear(weight_decay=1e-3, exclude_norm_and_bias=exclude, **settings)
    reference = OneLayer(nn.Linear(5, 3))
    reference.load_state_dict(module.state_dict())
    groups = [
        {"params": [reference.layer.weight], "weight_decay": 1e-3},
        {"params": [reference.layer.bias], "weight_decay": 0.0 if exclude else 1e-3},
    ]
    theirs = lars.LARS(groups, lr=0.2, **settings)
    for _ in range(4):
        gradients = [torch.randn(3, 5), torch.randn(3)]
        take_step(module, optimizer, gradients)
        take_step(reference, theirs, gradients)
    for ours, other in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, other)


def test_a_step_without_weight_decay_is_still_adapted_to_the_length_of_the_weight():
    for settings in (dict(weight_decay=0.0), dict(weight_decay=0.5, decay_regularized=False)):
        module, optimizer = linear(trust_coefficient=0.01, **settings)
        before = module.layer.weight.detach().clone()
        take_step(module, optimizer, [1e3 * torch.randn(3, 5), torch.zeros(3)])
        moved = (module.layer.weight - before).norm() / before.norm()
        assert float(moved.detach()) == pytest.approx(0.2 * 0.01, rel=1e-4)


def test_clipping_bounds_the_rate_of_a_matrix_by_its_trust_ratio_and_by_lr():
    for lr, expected in ((0.0, 0.0), (1e-6, 1e-6), (10.0, None)):
        module, optimizer = linear(clip=True, weight_decay=0.0, momentum=0.0, trust_coefficient=0.01)
        for group in optimizer.param_groups:
            group["lr"] = lr
        before, gradient = module.layer.weight.detach().clone(), torch.randn(3, 5)
        take_step(module, optimizer, [gradient, torch.zeros(3)])
        rate = 0.01 * before.norm() / gradient.norm() if expected is None else expected
        torch.testing.assert_close(module.layer.weight.detach(), before - rate * gradient)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_zero_weight_follows_its_plain_gradient_and_without_a_gradient_there_is_plain_decay(decay):
    module, optimizer = linear(weight_decay=decay, momentum=0.0)
    with torch.no_grad():
        module.layer.weight.zero_()
    gradient = torch.randn(3, 5)
    take_step(module, optimizer, [gradient, torch.zeros(3)])
    torch.testing.assert_close(module.layer.weight.detach(), -0.2 * gradient)
    before = module.layer.weight.detach().clone()
    take_step(module, optimizer, [torch.zeros(3, 5), torch.zeros(3)])
    torch.testing.assert_close(module.layer.weight.detach(), (1 - 0.2 * decay) * before)


def test_a_parameter_without_gradient_stays():
    module, optimizer = linear()
    before = [p.detach().clone() for p in module.parameters()]
    optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))


class Network(nn.Module):
    """A convolution, two linear layers and a normalisation, wide enough for factored statistics."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 32, 3)
        self.linear = nn.Linear(32 * 4, 140)
        self.norm = nn.LayerNorm(140)
        self.last = nn.Linear(140, 5)
        self.layers = layer_map(self)

    def regularized_layers(self):
        return set()

    def undecayed(self):
        return set()

    def forward(self, x):
        return self.last(self.norm(self.linear(self.convolution(x).flatten(1))))


def timm(name, **settings):
    return OPTIMIZERS.build({"type": "timm", "name": name, "lr": 1e-2, **settings})


def train(network, optimizer, spec, steps, rng):
    """As the trainer does: the learning rate of all groups from the step."""
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = spec.lr_at(step, 6)
        network(torch.randn(4, 3, 4, 4, generator=rng)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


NATIVE = [name for name in list_optimizers() if not isinstance(get_optimizer_info(name).opt_class, str)]
USABLE = [name for name in NATIVE if not name.startswith(tuple(REFUSED))]


@pytest.mark.parametrize("name", USABLE)
def test_an_optimizer_of_timm_continues_from_a_checkpoint_bit_by_bit(name, tmp_path):
    spec = timm(name, weight_decay=0.1, warmup_steps=2)
    through, parted, resumed = Network(), Network(), Network()
    rng = torch.Generator().manual_seed(1)
    train(through, spec.build(through), spec, range(6), rng)
    rng = torch.Generator().manual_seed(1)
    first = spec.build(parted)
    train(parted, first, spec, range(3), rng)
    state = {"step": 3, "world_size": 1, "module": parted.state_dict(), "optimizer": first.state_dict(), "scaler": None}
    torch.save(state, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    second = timm(name, weight_decay=0.1, warmup_steps=2).build(resumed)
    check_state(saved, 6, resumed, second)
    resumed.load_state_dict(saved["module"])
    second.load_state_dict(saved["optimizer"])
    torch.rand(5)  # a resumed process has drawn other numbers
    train(resumed, second, spec, range(3, 6), rng)
    assert all(torch.isfinite(p).all() for p in through.parameters())
    assert all(torch.equal(a, b) for a, b in zip(through.parameters(), resumed.parameters(), strict=True))
    assert not torch.equal(through.linear.weight, Network().linear.weight)


@pytest.mark.parametrize("name", [name for name in list_optimizers() if name not in USABLE])
def test_an_optimizer_that_cannot_be_used_is_refused_with_the_reason(name):
    reason = "second derivatives" if name == "adahessian" else "draws random numbers" if "kron" in name else "installed"
    with pytest.raises(RegistryError, match=f"name: timm's {name} .*{reason}"):
        timm(name)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_without_weight_decay_an_adapted_step_is_still_relative_to_the_length_of_the_weight(name):
    moved = []
    for scale in (1.0, 10.0):
        module = OneLayer(nn.Linear(5, 3))
        with torch.no_grad():
            module.layer.weight.copy_(scale * torch.eye(3, 5))
        before = module.layer.weight.detach().clone()
        take_step(module, timm(name).build(module), [torch.ones(3, 5), torch.ones(3)])
        moved.append((module.layer.weight.detach() - before).norm() / before.norm())
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-2, atol=0)


def routes(network, **settings):
    """Names of the parameters that Muon itself moves."""
    spec = timm("muon", **settings)
    optimizer = spec.build(network)
    train(network, optimizer, spec, range(1), torch.Generator().manual_seed(0))
    name_of = {p: name for name, p in network.named_parameters()}
    return {name_of[p] for p, state in optimizer.state.items() if state["use_muon"]}


def test_muon_moves_matrices_and_kernels_and_a_recipe_says_which_it_leaves_to_adamw():
    assert routes(Network()) == {"convolution.weight", "linear.weight", "last.weight"}
    assert routes(Network(), convolutions="adamw") == {"linear.weight", "last.weight"}
    assert routes(Network(), fallback=["first", "last"]) == {"linear.weight"}
    assert routes(Network(), fallback=["l*"]) == {"convolution.weight"}
    with pytest.raises(RecipeError, match=r"optim.fallback: no layer .* 'linaer'; did you mean 'linear'\?"):
        routes(Network(), fallback=["linaer"])


def update(**settings):
    """What a step of Muon with random gradients adds to the convolution and the linear layer."""
    network = Network()
    optimizer = timm("muon", **settings).build(network)
    before = [network.convolution.weight.detach().clone(), network.linear.weight.detach().clone()]
    rng = torch.Generator().manual_seed(1)
    for p in network.parameters():
        p.grad = torch.randn(p.shape, generator=rng)
    optimizer.step()
    after = [network.convolution.weight.detach(), network.linear.weight.detach()]
    return [(new - old).double() for new, old in zip(after, before, strict=True)]


def spread(matrix):
    """Largest over smallest singular value; 1 for a (semi-)orthogonal matrix."""
    values = torch.linalg.svdvals(matrix)
    return float(values[0] / values[-1])


CONVERGING = dict(ns_steps=40, ns_coefficients=[1.5, -0.5, 0.0])
"""Newton-Schulz's own iteration; Muon's goes to between 0.7 and 1.2 in five steps."""


def test_muons_step_on_a_kernel_is_orthogonal_flattened_or_at_each_place():
    flat, _ = update(compute="float32", arguments=CONVERGING)
    batched, _ = update(compute="float32", arguments=CONVERGING, convolutions="batched")
    assert spread(flat.flatten(1)) == pytest.approx(1.0, abs=1e-3)
    assert spread(batched[:, :, 1, 2]) == pytest.approx(1.0, abs=1e-3)
    assert spread(batched.flatten(1)) > 1.1


def test_muon_computes_in_the_type_that_is_asked_for_and_leaves_timm_as_it_was():
    from timm.optim import muon

    before = muon.zeropower_via_newtonschulz
    usual, narrow, wide = (
        update(compute=compute, arguments=CONVERGING)[1] for compute in (None, "bfloat16", "float32")
    )
    assert torch.equal(usual, narrow)
    assert spread(wide) < 1.001 < spread(narrow)
    assert muon.zeropower_via_newtonschulz is before


def test_the_momentum_is_the_optimizers_own_and_nine_tenths_where_that_is_none():
    groups = {name: timm(name).build(Network()).param_groups[0]["momentum"] for name in ("muon", "sgd", "lars")}
    assert groups == {"muon": 0.95, "sgd": 0.9, "lars": 0.9}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (dict(name="muno"), r"timm has no optimizer 'muno'; did you mean 'muon'\?"),
        (
            dict(name="muon", arguments=dict(momentm=0.9)),
            r"timm's muon has no such argument; did you mean 'momentum'\?",
        ),
        (
            dict(name="muon", arguments=dict(lr=0.9)),
            "arguments.lr: is an argument of the optimizer itself; leave it out",
        ),
        (dict(name="muon", arguments=dict(momentum=2.0)), r"timm's muon refuses {'momentum': 2.0"),
        (dict(name="lamb", compute="float32"), "compute: is of Muon, got name='lamb'; leave it out"),
        (dict(name="lamb", fallback=["first"]), "fallback: is of Muon, got name='lamb'; leave it out"),
    ],
)
def test_a_mistake_in_a_spec_is_named(spec, message):
    with pytest.raises(RegistryError, match=message):
        timm(**spec)
