"""Every rule of the layer map, with the network that would break it."""

import pytest
import torch
import torchvision
from timm.layers import Attention
from tiny import random_graph
from torch import nn
from torch.nn.utils import parametrizations
from torch_geometric.nn.dense.linear import Linear as GeometricLinear

from sslcollapse.encoders.gcn import GCN, gcn_matrix
from sslcollapse.encoders.sage import SAGE
from sslcollapse.layers.map import LayerError, layer_map, select


def names(module):
    return list(layer_map(module))


def depths(module):
    return {name: layer.depth for name, layer in layer_map(module).items()}


def test_layers_are_ordered_by_depth_and_vectors_are_none():
    network = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.PReLU(), nn.Linear(5, 3), nn.Embedding(3, 2))
    assert depths(network) == {"0": 0, "3": 1}
    assert [layer.shape for layer in layer_map(network).values()] == [(5, 4), (3, 5)]


def test_a_network_that_is_one_layer_has_a_layer_called_weight():
    assert names(nn.Linear(4, 5)) == ["weight"]


def test_a_convolution_is_its_matrix_of_flattened_kernels():
    conv = nn.Conv2d(3, 8, (2, 5))
    layer = layer_map(conv)["weight"]
    assert layer.shape == (8, 30)
    assert torch.equal(layer.weight(), conv.weight.flatten(1))


def test_a_grouped_convolution_is_one_layer_a_group_at_one_depth():
    conv = nn.Conv2d(6, 4, 3, groups=2)
    layers = layer_map(nn.Sequential(conv, nn.Conv2d(4, 2, 1)))
    assert {name: layer.depth for name, layer in layers.items()} == {"0.group0": 0, "0.group1": 0, "1": 1}
    assert layers["0.group1"].shape == (2, 27)
    assert torch.equal(layers["0.group1"].weight(), conv.weight[2:].flatten(1))


def test_a_fused_query_key_value_map_is_three_layers():
    attention = Attention(4, num_heads=2)
    layers = layer_map(attention)
    assert list(layers) == ["qkv.q", "qkv.k", "qkv.v", "proj"]
    assert torch.equal(layers["qkv.k"].weight(), attention.qkv.weight[4:8])
    assert [layer.depth for layer in layers.values()] == [0, 0, 0, 1]


@pytest.mark.parametrize("widths", [{}, {"kdim": 3, "vdim": 5}])
def test_multihead_attention_has_its_three_inputs_and_its_output(widths):
    attention = nn.MultiheadAttention(4, 2, **widths)
    layers = layer_map(attention)
    assert list(layers) == ["in_proj.q", "in_proj.k", "in_proj.v", "out_proj"]
    assert [layer.depth for layer in layers.values()] == [0, 0, 0, 1]
    assert layers["in_proj.v"].shape == (4, widths.get("vdim", 4))


def test_a_tied_weight_appears_once_under_its_first_name():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    assert names(network) == ["0"]


def test_linear_layers_of_pytorch_geometric_are_layers():
    assert names(nn.Sequential(GeometricLinear(4, 5))) == ["0"]


def test_a_parallel_shortcut_shares_its_blocks_depth():
    depth = depths(torchvision.models.resnet18(weights=None))
    assert depth["layer2.0.downsample.0"] == depth["layer2.0.conv2"]
    assert depth["layer2.1.conv1"] == depth["layer2.0.conv2"] + 1
    assert next(iter(depth)) == "conv1"
    assert max(depth, key=depth.get) == "fc"


def test_a_downsampling_before_a_stage_is_no_shortcut():
    stage = nn.Module()
    stage.downsample = nn.Conv2d(3, 8, 2)
    stage.blocks = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    assert depths(stage) == {"downsample": 0, "blocks.0": 1, "blocks.1": 2}


