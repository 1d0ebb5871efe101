import numpy as np
import pytest
import torch

from sslcollapse.core.distributed import Gather
from sslcollapse.regularizers.sigreg import SIGRegPenalty, epps_pulley


def gaussian(n=2000, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def penalty_of(x, step=0, **arguments):
    return SIGRegPenalty(**arguments)([x], Gather(), step)


def test_the_distance_is_the_integral_over_characteristic_functions():
    s = gaussian(50, 3) * 1.7 + 0.3
    t = np.linspace(-3, 3, 33)
    empirical = np.exp(1j * t[:, None, None] * s.numpy()).mean(1)  # [33, 3]
    integrand = np.abs(empirical - np.exp(-(t[:, None] ** 2) / 2)) ** 2 * np.exp(-(t[:, None] ** 2) / 2)
    expected = 50 * np.trapezoid(integrand, t, axis=0).mean() if hasattr(np, "trapezoid") else None
    if expected is None:
        expected = 50 * np.trapz(integrand, t, axis=0).mean()
    assert float(epps_pulley(s, 17, 3.0)) == pytest.approx(expected, rel=1e-12)


def test_gaussian_features_have_a_small_value_and_collapsed_ones_a_large_one():
    x = gaussian()
    flat = x.clone()
    flat[:, 3:] = 0.0  # half of the dimensions are lost
    least = float(penalty_of(x))
    assert least < 3.0  # 1.05 is expected: the integral of (1 − exp(−t²)) exp(−t²/2)
    assert float(penalty_of(flat)) > 10 * least
    assert float(penalty_of(0 * x)) > 100 * least
    assert float(penalty_of(2 * x)) > 10 * least
    assert float(penalty_of(x + 1)) > 10 * least


def test_its_gradient_moves_a_collapsed_dimension_back():
    x = gaussian(256)
    x[:, 0] *= 1e-2
    x.requires_grad_()
    optimizer = torch.optim.SGD([x], lr=1.0)
    for step in range(200):
        optimizer.zero_grad()
        penalty_of(x, step).backward()
        optimizer.step()
    assert float(x[:, 0].detach().std()) > 0.1


def test_directions_are_a_function_of_the_step_and_have_unit_length():
    sigreg = SIGRegPenalty(directions=5)
    first = sigreg.directions_at(3, 7)
    torch.testing.assert_close(first.norm(dim=0), torch.ones(5))
    state = torch.get_rng_state()
    assert torch.equal(first, SIGRegPenalty(directions=5).directions_at(3, 7))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, sigreg.directions_at(4, 7))


@pytest.mark.parametrize(("argument", "value"), [("directions", 0), ("knots", 1), ("limit", 0.0)])
def test_arguments_out_of_range_are_quoted(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be .*, got {value}"):
        SIGRegPenalty(**{argument: value})
