"""Low-rank adapters of PEFT count in the weight that acts; needs that library."""

import pytest
import torch
from torch import nn

from sslcollapse.layers.map import layer_coverage, layer_map

peft = pytest.importorskip("peft")


def adapted(**options) -> nn.Module:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["0"], init_lora_weights=False, **options)
    return peft.get_peft_model(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)), config).eval()


def holds(network: nn.Module) -> bool:
    layer = layer_map(network)["base_model.model.0"]
    x = torch.randn(5, 8)
    return torch.allclose(layer.module(x), x @ layer.weight().t() + layer.module.base_layer.bias, atol=1e-5)


def test_an_adapter_is_in_the_weight_of_its_layer_merged_or_not_or_disabled():
    network = adapted()
    layers = layer_map(network)
    assert list(layers) == ["base_model.model.0", "base_model.model.2"]
    assert holds(network)
    with network.disable_adapter():
        assert holds(network)
    network.merge_adapter()
    assert holds(network)
    with network.disable_adapter():
        assert holds(network)


def test_the_gradient_of_an_adapted_weight_reaches_the_adapter():
    network = adapted()
    layer_map(network)["base_model.model.0"].weight().square().sum().backward()
    with_gradient = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert with_gradient == {f"base_model.model.0.lora_{side}.default.weight" for side in "AB"}


def test_a_variant_of_an_adapter_that_is_not_read_is_named():
    (left,) = layer_coverage(adapted(use_dora=True)).unread
    assert left.name == "base_model.model.0"
    assert "variant of LoRA" in left.reason
