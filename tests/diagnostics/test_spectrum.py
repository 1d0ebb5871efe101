import math

import pytest
import torch

from sslcollapse.diagnostics.spectrum import (
    effective_rank,
    from_gram,
    numerical_rank,
    participation_ratio,
    rankme,
    singular_values,
    stable_rank,
    summarize,
)


@pytest.mark.parametrize("measure", [effective_rank, rankme, participation_ratio, stable_rank, numerical_rank])
def test_equal_singular_values_have_their_number_as_rank_whatever_their_scale(measure):
    for scale in (1e-6, 1.0, 1e6):
        assert measure(scale * torch.ones(7, dtype=torch.float64)) == pytest.approx(7, abs=1e-4)


@pytest.mark.parametrize("measure", [effective_rank, rankme, participation_ratio, stable_rank, numerical_rank])
def test_one_direction_has_rank_one_and_nothing_has_rank_zero(measure):
    assert measure(torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64)) == pytest.approx(1, abs=1e-4)
    assert measure(torch.zeros(3, dtype=torch.float64)) == 0


def test_measures_of_a_known_spectrum_are_their_formulas():
    sigma = torch.tensor([1.0, 0.5, 0.25, 0.25], dtype=torch.float64)
    p = [0.5, 0.25, 0.125, 0.125]
    assert effective_rank(sigma) == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)))
    smoothed = [q + 1e-7 for q in p]
    assert rankme(sigma) == pytest.approx(math.exp(-sum(q * math.log(q) for q in smoothed)), rel=1e-12)
    assert rankme(sigma) != effective_rank(sigma)
    energy = [1.0, 0.25, 0.0625, 0.0625]
    assert participation_ratio(sigma) == pytest.approx(sum(energy) ** 2 / sum(e * e for e in energy))
    assert stable_rank(sigma) == pytest.approx(sum(energy))


def test_numerical_rank_counts_what_lies_above_the_stated_tolerance_of_the_largest():
    sigma = torch.tensor([10.0, 0.02, 0.009])
    assert (numerical_rank(sigma), numerical_rank(sigma, rtol=1e-4)) == (2, 3)
    assert summarize(sigma, 3)["rtol"] == 1e-3


def test_singular_values_are_those_of_an_svd_for_tall_and_wide_matrices():
    torch.manual_seed(0)
    for shape in ((9, 4), (4, 9)):
        matrix = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(singular_values(matrix), torch.linalg.svdvals(matrix))


def test_a_spectrum_of_nan_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite entries"):
        from_gram(torch.full((2, 2), math.nan))
