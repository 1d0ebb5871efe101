import math

import pytest
import torch

from sslcollapse import local_intrinsic_dimension
from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError
from sslcollapse.regularizers.ldreg import LDRegPenalty

ALONE = Gather(enabled=False)


def rows(n=40, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_penalty_is_minus_the_log_of_the_dimension_a_mean_over_views():
    views = [rows(seed=0), rows(seed=1)]
    expected = -sum(math.log(local_intrinsic_dimension(view, k=8)) for view in views) / 2
    assert float(LDRegPenalty(k=8)(views, ALONE)) == pytest.approx(expected, rel=1e-9)
    assert float(LDRegPenalty(k=64)(views, ALONE)) == float(LDRegPenalty(k=39)(views, ALONE))


def test_the_gradient_is_that_of_finite_differences():
    assert torch.autograd.gradcheck(lambda x: LDRegPenalty(k=4)([x], ALONE), rows(7, 3).requires_grad_())


def test_descending_it_spreads_a_sheet_into_the_space_around():
    x = rows(60, 1) @ torch.ones(1, 8, dtype=torch.float64) + 1e-2 * rows(60, 8, seed=2)
    before = local_intrinsic_dimension(x, k=20)
    x.requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        LDRegPenalty(k=20)([x], ALONE).backward()
        optimizer.step()
    assert local_intrinsic_dimension(x, k=20) > 1.5 * before


def test_coinciding_and_equidistant_samples_have_finite_gradients_and_half_precision_is_computed_in_float32():
    for x in (torch.ones(5, 3).half(), torch.eye(5).bfloat16(), torch.cat([torch.ones(4, 3), torch.eye(3)])):
        view = x.requires_grad_()
        value = LDRegPenalty(k=3)([view], ALONE)
        value.backward()
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert torch.isfinite(view.grad).all()


def test_impossible_arguments_and_too_small_batches_are_refused():
    with pytest.raises(ValueError, match="k must be at least 2, got 1"):
        LDRegPenalty(k=1)
    with pytest.raises(RecipeError, match=r"regularizer 'ldreg' .* at least 3 in a batch, got 2"):
        LDRegPenalty()([rows(2)], ALONE)
