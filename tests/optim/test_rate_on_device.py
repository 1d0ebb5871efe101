"""A learning rate that is a tensor moves weights as the number does."""

import pytest
import torch
from tiny import build
from torch import nn

from sslcollapse.core.registry import OPTIMIZERS
from sslcollapse.layers.map import layer_map
from sslcollapse.optim.base import rated


class Trained(nn.Sequential):
    layers = property(lambda self: layer_map(self))

    def regularized_layers(self):
        return set()

    def undecayed(self):
        return set()


SPECS = [
    dict(type="adamw", lr=0.1, weight_decay=1e-2),
    dict(type="adamw", lr=0.1, weight_decay=1e-2, decoupled=False),
    dict(type="sgd", lr=0.1),
    dict(type="sgd", lr=0.1, nesterov=True),
    dict(type="sgd", lr=0.1, momentum=0.0, weight_decay=0.0),
]


@pytest.mark.parametrize("spec", SPECS)
def test_a_rate_in_a_tensor_moves_weights_as_the_number_does_and_the_two_can_alternate(spec):
    torch.manual_seed(0)
    first = Trained(nn.Linear(5, 7), nn.Linear(7, 3))
    second = Trained(nn.Linear(5, 7), nn.Linear(7, 3))
    second.load_state_dict(first.state_dict())
    made = OPTIMIZERS.build(spec)
    plain, other = made.build(first), made.build(second)
    for step in range(6):
        rate = 0.03 * (step + 1)
        for p, q in zip(first.parameters(), second.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for group in (*plain.param_groups, *other.param_groups):
            group["lr"] = rate
        plain.step()
        if step in (2, 3):
            other.step()
        else:
            with rated(other, torch.tensor(rate, dtype=torch.float64)):
                other.step()
        assert all(group["lr"] == rate and not isinstance(group["lr"], torch.Tensor) for group in other.param_groups)
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=1e-6, atol=1e-7)
    for index, entry in plain.state_dict()["state"].items():
        torch.testing.assert_close(other.state_dict()["state"][index], entry, rtol=1e-6, atol=1e-7)


def test_the_optimizers_that_are_said_to_take_a_rate_on_the_device_are_those_that_do():
    taken = {name for name in OPTIMIZERS.names() if getattr(build(OPTIMIZERS, name), "rate_on_device", False)}
    assert taken == {spec["type"] for spec in SPECS}
