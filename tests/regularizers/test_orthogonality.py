import pytest
import torch
from torch import nn

from sslcollapse.layers.map import layer_map
from sslcollapse.regularizers.orthogonality import DSOPenalty, SOPenalty, SRIPPenalty, isometry_defect

SHAPES = [(3, 5), (5, 3), (4, 4)]


def penalised(penalty, values):
    """Penalty and gradient of one weight, through the layer map."""
    linear = nn.Linear(values.shape[1], values.shape[0], bias=False).double()
    with torch.no_grad():
        linear.weight.copy_(values)
    (layer,) = layer_map(linear).values()
    value = penalty({"weight": layer})["weight"]
    value.backward()
    return value.detach(), linear.weight.grad, penalty.floor(layer)


def gram_defects(weight):
    return [g - torch.eye(len(g), dtype=weight.dtype) for g in (weight @ weight.T, weight.T @ weight)]


@pytest.mark.parametrize("shape", SHAPES)
def test_so_is_the_squared_norm_of_the_output_gram_minus_the_identity(shape):
    weight = torch.randn(shape, dtype=torch.float64)
    value, gradient, _ = penalised(SOPenalty(), weight)
    torch.testing.assert_close(value, gram_defects(weight)[0].square().sum())
    torch.testing.assert_close(gradient, 4 * gram_defects(weight)[0] @ weight)


@pytest.mark.parametrize("shape", SHAPES)
def test_dso_is_the_sum_for_both_grams_and_its_gradient_twice_that_of_so(shape):
    weight = torch.randn(shape, dtype=torch.float64)
    value, gradient, floor = penalised(DSOPenalty(), weight)
    torch.testing.assert_close(value, sum(defect.square().sum() for defect in gram_defects(weight)))
    torch.testing.assert_close(gradient, 2 * penalised(SOPenalty(), weight)[1])
    assert floor == abs(shape[0] - shape[1])
    orthogonal = torch.eye(*shape, dtype=torch.float64)
    assert float(penalised(DSOPenalty(), orthogonal)[0]) == pytest.approx(floor)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gram", ["output", "input", "smaller"])
def test_srip_converges_to_the_spectral_norm_of_the_gram_minus_the_identity(shape, gram):
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64)
    sides = dict(zip(("output", "input"), gram_defects(weight), strict=True))
    sides["smaller"] = min(sides.values(), key=len)
    value, gradient, floor = penalised(SRIPPenalty(gram=gram, iterations=200), weight)
    torch.testing.assert_close(value, torch.linalg.matrix_norm(sides[gram], 2))
    assert value >= floor
    leaf = weight.clone().requires_grad_()
    smaller = leaf @ leaf.T if shape[0] <= shape[1] else leaf.T @ leaf
    torch.linalg.matrix_norm(smaller - torch.eye(len(smaller), dtype=torch.float64), 2).backward()
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-5, atol=1e-8)


def test_srip_with_few_iterations_is_an_estimate_from_below_with_its_own_exact_gradient():
    weights = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    exact = torch.linalg.matrix_norm(weights @ weights.mT - torch.eye(4, dtype=torch.float64), 2)
    coarse, finer = isometry_defect(weights, 1), isometry_defect(weights, 6)
    assert ((coarse > 0) & (coarse < finer) & (finer <= exact + 1e-12)).all()
    for iterations in (1, 2, 3):
        assert torch.autograd.gradcheck(lambda w, k=iterations: isometry_defect(w, k), [weights])


def test_srip_repeats_itself_and_stacking_weights_of_one_shape_changes_nothing():
    weights = torch.randn(3, 4, 6, dtype=torch.float64)
    together = isometry_defect(weights)
    assert torch.equal(together, isometry_defect(weights))
    torch.testing.assert_close(together, torch.cat([isometry_defect(weight[None]) for weight in weights]))


@pytest.mark.parametrize("special", [torch.zeros(4, 6), torch.eye(4, 6), torch.ones(4, 6), 1e3 * torch.ones(4, 6)])
def test_srip_is_finite_with_finite_gradients_at_zero_orthogonal_and_large_weights(special):
    weight = special.clone().requires_grad_()
    value = isometry_defect(weight[None], iterations=8)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(weight.grad).all()


def test_half_precision_weights_are_penalised_in_float32():
    value = isometry_defect((300 * torch.randn(1, 8, 16)).half())
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all()


@pytest.mark.parametrize("make", [SOPenalty, DSOPenalty, SRIPPenalty])
def test_gradients_reach_convolutions_and_each_part_of_a_fused_qkv(make):
    network = nn.ModuleDict({"conv": nn.Conv2d(3, 5, 3), "attention": nn.ModuleDict({"qkv": nn.Linear(4, 12)})})
    network["attention"].fused_maps = {"qkv": {"q": 4, "k": 4, "v": 4}}
    layers = layer_map(network)
    assert [layer.shape for layer in layers.values()] == [(5, 27), (4, 4), (4, 4), (4, 4)]
    sum(make()(layers).values()).backward()
    assert (network["conv"].weight.grad.flatten(1).abs().sum(1) > 0).all()
    assert (network["attention"]["qkv"].weight.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"iterations": 0}, "iterations must be at least 1, got 0"), ({"gram": "both"}, "gram must be .* got 'both'")],
)
def test_impossible_arguments_of_srip_are_refused_with_their_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        SRIPPenalty(**arguments)


@pytest.mark.parametrize("penalty", [SOPenalty, DSOPenalty, SRIPPenalty])
def test_a_network_that_is_named_twice_is_refused(penalty):
    with pytest.raises(ValueError, match=r"networks must name each network once, got \['encoder', 'encoder'\]"):
        penalty(networks=["encoder", "encoder"])
