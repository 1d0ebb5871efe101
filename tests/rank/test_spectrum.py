import math

import numpy as np
import pytest
import torch

from sslcollapse.rank.spectrum import NotFiniteError, from_gram, singular_values, summarize
from sslcollapse.rank.spectrum import alpha_req_from_singular_values as alpha_req
from sslcollapse.rank.spectrum import effective_rank_from_singular_values as effective_rank
from sslcollapse.rank.spectrum import nesum_from_singular_values as nesum
from sslcollapse.rank.spectrum import numerical_rank_from_singular_values as numerical_rank
from sslcollapse.rank.spectrum import participation_ratio_from_singular_values as participation_ratio
from sslcollapse.rank.spectrum import rankme_from_singular_values as rankme
from sslcollapse.rank.spectrum import stable_rank_from_singular_values as stable_rank

RANKS = [effective_rank, rankme, participation_ratio, stable_rank, nesum, numerical_rank]


@pytest.mark.parametrize("measure", RANKS)
def test_equal_singular_values_have_their_number_as_rank_whatever_their_scale(measure):
    for scale in (1e-6, 1.0, 1e6):
        assert measure(scale * torch.ones(7, dtype=torch.float64)) == pytest.approx(7, abs=1e-4)


@pytest.mark.parametrize("measure", RANKS)
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


def test_singular_values_that_are_no_spectrum_are_refused():
    with pytest.raises(ValueError, match=r"must be 1-D, got shape \(2, 2\); for a matrix use the function"):
        effective_rank(torch.eye(2))
    with pytest.raises(ValueError, match="must be >= 0, got -1"):
        stable_rank(torch.tensor([1.0, -1.0]))
    for measure in RANKS:
        with pytest.raises(NotFiniteError, match="NaN or infinite singular values"):
            measure(torch.tensor([1.0, math.nan]))


def test_a_power_law_has_its_exponent_in_every_range_and_whatever_its_scale():
    k = torch.arange(1, 201, dtype=torch.float64)
    for scale in (1e-200, 1.0, 1e200):
        assert alpha_req(scale * k**-0.6) == pytest.approx(1.2, rel=1e-9)
        assert alpha_req(scale * k**-0.6, fit=(3, 40)) == pytest.approx(1.2, rel=1e-9)


def test_alpha_is_the_weighted_line_through_the_stated_ranks_only():
    sigma = torch.exp(-0.05 * torch.arange(120, dtype=torch.float64))
    k = np.arange(5, 31)
    slope = np.polyfit(np.log(k), np.log(sigma.numpy()[4:30] ** 2), 1, w=np.sqrt(1 / k))[0]
    assert alpha_req(sigma, fit=(5, 30)) == pytest.approx(-slope, rel=1e-9)
    sigma[40:] = 0
    assert alpha_req(sigma, fit=(5, 300)) == alpha_req(sigma, fit=(5, 40))


def test_alpha_of_too_few_eigenvalues_is_nan_and_of_an_impossible_range_an_error():
    assert math.isnan(alpha_req(torch.ones(11)))
    assert math.isnan(alpha_req(torch.zeros(64)))
    with pytest.raises(ValueError, match=r"1 <= first < last, got \(0, 5\)"):
        alpha_req(torch.ones(9), fit=(0, 5))


def test_rounding_in_a_gram_matrix_adds_nothing_to_the_rank_of_a_rank_deficient_matrix():
    torch.manual_seed(0)
    matrix = torch.randn(600, 5, dtype=torch.float64) @ torch.randn(5, 300, dtype=torch.float64)
    exact = effective_rank(torch.linalg.svdvals(matrix)[:5])
    assert effective_rank(singular_values(matrix)) == pytest.approx(exact, rel=1e-9)
