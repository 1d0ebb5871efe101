import pytest
import torch

from sslcollapse.rank.diagnose.verdicts import (
    COLLAPSED,
    DEGRADING,
    HEALTHY,
    output_verdict,
    random_rank,
    weight_verdict,
    worst,
)
from sslcollapse.rank.spectrum import singular_values, summarize


def effective_rank(matrix: torch.Tensor) -> float:
    return summarize(singular_values(matrix), min(matrix.shape))["effective_rank"]


@pytest.mark.parametrize("shape", [(64, 64), (20, 90), (90, 20), (64, 27), (200, 100)])
@pytest.mark.parametrize("distribution", ["normal", "uniform", "signs"])
def test_the_reference_is_the_mean_over_random_matrices_of_any_distribution(shape, distribution):
    torch.manual_seed(0)
    draw = {
        "normal": torch.randn,
        "uniform": lambda *size: torch.rand(*size) - 0.5,
        "signs": lambda *size: torch.randint(2, size) * 2.0 - 1,
    }[distribution]
    mean = sum(effective_rank(draw(*shape)) for _ in range(4)) / 4
    assert random_rank(*shape) == pytest.approx(mean, rel=0.02)


def test_the_square_reference_is_that_of_the_quarter_circle_law():
    s = torch.linspace(0, 2, 200_001, dtype=torch.float64)[1:-1]
    density = (4 - s.square()).sqrt()
    density /= density.sum()
    mean = (density * s).sum()
    expected = mean * torch.exp(-(density * s * s.log()).sum() / mean)
    assert random_rank(1000, 1000) == pytest.approx(1000 * float(expected), rel=1e-5)


def test_the_reference_is_between_one_and_the_attainable_rank_and_nearly_all_of_it_for_a_wide_matrix():
    assert random_rank(1, 1) == random_rank(1, 700) == 1.0
    assert random_rank(4, 4000) == pytest.approx(4, rel=1e-3)
    assert 1 <= random_rank(2, 2) <= 2


@pytest.mark.parametrize(
    ("kept", "verdict"), [(100, HEALTHY), (60, HEALTHY), (35, DEGRADING), (12, DEGRADING), (5, COLLAPSED)]
)
def test_a_projection_onto_fewer_directions_degrades_then_collapses(kept, verdict):
    matrix = torch.zeros(100, 100)
    matrix[range(kept), range(kept)] = 1
    assert weight_verdict(effective_rank(matrix), random_rank(100, 100)) == verdict


def test_outputs_are_judged_against_the_untrained_network():
    assert output_verdict(6.0, 7.0, 64) == HEALTHY
    assert output_verdict(3.0, 7.0, 64) == HEALTHY  # a good encoder drops noise that an untrained one passes on
    assert output_verdict(1.3, 7.0, 16) == DEGRADING
    assert output_verdict(6.0, 70.0, 128) == COLLAPSED


def test_fewer_than_two_directions_are_a_collapse_even_if_the_untrained_network_has_no_more():
    assert output_verdict(1.2, 1.1, 64) == COLLAPSED
    assert output_verdict(1.2, 1.1, 8) == HEALTHY
    assert output_verdict(0.0, 0.0, 64) == COLLAPSED


def test_the_worst_verdict_counts_and_nothing_is_healthy():
    assert worst([HEALTHY, COLLAPSED, DEGRADING]) == COLLAPSED
    assert worst([]) == HEALTHY
