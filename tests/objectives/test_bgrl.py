import pytest
import torch
from torch.nn.functional import cosine_similarity

from sslcollapse.core.distributed import Gather
from sslcollapse.core.types import Branch
from sslcollapse.objectives.byol import BGRL, mean_cosine


def branch(seed, prediction=True):
    rng = torch.Generator().manual_seed(seed)
    h, p = torch.randn(2, 9, 4, generator=rng, dtype=torch.float64)
    return Branch(h, h, p.requires_grad_() if prediction else None)


def test_loss_is_two_minus_the_two_crossed_cosines_and_sends_no_gradient_to_the_target():
    online = [branch(0), branch(1)]
    target = [Branch(b.h.requires_grad_(), b.z.requires_grad_(), None) for b in (branch(2, False), branch(3, False))]
    loss = BGRL()(online, target, Gather(enabled=False))["bgrl"]
    crossed = [cosine_similarity(online[i].p, target[1 - i].z, dim=1).mean() for i in range(2)]
    torch.testing.assert_close(loss, 2 - crossed[0] - crossed[1])
    loss.backward()
    assert online[0].p.grad.abs().sum() > 0
    assert target[0].z.grad is None


def test_mean_cosine_gradient_is_exact_and_zero_rows_are_harmless():
    p, z = torch.randn(2, 5, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda rows: mean_cosine(rows, z), [p.clone().requires_grad_()])
    p[0], z[1] = 0, 0
    p.requires_grad_()
    mean_cosine(p, z).backward()
    assert torch.isfinite(p.grad).all()


def test_momentum_rises_from_the_base_to_one_along_a_cosine():
    objective = BGRL(momentum=0.99)
    assert [objective.momentum_at(step, 100) for step in (0, 50, 100)] == pytest.approx([0.99, 0.995, 1.0])
    assert BGRL(momentum=0.9, momentum_schedule="constant").momentum_at(50, 100) == 0.9


def test_predictor_is_linear_prelu_linear_without_batchnorm():
    predictor = BGRL(predictor_hidden=7).predictor(5)
    assert [tuple(layer.weight.shape) for layer in predictor.layers] == [(7, 5), (5, 7)]
    assert not any(isinstance(module, torch.nn.BatchNorm1d) for module in predictor.modules())


def test_a_predictor_may_have_batchnorm():
    predictor = BGRL(predictor_hidden=7, predictor_norm="batch").predictor(5)
    (norm,) = [module for module in predictor.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    assert norm.num_features == 7
    assert predictor(torch.randn(4, 5)).shape == (4, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"momentum": 1.2}, r"momentum must be in \[0, 1\], got 1.2"),
        ({"predictor_hidden": 0}, r"predictor_hidden must be .* positive widths, got \[0\]"),
    ],
)
def test_impossible_arguments_are_refused_with_their_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        BGRL(**arguments)
