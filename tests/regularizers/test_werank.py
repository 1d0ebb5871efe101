import math

import pytest
import torch
from torch import nn

from sslcollapse.layers.map import layer_map
from sslcollapse.regularizers.orthogonality import DSOPenalty, SOPenalty, SRIPPenalty, isometry_defect
from sslcollapse.regularizers.werank import WERankPenalty, orthogonality_defect, orthogonality_defects

SHAPES = [(3, 5), (5, 3), (4, 4), (515, 530)]  # the last is computed by panels


def reference(weight, squared, gram):
    """The definition with the Gram that was asked for."""
    sides = {"output": weight @ weight.t(), "input": weight.t() @ weight}
    sides["smaller"] = min(sides.values(), key=lambda matrix: matrix.shape[0])
    square = (sides[gram] - torch.eye(sides[gram].shape[0], dtype=weight.dtype)).square().sum()
    return square if squared else square.sqrt()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("gram", ["output", "input", "smaller"])
@pytest.mark.parametrize("transposed_storage", [False, True])
def test_closed_form_value_and_gradient_equal_autograd_of_the_definition(shape, squared, gram, transposed_storage):
    torch.manual_seed(0)
    values = torch.randn(*shape, dtype=torch.float64)
    if transposed_storage:
        values = values.t().contiguous().t()
    ours, theirs = (values.clone().requires_grad_() for _ in range(2))
    value = orthogonality_defect(ours, squared=squared, gram=gram)
    expected = reference(theirs, squared, gram)
    torch.testing.assert_close(value, expected)
    (3.0 * value).backward()
    (3.0 * expected).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("squared", [False, True])
def test_gradient_is_zero_and_finite_at_an_exactly_orthogonal_weight(squared):
    weight = torch.eye(4, 6, requires_grad=True)
    value = orthogonality_defect(weight, squared=squared)
    value.backward()
    assert float(value.detach()) == 0.0
    assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_squared_penalty_gradient_is_the_same_for_both_grams():
    weight = torch.randn(4, 7, dtype=torch.float64)
    gradients = []
    for gram in ("output", "input"):
        leaf = weight.clone().requires_grad_()
        orthogonality_defect(leaf, squared=True, gram=gram).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_unsquared_gradients_of_both_grams_share_the_direction_and_differ_by_the_ratio_of_the_norms():
    weight = torch.randn(4, 7, dtype=torch.float64)
    gradients, values = [], []
    for gram in ("output", "input"):
        leaf = weight.clone().requires_grad_()
        values.append(orthogonality_defect(leaf, gram=gram))
        values[-1].backward()
        gradients.append(leaf.grad)
    assert float(values[1].detach()) > float(values[0].detach())
    torch.testing.assert_close(gradients[0] * values[0].detach(), gradients[1] * values[1].detach())


@pytest.mark.parametrize("squared", [False, True])
def test_a_singular_value_of_exactly_zero_gets_no_gradient(squared):
    left, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64))
    weight = (left * torch.tensor([2.0, 0.7, 0.1, 0.0])) @ right.t()
    weight.requires_grad_()
    orthogonality_defect(weight, squared=squared).backward()
    along = torch.einsum("ij,ik,kj->j", left, weight.grad, right)  # d penalty / d each singular value
    assert abs(float(along[3])) < 1e-12
    assert float(along[2]) < -1e-3  # a small singular value is pushed up, an exactly zero one is not


@pytest.mark.parametrize(
    ("shape", "gram", "floor"), [((3, 5), "output", 0), ((5, 3), "output", 2), ((3, 5), "input", 2)]
)
def test_the_floor_is_reached_by_an_orthogonal_weight(shape, gram, floor):
    holder = nn.Sequential(nn.Linear(shape[1], shape[0]))
    layer = next(iter(layer_map(holder).values()))
    with torch.no_grad():
        holder[0].weight.copy_(torch.eye(*shape))
    for squared in (False, True):
        penalty = WERankPenalty(gram=gram, squared=squared)
        value = penalty({"0": layer})["0"]
        assert penalty.floor(layer) == pytest.approx(float(floor) if squared else math.sqrt(floor))
        assert float(value.detach()) == pytest.approx(penalty.floor(layer))