def test_input_skips_of_sage_share_the_depth_of_the_layer_they_are_added_to():
    depth = depths(SAGE(7, hidden=[6, 6, 6]))
    for k in range(2):
        convs = [value for name, value in depth.items() if name.startswith(f"convs.{k}.") or name == f"convs.{k}"]
        assert depth[f"skips.{k}"] == max(convs)


def test_weight_standardisation_counts_in_the_effective_weight():
    torch.manual_seed(0)
    encoder = GCN(12, hidden=[8, 6], weight_standardization=True, norm="none", activation="none")
    layer = layer_map(encoder)["convs.1"]
    rows = layer.weight().detach()
    torch.testing.assert_close(rows.mean(1), torch.zeros(6), rtol=0, atol=1e-6)
    torch.testing.assert_close(rows.var(1), torch.ones(6), rtol=1e-2, atol=0)
    assert not torch.allclose(rows, layer.parameter)
    view = random_graph()
    x, adjacency = torch.randn(60, 8), view.adjacency(gcn_matrix)
    expected = adjacency @ (x @ rows.t()) + encoder.convs[1].bias
    torch.testing.assert_close(encoder.convs[1](x, adjacency), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "wrap", [parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal]
)
def test_a_parametrized_weight_is_the_one_the_forward_pass_multiplies_with(wrap):
    torch.manual_seed(0)
    linear = wrap(nn.Linear(4, 4)).eval()
    layer = layer_map(nn.Sequential(linear))["0"]
    x = torch.randn(3, 4)
    torch.testing.assert_close(linear(x), x @ layer.weight().t() + linear.bias)
    layer.weight().square().sum().backward()
    assert layer.parameter.grad is not None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrap", [torch.nn.utils.weight_norm, torch.nn.utils.spectral_norm])
def test_a_weight_kept_by_an_older_norm_hook_is_as_new_as_its_parameters(wrap):
    torch.manual_seed(0)
    linear = wrap(nn.Linear(4, 4)).eval()
    layer = layer_map(nn.Sequential(linear))["0"]
    linear(torch.zeros(1, 4))
    with torch.no_grad():
        layer.parameter.add_(torch.randn(4, 4))
    x = torch.randn(3, 4)
    expected = layer.weight().detach()
    torch.testing.assert_close(linear(x), x @ expected.t() + linear.bias)


def test_the_gradient_of_a_weight_reaches_the_stored_parameter_and_rows_are_its_part():
    attention = nn.MultiheadAttention(4, 2)
    layer = layer_map(attention)["in_proj.k"]
    layer.weight().sum().backward()
    gradient = attention.in_proj_weight.grad
    assert torch.equal(layer.rows(gradient), torch.ones(4, 4))
    assert gradient.abs().sum() == 16


def test_a_lazy_layer_is_refused_with_what_to_do():
    with pytest.raises(LayerError, match=r"layer '0' has no weight yet: .* run the network once"):
        layer_map(nn.Sequential(nn.LazyLinear(3)))


def test_what_is_no_module_is_refused():
    with pytest.raises(LayerError, match=r"needs a torch.nn.Module, got list"):
        layer_map([nn.Linear(2, 2)])


def test_selection_is_by_exact_name_then_by_glob():
    layers = layer_map(GCN(4, hidden=[3, 3, 2]))
    assert list(select(layers, "convs.1")) == ["convs.1"]
    assert list(select(layers, "convs.*")) == ["convs.0", "convs.1", "convs.2"]
    with pytest.raises(LayerError, match=r"'conv.0' matches no layer; did you mean 'convs.0'\? \(layers: convs.0, "):
        select(layers, "conv.0")


def test_mapping_a_network_changes_nothing_in_it():
    network = torchvision.models.resnet18(weights=None)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    layer_map(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_depthwise_convolution_has_only_vectors_and_is_no_layer():
    assert names(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1))) == ["1"]
    assert names(nn.Sequential(nn.Conv2d(4, 8, 3, groups=4))) == [f"0.group{k}" for k in range(4)]
    assert names(nn.Sequential(nn.Conv2d(3, 1, 3))) == ["0"]
