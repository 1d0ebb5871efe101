"""The weight of a layer is the one that acts, and reading it changes nothing; what cannot be known is no layer."""

import copy
import math

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from timm.layers import Conv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune
from torch_geometric.nn import HeteroLinear, RGCNConv

from sslcollapse import CollapseMonitor, WERank, effective_rank, orthogonality_defect
from sslcollapse.layers.map import LayerError, layer_coverage, layer_map


def only(module: nn.Module):
    (layer,) = layer_map(module).values()
    return layer


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("kind", [StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, Conv2dSame])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_of_timm_multiplies_with_the_weight_of_its_layers(kind, groups):
    torch.manual_seed(0)
    conv = kind(6, 4, 3, padding=1, groups=groups, bias=False)
    if hasattr(conv, "gain"):
        nn.init.uniform_(conv.gain, 0.5, 2.0)
    x = torch.randn(2, 6, 5, 5)
    rows = torch.cat([layer.weight() for layer in layer_map(conv).values()])
    weight = rows.view_as(conv.weight)
    torch.testing.assert_close(conv(x), functional.conv2d(x, weight, padding=1, groups=groups), rtol=1e-4, atol=1e-5)
    (ours,) = torch.autograd.grad(functional.conv2d(x, weight, padding=1, groups=groups).square().sum(), conv.weight)
    (theirs,) = torch.autograd.grad(conv(x).square().sum(), conv.weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_standardised_convolution_is_measured_as_it_acts():
    torch.manual_seed(0)
    conv = StdConv2d(64, 64, 1)
    nn.init.normal_(conv.weight, 5.0, 0.1)
    x = torch.eye(64).view(64, 64, 1, 1)
    acting = conv(x).flatten(1).t().detach()
    rank = float(effective_rank(only(conv).weight().detach()))
    assert rank == pytest.approx(float(effective_rank(acting)), rel=1e-4)
    assert rank > 45 > 5 > float(effective_rank(conv.weight.detach().flatten(1)))
    penalty = WERank(conv, coefficient=1.0)().detach()
    assert float(penalty) == pytest.approx(float(orthogonality_defect(acting)), rel=1e-4)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm", "orthogonal"])
@pytest.mark.parametrize("training", [True, False])
def test_reading_a_parametrized_weight_moves_nothing_and_is_what_a_pass_in_eval_mode_uses(name, training):
    torch.manual_seed(0)
    linear = getattr(parametrizations, name)(nn.Linear(6, 4)).train(training)
    with torch.no_grad():
        next(linear.parametrizations.weight.parameters()).add_(0.1)
    before = state(linear)
    modes = [module.training for module in linear.modules()]
    weight = only(linear).weight()
    assert all(torch.equal(value, before[name]) for name, value in linear.state_dict().items())
    assert modes == [module.training for module in linear.modules()]
    torch.testing.assert_close(weight, linear.eval().weight)


def test_a_chain_of_parametrizations_is_followed_to_its_end():
    class Symmetric(nn.Module):
        def forward(self, x):
            return x.triu() + x.triu(1).t()

    linear = parametrizations.spectral_norm(nn.Linear(4, 4))
    parametrize.register_parametrization(linear, "weight", Symmetric())
    weight = only(linear.train()).weight()
    torch.testing.assert_close(weight, weight.t())
    torch.testing.assert_close(weight, linear.eval().weight)


def test_a_pruned_weight_has_its_mask_and_the_newest_values():
    torch.manual_seed(0)
    linear = nn.Linear(64, 64)
    prune.ln_structured(linear, "weight", 0.95, n=2, dim=0)
    layer = only(linear)
    with torch.no_grad():
        linear.weight_orig.mul_(2.0)  # the attribute 'weight' is as old as the last forward pass
    assert float(effective_rank(layer.weight().detach())) == pytest.approx(3.0, abs=0.1)
    weight = layer.weight()
    linear(torch.zeros(1, 64))
    assert torch.equal(weight, linear.weight)
    weight.square().sum().backward()
    assert torch.equal(layer.parameter.grad != 0, linear.weight_mask.bool())


def test_a_weight_that_was_pruned_twice_has_both_masks():
    linear = nn.Linear(8, 8)
    prune.random_unstructured(linear, "weight", 0.3)
    prune.random_unstructured(linear, "weight", 0.3)
    assert torch.equal(only(linear).weight(), linear.weight_orig * linear.weight_mask)


class Doubled(nn.Linear):
    def forward(self, x):
        return functional.linear(x, 2 * self.weight, self.bias)


class Blurred(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight / 2, bias)


@pytest.mark.parametrize(("kind", "arguments"), [(Doubled, (4, 3)), (Blurred, (4, 3, 1))])
def test_a_subclass_with_a_forward_of_its_own_is_no_layer_and_is_named(kind, arguments):
    network = nn.Sequential(nn.Linear(5, 4), kind(*arguments))
    assert list(layer_map(network)) == ["0"]
    (left,) = layer_coverage(network).unread
    assert (left.name, left.parameters) == ("1", 12)
    assert f"{kind.__name__} has a forward of its own" in left.reason
    assert "effective_weight()" in left.reason


def test_a_subclass_that_says_its_weight_is_a_layer():
    class Said(Doubled):
        def effective_weight(self):
            return 2 * self.weight

    linear = Said(4, 3)
    assert torch.equal(only(linear).weight(), 2 * linear.weight)


def test_a_subclass_without_a_forward_and_a_hooked_module_are_layers():
    class Named(nn.Linear):
        pass

    hooked = add_hook_to_module(nn.Linear(3, 3), ModelHook())
    assert list(layer_map(nn.Sequential(Named(2, 3), hooked))) == ["0", "1"]
    replaced = nn.Linear(3, 3)
    replaced.forward = lambda x: x
    assert list(layer_map(nn.Sequential(replaced))) == []


def test_a_weight_that_is_no_parameter_is_named_and_the_rest_is_mapped():
    linear = nn.Linear(4, 3)
    weight = linear.weight
    del linear.weight
    linear.hidden = weight
    linear.weight = 2 * weight
    network = nn.Sequential(linear, nn.Linear(3, 2))
    assert list(layer_map(network)) == ["1"]
    (left,) = layer_coverage(network).unread
    assert (left.name, left.parameters) == ("0", 12)
    assert "no parameter" in left.reason


def relational(**options) -> tuple[RGCNConv, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    conv = RGCNConv(6, 4, num_relations=3, bias=False, aggr="sum", **options)
    return conv, torch.randn(5, 6), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]), torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize("options", [{}, dict(num_bases=2), dict(num_bases=3)])