def test_half_precision_weights_are_penalised_in_float32():
    weight = (300 * torch.randn(8, 16)).half().requires_grad_()  # its Gram overflows half precision
    value = orthogonality_defect(weight)
    assert value.dtype == torch.float32
    assert torch.isfinite(value)


def test_an_unknown_gram_side_is_refused():
    with pytest.raises(ValueError, match="gram must be 'output', 'input' or 'smaller', got 'both'"):
        orthogonality_defect(torch.eye(2), gram="both")


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("gram", ["output", "input", "smaller"])
def test_weights_of_one_shape_multiplied_together_have_the_values_and_gradients_of_each_alone(squared, gram):
    torch.manual_seed(0)
    shapes = [(3, 5), (5, 3), (3, 5), (4, 4), (3, 5)]
    values = {f"layer{k}": torch.randn(shape, dtype=torch.float64) for k, shape in enumerate(shapes)}
    values["orthogonal"] = torch.eye(3, 5, dtype=torch.float64)
    results = []
    for grouped in (False, True):
        leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
        defects = orthogonality_defects(leaves, squared=squared, gram=gram, grouped=grouped)
        assert list(defects) == list(values)
        sum((k + 1) * defect for k, defect in enumerate(defects.values())).backward()
        results.append((defects, {name: leaf.grad for name, leaf in leaves.items()}))
    for name in values:
        torch.testing.assert_close(results[0][0][name], results[1][0][name])
        torch.testing.assert_close(results[0][1][name], results[1][1][name])


def test_weights_multiplied_together_are_as_many_products_as_there_are_shapes():
    weights = {str(k): torch.randn(3 + k % 2, 5, requires_grad=True) for k in range(8)}
    with torch.profiler.profile() as profile:
        sum(orthogonality_defects(weights, grouped=True).values()).backward()
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls["aten::bmm"] == 2 * 2  # a value and a gradient for each of two shapes
    assert "aten::mm" not in calls


def test_half_precision_weights_multiplied_together_are_penalised_in_float32():
    weights = {str(k): (300 * torch.randn(8, 16)).half().requires_grad_() for k in range(2)}
    values = orthogonality_defects(weights, grouped=True)
    sum(values.values()).backward()
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in values.values())
    assert all(weight.grad.dtype == torch.float16 for weight in weights.values())


