import pytest
import torch
from lightly.loss import BarlowTwinsLoss, VICRegLoss

from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.types import Branch
from sslcollapse.nn.moments import standardize
from sslcollapse.objectives.barlow_twins import BarlowTwins
from sslcollapse.objectives.cca_ssg import CCASSG
from sslcollapse.objectives.vicreg import VICReg

SHAPES = [(9, 4), (4, 9)]  # more samples than features, and fewer


def losses(objective, views):
    online = [Branch(view, view, None) for view in views]
    return objective(online, None, Gather(enabled=False))


def value_and_gradients(loss, shape):
    torch.manual_seed(0)
    shared = torch.randn(shape, dtype=torch.float64) + torch.arange(shape[1])
    views = [(shared + 0.5 * torch.randn_like(shared)).requires_grad_() for _ in range(2)]
    value = loss(*views)
    value.backward()
    return value.detach(), [view.grad for view in views]


def total(objective):
    return lambda *views: sum(losses(objective, views).values())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (3.0, 7.0, 2.0)])
def test_vicreg_has_the_values_and_gradients_of_lightly(shape, weights):
    invariance, variance, covariance = weights
    objective = VICReg(invariance=invariance, variance=variance, covariance=covariance)
    torch.testing.assert_close(
        value_and_gradients(total(objective), shape), value_and_gradients(VICRegLoss(*weights), shape)
    )


def barlow_twins_of_its_paper(z1, z2, weight=0.02):
    """Each view's columns standardised, their correlations brought to the identity."""
    z1, z2 = ((z - z.mean(0)) / torch.sqrt(z.var(0, correction=0) + 1e-5) for z in (z1, z2))
    correlation = z1.T @ z2 / len(z1)
    off_diagonal = correlation - torch.diag(correlation.diag())
    return (1 - correlation.diag()).square().sum() + weight * off_diagonal.square().sum()


@pytest.mark.parametrize("shape", SHAPES)
def test_barlow_twins_has_the_values_and_gradients_of_its_paper(shape):
    ours = value_and_gradients(total(BarlowTwins(redundancy=0.02)), shape)
    torch.testing.assert_close(ours, value_and_gradients(barlow_twins_of_its_paper, shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_barlow_twins_on_one_process_is_the_loss_of_lightly(shape):
    # Views of equal means and variances, since older releases standardise both views with common ones.
    views = [standardize(torch.randn(shape, dtype=torch.float64), 0.0) for _ in range(2)]
    torch.testing.assert_close(total(BarlowTwins(redundancy=0.02))(*views), BarlowTwinsLoss(0.02)(*views))


def test_barlow_twins_without_a_weight_takes_one_over_the_width_as_graph_barlow_twins():
    shape = (9, 4)
    expected = value_and_gradients(total(BarlowTwins(redundancy=0.25)), shape)
    torch.testing.assert_close(value_and_gradients(total(BarlowTwins(redundancy=None)), shape), expected)


def cca_ssg_of_its_authors(z1, z2, weight=1e-3):
    """Their code's loss: standardise, correlate over N, minus the trace plus the distances to the identity."""
    rows, dim = z1.shape
    z1, z2 = ((z - z.mean(0)) / z.std(0, correction=0) for z in (z1, z2))
    agreement, *own = (a.T @ b / rows for a, b in ((z1, z2), (z1, z1), (z2, z2)))
    return -agreement.trace() + weight * sum((c - torch.eye(dim)).square().sum() for c in own)


@pytest.mark.parametrize("shape", SHAPES)
def test_cca_ssg_is_its_authors_loss_plus_the_width_with_the_same_gradients(shape):
    value, gradients = value_and_gradients(total(CCASSG(decorrelation=1e-3)), shape)
    expected, theirs = value_and_gradients(cca_ssg_of_its_authors, shape)
    torch.testing.assert_close(value, expected + shape[1])
    torch.testing.assert_close(gradients, theirs)


def test_cca_ssg_and_barlow_twins_do_not_change_with_the_scale_of_features_down_to_small_ones():
    def scaled(objective, scale):
        return value_and_gradients(lambda a, b: total(objective)(scale * a, scale * b), (9, 4))[0]

    torch.testing.assert_close(scaled(CCASSG(), 1e-3), scaled(CCASSG(), 1.0), rtol=1e-5, atol=0)
    torch.testing.assert_close(scaled(BarlowTwins(), 30.0), scaled(BarlowTwins(), 1.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("make", [VICReg, BarlowTwins, CCASSG])
def test_constant_and_equal_features_have_finite_gradients(make):
    views = [torch.ones(6, 3).requires_grad_() for _ in range(2)]
    sum(losses(make(), views).values()).backward()
    assert all(torch.isfinite(view.grad).all() for view in views)


@pytest.mark.parametrize("make", [VICReg, BarlowTwins, CCASSG])
def test_large_half_precision_features_are_compared_in_float32_under_autocast(make):
    torch.manual_seed(0)
    views = [(100 * torch.randn(64, 8)).half() for _ in range(2)]
    expected = losses(make(), [view.float() for view in views])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = losses(make(), views)
    for name, value in mixed.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("make", [VICReg, BarlowTwins])
def test_every_projector_parameter_moves_the_loss(make):
    objective = make(projector=[6, 6, 6])
    head = objective.projector(5)
    sum(losses(objective, [head(torch.randn(9, 5)) for _ in range(2)]).values()).backward()
    assert all(parameter.grad.abs().max() > 1e-7 for parameter in head.parameters())


@pytest.mark.parametrize("make", [VICReg, BarlowTwins, CCASSG])
def test_an_empty_projector_is_none(make):
    assert make(projector=[]).projector(5) is None
    assert make(projector=[4]).projector(5).out_dim == 4


@pytest.mark.parametrize(("make", "name"), [(VICReg, "vicreg"), (BarlowTwins, "barlow_twins"), (CCASSG, "cca_ssg")])
def test_a_single_sample_and_a_single_view_are_refused(make, name):
    with pytest.raises(RecipeError, match=f"{name} compares samples .* at least 2 in a batch, got 1"):
        losses(make(), [torch.ones(1, 3)] * 2)
    with pytest.raises(RecipeError, match=f"{name} compares exactly two views of a sample, got 1"):
        losses(make(), [torch.ones(4, 3)])


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (VICReg, {"variance": -1.0}, "variance must be a finite number >= 0, got -1.0"),
        (BarlowTwins, {"redundancy": float("nan")}, "redundancy must be a finite number >= 0, got nan"),
        (CCASSG, {"decorrelation": -0.1}, "decorrelation must be a finite number >= 0, got -0.1"),
        (VICReg, {"projector": [0]}, r"projector must be .* positive widths, got \[0\]"),
    ],
)
def test_impossible_arguments_are_refused_with_their_value(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)