def test_the_relations_of_a_graph_convolution_are_layers_as_it_multiplies_with_them(options):
    conv, x, edges, kinds = relational(**options)
    layers = layer_map(nn.Sequential(conv))
    assert list(layers) == ["0.weight.0", "0.weight.1", "0.weight.2", "0.root"]
    assert {layer.shape for layer in layers.values()} == {(4, 6)}
    assert {layer.depth for layer in layers.values()} == {0}
    matrices = [layer.weight() for layer in layers.values()]
    expected = x @ matrices[3].t()
    for source, target, kind in zip(*edges.tolist(), kinds.tolist(), strict=True):
        expected[target] = expected[target] + matrices[kind] @ x[source]
    torch.testing.assert_close(conv(x, edges, kinds), expected)
    matrices[1].sum().backward()
    if options:
        with pytest.raises(LayerError, match="has no rows of a weight"):
            layers["0.weight.1"].rows(conv.weight.grad)
    else:
        assert torch.equal(layers["0.weight.1"].rows(conv.weight.grad), torch.ones(4, 6))
        assert torch.equal(layers["0.weight.0"].rows(conv.weight.grad), torch.zeros(4, 6))


def test_blocks_of_relations_are_one_layer_a_block():
    conv = relational(num_blocks=2)[0]
    layers = layer_map(conv)
    assert list(layers) == [f"weight.{k}" for k in range(6)] + ["root"]
    assert torch.equal(layers["weight.3"].weight(), conv.weight[1, 1].t())