@pytest.mark.parametrize("grouped", [False, True])
def test_gradients_reach_convolutions_and_each_part_of_a_fused_qkv(grouped):
    network = nn.ModuleDict({"conv": nn.Conv2d(3, 5, 3), "attention": nn.ModuleDict({"qkv": nn.Linear(4, 12)})})
    network["attention"].fused_maps = {"qkv": {"q": 4, "k": 4, "v": 4}}
    layers = layer_map(network)
    assert list(layers) == ["conv", "attention.qkv.q", "attention.qkv.k", "attention.qkv.v"]
    weights = {name: layer.weight() for name, layer in layers.items()}
    defects = orthogonality_defects(weights, grouped=grouped)
    for name, value in WERankPenalty()(layers).items():
        torch.testing.assert_close(defects[name], value)
    sum(defects.values()).backward()
    assert (network["conv"].weight.grad.flatten(1).abs().sum(1) > 0).all()
    assert (network["attention"]["qkv"].weight.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("make", [WERankPenalty, SOPenalty, DSOPenalty, SRIPPenalty])
def test_a_unitary_weight_has_no_penalty_and_a_complex_one_that_of_its_singular_values(make):
    torch.manual_seed(0)
    model = nn.Linear(6, 6, bias=False, dtype=torch.complex64)
    layers = layer_map(model)
    with torch.no_grad():
        model.weight.copy_(torch.linalg.qr(model.weight)[0])
    (value,) = make()(layers).values()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(0.0, abs=1e-5)
    with torch.no_grad():
        model.weight.mul_(torch.linspace(0.5, 2.0, 6)[:, None])  # singular values
    (value,) = make(**({"iterations": 60} if make is SRIPPenalty else {}))(layers).values()
    square = (torch.linspace(0.5, 2.0, 6).square() - 1).square()
    expected = {
        WERankPenalty: square.sum().sqrt(),
        SOPenalty: square.sum(),
        DSOPenalty: 2 * square.sum(),
        SRIPPenalty: square.max().sqrt(),
    }
    torch.testing.assert_close(value, expected[make], rtol=1e-4, atol=1e-4)
    value.backward()
    assert torch.isfinite(torch.view_as_real(model.weight.grad)).all()


@pytest.mark.parametrize("scale", [1e10, 1e18])
@pytest.mark.parametrize("make", [WERankPenalty, SRIPPenalty])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_weights_whose_gram_overflows_have_the_value_and_gradient_of_float64(scale, make, dtype):
    torch.manual_seed(0)
    start = scale * torch.randn(1, 6, 8, dtype=dtype)
    results = []
    for weight in (start.clone(), start.to(torch.promote_types(dtype, torch.float64))):
        weight.requires_grad_()
        value = isometry_defect(weight) if make is SRIPPenalty else orthogonality_defect(weight[0])
        value.sum().backward()
        results.append((value.detach().double(), weight.grad.to(torch.complex128)))
    torch.testing.assert_close(*(value for value, _ in results), rtol=1e-5, atol=0)
    torch.testing.assert_close(*(gradient for _, gradient in results), rtol=1e-4, atol=float(scale) * 1e-5)


def test_a_square_too_large_for_float32_is_given_in_float64_and_an_infinite_weight_stays_infinite():
    weight = torch.full((3, 4), 1e10, requires_grad=True)
    value = orthogonality_defect(weight, squared=True)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(9 * 16e40, rel=1e-6)
    value.backward()
    assert torch.isfinite(weight.grad).all()
    assert not torch.isfinite(orthogonality_defect(torch.full((3, 4), torch.inf)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_grouped_weights_whose_sum_of_squares_overflows_have_the_values_and_gradients_of_each_alone(dtype):
    torch.manual_seed(0)
    weights = {name: (1e10 * torch.randn(6, 8, dtype=dtype)).requires_grad_() for name in "ab"}
    values = orthogonality_defects(weights, grouped=True)
    for name, weight in weights.items():
        alone = weight.detach().requires_grad_()
        expected = orthogonality_defect(alone)
        expected.backward()
        torch.testing.assert_close(values[name], expected)
        (gradient,) = torch.autograd.grad(values[name], weight, retain_graph=True)
        torch.testing.assert_close(gradient, alone.grad)


@pytest.mark.parametrize("make", [WERankPenalty, SRIPPenalty])
def test_a_network_on_the_meta_device_is_refused_with_its_layer(make):
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(
        ValueError, match=r"the weight of layer '0' must be .* is on the meta device, .* load its values"
    ):
        make()(layer_map(model))


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (WERankPenalty, {"gram": "ouput"}, "gram must be 'output', 'input' or 'smaller', got 'ouput'"),
        (SOPenalty, {"gram": "ouput"}, "gram must be 'output', 'input' or 'smaller', got 'ouput'"),
        (SRIPPenalty, {"gram": "ouput"}, "gram must be 'output', 'input' or 'smaller', got 'ouput'"),
        (WERankPenalty, {"squared": "False"}, "squared must be True or False, got 'False'"),
        (WERankPenalty, {"networks": ["encoder", "encoder"]}, r"got \['encoder', 'encoder'\]"),
        (DSOPenalty, {"networks": ["encoder", "encoder"]}, r"networks .* once, got \['encoder', 'encoder'\]"),
    ],
)
def test_impossible_arguments_are_refused_when_the_penalty_is_built(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)
