import pytest
import torch
from lightly.loss.vicreg_loss import covariance_loss, variance_loss

from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.types import Branch
from sslcollapse.objectives.vicreg import VICReg
from sslcollapse.regularizers.variance_covariance import CovariancePenalty, VariancePenalty

ALONE = Gather(enabled=False)


def features(shape=(9, 4)):
    torch.manual_seed(0)
    return [0.5 * torch.randn(shape, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
@pytest.mark.parametrize(
    ("penalty", "theirs"), [(VariancePenalty(), variance_loss), (CovariancePenalty(), covariance_loss)]
)
def test_values_and_gradients_are_means_over_views_of_those_of_lightly(shape, penalty, theirs):
    mine, other = ([view.clone().requires_grad_() for view in features(shape)] for _ in range(2))
    value = penalty(mine, ALONE)
    expected = (theirs(other[0]) + theirs(other[1])) / 2
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_coefficients_of_25_and_2_on_the_embedding_are_the_terms_of_vicreg():
    views = features()
    terms = VICReg()([Branch(view, view, None) for view in views], None, ALONE)
    torch.testing.assert_close(25 * VariancePenalty()(views, ALONE), terms["variance"])
    torch.testing.assert_close(2 * CovariancePenalty()(views, ALONE), terms["covariance"])


def test_variance_is_penalised_below_the_target_only():
    (view, _) = features()
    view = view / view.std(0)
    assert float(VariancePenalty(target=0.5)([view], ALONE)) == 0.0
    assert float(VariancePenalty(target=2.0)([view], ALONE)) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("make", [VariancePenalty, CovariancePenalty])
def test_constant_features_have_finite_gradients_and_half_precision_is_computed_in_float32(make):
    view = torch.ones(5, 3).half().requires_grad_()
    value = make()([view], ALONE)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(view.grad).all()


@pytest.mark.parametrize("make", [VariancePenalty, CovariancePenalty])
def test_a_single_sample_is_refused(make):
    with pytest.raises(RecipeError, match=r"regularizer '\w+' compares samples .* at least 2 in a batch, got 1"):
        make()([torch.ones(1, 3)], ALONE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 0.0}, "target must be positive, got 0.0"),
        ({"eps": -1.0}, "eps must be positive, got -1.0"),
        ({"on": []}, r"on must be a list of representation, embedding, prediction, layers .* got \[\]"),
        ({"on": "embedding"}, "on must be a list of .* got 'embedding'"),
    ],
)
def test_impossible_arguments_are_refused_with_their_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        VariancePenalty(**arguments)


def test_a_kind_of_feature_that_is_named_twice_is_refused():
    with pytest.raises(ValueError, match=r"feature or layer once, got \['embedding', 'embedding'\]"):
        VariancePenalty(on=["embedding", "embedding"])