def test_a_bilinear_map_is_one_layer_an_output():
    bilinear = nn.Bilinear(5, 3, 4)
    layers = layer_map(nn.ModuleDict({"pair": bilinear}))
    assert list(layers) == [f"pair.weight.{k}" for k in range(4)]
    x, y = torch.randn(2, 5), torch.randn(2, 3)
    out = torch.stack([(x @ layer.weight() * y).sum(1) for layer in layers.values()], 1) + bilinear.bias
    torch.testing.assert_close(bilinear(x, y), out)


def test_a_linear_map_a_type_is_one_layer_a_type():
    linear = HeteroLinear(3, 4, num_types=2, bias=False)
    layers = layer_map(linear)
    x, kinds = torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    expected = torch.stack(
        [layers[f"weight.{kind}"].weight() @ row for row, kind in zip(x, kinds.tolist(), strict=True)]
    )
    torch.testing.assert_close(linear(x, kinds), expected)


class Experts(nn.Module):
    def __init__(self, n: int = 8, width: int = 64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n, width, 1) @ torch.randn(n, 1, width))


def test_experts_are_one_layer_an_expert_and_globs_choose_them():
    network = nn.ModuleDict({"moe": nn.ModuleDict({"gate": nn.Linear(64, 8), "experts": Experts()})})
    layers = layer_map(network)
    assert list(layers) == ["moe.gate", *(f"moe.experts.weight.{k}" for k in range(8))]
    assert layers["moe.experts.weight.3"].shape == (64, 64)
    assert float(effective_rank(layers["moe.experts.weight.3"].weight().detach())) == pytest.approx(1.0, abs=1e-3)
    werank = WERank(network, coefficient={"moe.experts.weight.*": 0.0, "moe.experts.weight.3": 1.0})
    werank().backward()
    moved = network["moe"]["experts"].weight.grad.flatten(1).norm(dim=1) > 0
    assert moved.nonzero().flatten().tolist() == [3]
    assert layer_coverage(network).covered == 8 * 64 + 8 * 64 * 64


def test_affine_weights_of_several_dimensions_are_no_layers():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm([4, 6, 6]), nn.RMSNorm([6, 6]), nn.Conv2d(4, 4, 3))
    assert list(layer_map(network)) == ["0", "3"]
    coverage = layer_coverage(network)
    assert not coverage.unread
    assert [part.name for part in coverage.uncovered] == ["1.weight", "1.bias", "2.weight"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (lambda: nn.LSTM(64, 64, 2), "LSTM is recurrent"),
        (lambda: nn.GRU(64, 64), "GRU is recurrent"),
        (lambda: nn.LSTMCell(64, 64), "LSTMCell is recurrent"),
        (lambda: torch.jit.script(nn.Linear(64, 64)), "it is scripted"),
        (lambda: torch.jit.trace(nn.Linear(64, 64), torch.zeros(1, 64)), "it is scripted"),
        (lambda: torch.ao.nn.quantized.dynamic.Linear(64, 64), "Linear is quantised"),
        (lambda: torch.ao.nn.quantized.dynamic.LSTM(64, 64), "LSTM is quantised"),
        (lambda: torch.ao.nn.quantized.Conv2d(64, 64, 1), "Conv2d is quantised"),
        (lambda: nn.ConvTranspose2d(64, 64, 1), "ConvTranspose2d is a transposed convolution"),
    ],
)
def test_a_part_that_is_not_read_is_named_with_the_reason_and_its_share(part, reason):
    network = nn.Sequential(nn.Linear(32, 64), part())
    assert list(layer_map(network)) == ["0"]
    coverage = layer_coverage(network)
    (left,) = coverage.unread
    assert left.name.startswith("1")
    assert reason in left.reason
    assert left.parameters >= 64 * 64
    assert coverage.covered == 32 * 64
    assert coverage.share == pytest.approx(32 * 64 / coverage.parameters)
    assert left.parameters + coverage.covered <= coverage.parameters
    assert reason in str(coverage)


