"""Layers that share a tensor: it is computed once for all of them, with the values and gradients of each alone."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch_geometric.nn import RGCNConv

from sslcollapse import WERank
from sslcollapse.layers.map import Layer, layer_map, select, weights
from sslcollapse.rank.gradients import penalty_gradients
from sslcollapse.rank.measure import measure
from sslcollapse.regularizers.orthogonality import DSOPenalty, SOPenalty, SRIPPenalty
from sslcollapse.regularizers.werank import WERankPenalty


class Counted(nn.Module):
    """A parametrization that doubles a weight and counts how often it runs, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards: list[int] = []
        self.backwards: list[int] = []

    def forward(self, weight):
        self.forwards.append(1)
        doubled = 2 * weight
        if doubled.requires_grad:
            doubled.register_hook(lambda gradient: self.backwards.append(1))
        return doubled


class Experts(nn.Module):
    def __init__(self, n: int = 6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n, 4, 5))


def experts():
    return nn.ModuleDict({"experts": Experts()})


def relations(bases: int | None = 2):
    return RGCNConv(6, 4, num_relations=5, num_bases=bases, bias=False)


def fused():
    network = nn.ModuleDict({"qkv": nn.Linear(8, 24)})
    network.fused_maps = {"qkv": {"q": 12, "k": 4, "v": 8}}
    return network


def by_head(spans) -> dict[str, Layer]:
    """Parts of a map whose rows are spread over two blocks of six."""
    linear = nn.Linear(3, 12)
    return {
        name: Layer(name, linear, 0, (2 * width, 3), start=start, period=6, width=width)
        for name, (start, width) in spans.items()
    }


NETWORKS = {
    "stack": experts,
    "relations": lambda: relations(None),
    "bases": relations,
    "blocks": lambda: RGCNConv(6, 4, num_relations=3, num_blocks=2, bias=False),
    "fused": fused,
    "groups": lambda: nn.Conv2d(6, 4, 3, groups=2),
    "bilinear": lambda: nn.Bilinear(5, 3, 4),
    "plain": lambda: nn.Sequential(nn.Linear(4, 5), nn.Conv2d(3, 5, 3)),
}


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_weights_of_many_layers_and_their_gradients_are_those_of_each_alone(name, some):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    layers = layer_map(network)
    assert len(layers) > 1
    if some:
        layers = dict(list(layers.items())[1:])
    alone = {key: layer.weight() for key, layer in layers.items()}
    together = weights(layers)
    assert list(together) == list(layers)
    gradients = []
    for found in (alone, together):
        assert all(found[key].shape == layer.shape for key, layer in layers.items())
        network.zero_grad()
        sum(weight.pow(3).sum() for weight in found.values()).backward()
        gradients.append({key: p.grad for key, p in network.named_parameters() if p.grad is not None})
    assert all(torch.equal(alone[key], together[key]) for key in layers)
    assert gradients[0].keys() == gradients[1].keys()
    for key, gradient in gradients[0].items():
        # The sum over relations is in another order where bases are mixed.
        torch.testing.assert_close(gradients[1][key], gradient, **({} if name == "bases" else dict(rtol=0, atol=0)))


@pytest.mark.parametrize(
    "spans",
    [
        {"q": (0, 3), "k": (3, 1), "v": (4, 2)},
        {"v": (4, 2), "q": (0, 3)},  # out of order, with rows between that are no layer's
        {"q": (0, 4), "k": (2, 4)},  # overlapping
    ],
)
def test_parts_that_are_spread_over_heads_are_those_of_each_alone(spans):
    layers = by_head(spans)
    weight = next(iter(layers.values())).module.weight
    alone = {name: layer.weight() for name, layer in layers.items()}
    together = weights(layers)
    assert all(torch.equal(alone[name], together[name]) for name in layers)
    ours, theirs = (
        torch.autograd.grad(sum(part.pow(3).sum() for part in found.values()), weight) for found in (together, alone)
    )
    assert torch.equal(ours[0], theirs[0])


@pytest.mark.parametrize("make", [WERankPenalty, SOPenalty, DSOPenalty, SRIPPenalty])
@pytest.mark.parametrize(
    ("build", "owner", "count"),
    [(experts, "experts", 6), (relations, "", 6), (fused, "qkv", 3), (lambda: nn.Conv2d(6, 4, 3, groups=2), "", 2)],
)
def test_a_penalty_computes_a_shared_weight_once_forward_and_once_backward(make, build, owner, count):
    torch.manual_seed(0)
    network, counter = build(), Counted()
    parametrize.register_parametrization(network.get_submodule(owner), "weight", counter)
    layers = layer_map(network)
    assert len(layers) == count
    counter.forwards.clear()
    sum(make()(layers).values()).backward()
    assert (len(counter.forwards), len(counter.backwards)) == (1, 1)


def test_measuring_computes_a_shared_weight_once():
    torch.manual_seed(0)
    network, counter = nn.Sequential(nn.Conv2d(6, 4, 3, groups=2), nn.Flatten()), Counted()
    parametrize.register_parametrization(network[0], "weight", counter)
    counter.forwards.clear()
    found = measure(network, [torch.randn(3, 6, 3, 3)])
    assert set(found.ranks["layers"]) == {"0.group0", "0.group1"}
    assert len(counter.forwards) == 2  # the forward pass and the reading


def test_one_part_of_a_stack_can_be_penalised_alone():
    torch.manual_seed(0)
    network = experts()
    chosen = {"experts.weight.*": 0.0, "experts.weight.1": 1.0, "experts.weight.4": 1.0}
    WERank(network, coefficient=chosen)().backward()
    assert (network["experts"].weight.grad.flatten(1).norm(dim=1) > 0).nonzero().flatten().tolist() == [1, 4]
    assert list(weights(select(layer_map(network), "experts.weight.2"))) == ["experts.weight.2"]


class Module(nn.Module):
    """What ``penalty_gradients`` reads of a module: its layers and their penalties."""

    def __init__(self, network: nn.Module, penalty: nn.Module) -> None:
        super().__init__()
        self.network, self.penalty, self.layers = network, penalty, layer_map(network)

    def weight_penalties(self, step: int):
        for name, value in self.penalty(self.layers).items():
            yield "penalty", name, value, 0.5


@pytest.mark.parametrize("make", [WERankPenalty, SRIPPenalty])
def test_gradients_of_penalties_are_compared_where_layers_share_a_tensor(make):
    torch.manual_seed(0)
    network, x = experts(), torch.randn(5)
    stack = network["experts"]
    parametrize.register_parametrization(stack, "weight", Counted())
    module = Module(network, make())
    objective = (stack.weight @ x).square().sum()
    (own,) = torch.autograd.grad(objective, stack.parametrizations.weight.original, retain_graph=True)
    (objective + sum(value * 0.5 for *_, value, _ in module.weight_penalties(0))).backward()
    found = penalty_gradients(module, 0)
    assert list(found) == list(module.layers)
    ours = stack.parametrizations.weight.original.grad - own
    for k, row in enumerate(found.values()):
        assert row["norm_ratio"] == pytest.approx(float(ours[k].norm() / own[k].norm()), rel=1e-3)
