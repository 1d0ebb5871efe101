import math

import pytest

from sslcollapse.core.schedules import decay, ema_momentum, warmup_then_decay


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_decay_goes_from_one_to_zero_and_stays_there(kind):
    values = [decay(step, 100, kind) for step in range(101)]
    assert (values[0], values[50], decay(130, 100, kind)) == pytest.approx((1.0, 0.5, 0.0))
    assert values == sorted(values, reverse=True)


def test_cosine_decay_is_its_formula_and_constant_is_one():
    assert decay(25, 100, "cosine") == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert {decay(step, 100, "constant") for step in (0, 50, 500)} == {1.0}


def test_an_unknown_schedule_is_quoted():
    with pytest.raises(ValueError, match=r"schedule must be .* got 'step'"):
        decay(0, 1, "step")


def test_warm_up_rises_in_equal_steps_from_zero_and_meets_the_decay():
    rise = [warmup_then_decay(step, 100, 4, "cosine") for step in range(5)]
    assert rise == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert warmup_then_decay(52, 100, 4, "linear") == pytest.approx(0.5)


def test_ema_momentum_rises_from_its_base_to_one():
    assert ema_momentum(0, 1000, 0.99) == pytest.approx(0.99)
    assert ema_momentum(500, 1000, 0.99) == pytest.approx(0.995)
    assert ema_momentum(1000, 1000, 0.99) == 1.0