def test_an_embedding_that_is_the_output_map_as_well_is_covered():
    network = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
    network[1].weight = network[0].weight
    assert list(layer_map(network)) == ["1"]
    coverage = layer_coverage(network)
    assert (coverage.covered, coverage.parameters, coverage.uncovered) == (36, 36, ())


def test_embeddings_and_depthwise_kernels_are_listed_and_no_cause_for_a_warning(recwarn):
    network = nn.Sequential(nn.Embedding(9, 4), nn.Conv2d(4, 4, 3, groups=4), nn.Linear(4, 4))
    coverage = layer_coverage(network)
    assert {part.name for part in coverage.uncovered} == {"0.weight", "1"}
    assert not coverage.unread
    WERank(network)
    assert not recwarn.list


@pytest.mark.parametrize("attach", [WERank, CollapseMonitor])
def test_attaching_to_all_layers_warns_once_of_what_is_not_read(attach):
    network = nn.Sequential(nn.Linear(32, 64), nn.LSTM(64, 64, 2))
    with pytest.warns(UserWarning, match=rf"{attach.__name__}: the layers hold 2,048 of .*: 1 \(.*LSTM") as caught:
        attach(network)
    assert len(caught) == 1


def test_who_chooses_layers_is_not_warned(recwarn):
    WERank(nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 4)), layers="0")
    assert not recwarn.list


def test_a_network_of_which_nothing_is_read_says_what_it_has():
    with pytest.raises(LayerError, match=r"no layers; not read: LSTM \(.*LSTM is recurrent"):
        WERank(nn.LSTM(3, 4))


def test_wrappers_leave_no_trace_in_the_names_of_what_is_not_read():
    network = torch.compile(nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 4)), backend="eager")
    with pytest.warns(UserWarning, match=r"not read: 1 \("):
        WERank(network)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_of_common_models_of_timm_all_matrices_are_read(name):
    import timm

    with torch.device("meta"):
        coverage = layer_coverage(timm.create_model(name, num_classes=0))
    assert not coverage.unread
    assert coverage.share > 0.95


def test_a_map_called_qkv_of_an_unknown_class_stays_whole():
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(64, 64 + 16 + 16)  # thirds would be 32 rows each

    assert list(layer_map(nn.Sequential(Grouped()))) == ["0.qkv"]


def test_a_module_may_say_how_its_fused_map_is_cut():
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(64, 64 + 16 + 16)
            self.fused_maps = {"qkv": {"q": 64, "k": 16, "v": 16}}

    grouped = Grouped()
    layers = layer_map(grouped)
    assert {name: layer.shape[0] for name, layer in layers.items()} == {"qkv.q": 64, "qkv.k": 16, "qkv.v": 16}
    assert torch.equal(layers["qkv.v"].weight(), grouped.qkv.weight[80:])
    grouped.fused_maps = {"qkv": {"q": 64, "k": 16, "v": 17}}  # adds up to another number of rows
    assert list(layer_map(grouped)) == ["qkv"]


def test_reading_weights_and_coverage_of_a_copy_leaves_the_network_as_it_was():
    torch.manual_seed(0)
    network = nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 4)), StdConv2d(4, 4, 1))
    before, twin = state(network), copy.deepcopy(network)
    for layer in layer_map(network).values():
        layer.weight().sum().backward()
    layer_coverage(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [type(a) is type(b) for a, b in zip(network.modules(), twin.modules(), strict=True)].count(False) == 0
    assert math.isfinite(float(layer_map(twin)["0"].weight().detach().sum()))
