import math

import numpy as np
import pytest
from scipy import stats

from sslcollapse.ablation.statistics.intervals import student
from sslcollapse.ablation.statistics.power import (
    _normal_levels,
    look_levels,
    planned_looks,
    power,
    regions,
    seeds_needed,
    upper_std,
)
from sslcollapse.core.errors import RecipeError

ENDLESS = math.inf


@pytest.mark.parametrize("n", [5, 9, 40])
@pytest.mark.parametrize(("effect", "margin", "confidence"), [(1.0, 0.0, 0.95), (0.6, 0.2, 0.9875)])
def test_power_of_one_sided_expectations_is_that_of_the_noncentral_t(n, effect, margin, confidence):
    quantile = stats.t.ppf((1 + confidence) / 2, n - 1)
    expected = stats.nct.sf(quantile, n - 1, (effect - margin) / (1.3 / math.sqrt(n)))
    assert power(n, 1.3, effect, [(margin, ENDLESS)], confidence) == pytest.approx(expected, abs=1e-3)
    assert power(n, 1.3, -effect, [(-ENDLESS, -margin)], confidence) == pytest.approx(expected, abs=1e-3)


def test_power_of_an_equivalence_test_is_how_often_it_comes_out():
    rng = np.random.default_rng(0)
    n, std, margin, confidence = 12, 1.1, 1.0, 0.9
    inside, _ = regions("equivalent", margin)
    samples = rng.normal(0.2, std, (40_000, n))
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * samples.std(1, ddof=1) / math.sqrt(n)
    often = ((samples.mean(1) - half > -margin) & (samples.mean(1) + half < margin)).mean()
    assert power(n, std, 0.2, [inside], confidence) == pytest.approx(often, abs=0.01)


def test_the_seeds_that_are_needed_are_the_fewest_that_have_a_chance_of_80_percent():
    n = seeds_needed(1.0, 0.7, [(0.0, ENDLESS)], 0.95)
    chances = [power(seeds, 1.0, 0.7, [(0.0, ENDLESS)], 0.95) for seeds in (n - 1, n)]
    assert chances[0] < 0.8 <= chances[1]
    assert seeds_needed(0.01, 0.7, [(0.0, ENDLESS)], 0.95) == 5, "fewer decide nothing"
    assert seeds_needed(0.0, 0.7, [(0.0, ENDLESS)], 0.99) == 8, "without spread those of the order statistics"


@pytest.mark.parametrize(
    ("effect", "expect", "margin"), [(0.0, "positive", 0), (1.0, "none", 1.0), (0.001, "positive", 0)]
)
def test_an_effect_on_or_next_to_a_limit_cannot_be_settled_by_any_number_of_seeds(effect, expect, margin):
    inside, outside = regions(expect, margin)
    assert seeds_needed(1.0, effect, [inside, *outside], 0.95) is None


def test_the_upper_limit_of_a_standard_deviation_is_above_it_four_times_in_five():
    rng = np.random.default_rng(0)
    found = rng.normal(0, 2.0, (4000, 6)).std(1, ddof=1)
    assert np.mean([upper_std(std, 6) > 2.0 for std in found]) == pytest.approx(0.8, abs=0.025)


def test_levels_of_five_equal_looks_are_the_published_boundaries_of_lan_and_demets():
    bounds = [stats.norm.isf(level / 2) for level in _normal_levels((1, 2, 3, 4, 5), 0.05)]
    assert bounds == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=1e-3)
    many = [stats.norm.isf(level / 2) for level in look_levels((200, 400, 600, 800, 1000), 0.05)]
    assert many == pytest.approx(bounds, abs=0.03), "of many seeds Student's intervals are the normal ones"
    assert look_levels((20,), 0.05) == pytest.approx((0.05,))


@pytest.mark.parametrize("looks", [(5, 11, 18, 24, 30), (5, 6, 7, 8, 9), (10, 18, 25, 32, 40)])
@pytest.mark.parametrize("tests", [1, 4])
def test_the_error_over_all_looks_is_the_stated_one_also_with_students_intervals_of_few_seeds(looks, tests):
    rng = np.random.default_rng(looks[1])
    trials, level = 40_000, 0.05 / tests
    values = rng.normal(size=(trials, looks[-1]))

    def wrong(levels):
        found = np.zeros(trials, dtype=bool)
        for look, own in zip(looks, levels, strict=True):
            seen = values[:, :look]
            found |= np.abs(seen.mean(1)) / (seen.std(1, ddof=1) / math.sqrt(look)) > stats.t.isf(own / 2, look - 1)
        return found.mean()

    error = math.sqrt(level * (1 - level) / trials)
    assert wrong(look_levels(looks, level)) < level + 3 * error
    assert wrong([level] * len(looks)) > 1.4 * level, "looks that spend nothing make more errors"


def test_the_levels_of_a_sequence_are_used_as_the_intervals_of_student_use_them():
    level = look_levels((5, 10), 0.05)[0]
    found = student([0.1, 0.4, 0.2, 0.3, 0.5], 1 - level)
    assert found.interval[0] == pytest.approx(0.3 - stats.t.isf(level / 2, 4) * found.std / math.sqrt(5))


def test_looks_are_planned_evenly_and_never_before_five_seeds():
    assert planned_looks(3, 25) == [5, 10, 15, 20, 25]
    assert planned_looks(5, 7) == [5, 6, 7]
    with pytest.raises(RecipeError, match="--until-decided must be above the 10 seeds of the first look, got 10"):
        planned_looks(10, 10)
