"""LARS against its formula, against lightly's where that adapts, and where nothing can be adapted."""

import pytest
import torch
from lightly.utils import lars
from torch import nn

from sslcollapse.layers.map import layer_map
from sslcollapse.optim.lars import LARS


class OneLayer(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.layers = layer_map(self)

    def regularized_layers(self):
        return {"layer"}


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
def test_a_zero_weight_follows_its_plain_gradient_and_a_zero_gradient_moves_nothing(decay):
    module, optimizer = linear(weight_decay=decay, momentum=0.0)
    with torch.no_grad():
        module.layer.weight.zero_()
    gradient = torch.randn(3, 5)
    take_step(module, optimizer, [gradient, torch.zeros(3)])
    torch.testing.assert_close(module.layer.weight.detach(), -0.2 * gradient)
    before = module.layer.weight.detach().clone()
    take_step(module, optimizer, [torch.zeros(3, 5), torch.zeros(3)])
    assert torch.equal(module.layer.weight, before)


def test_a_parameter_without_gradient_stays():
    module, optimizer = linear()
    before = [p.detach().clone() for p in module.parameters()]
    optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))
