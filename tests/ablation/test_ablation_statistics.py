import math

import numpy as np
import pytest
from scipy import stats

from sslcollapse.ablation.correlation import bootstrap_spearman, correlate
from sslcollapse.ablation.statistics import Difference, holm, paired_by_seed, paired_difference, slope, student

A = {0: 0.812, 1: 0.805, 2: 0.833, 3: 0.790, 4: 0.821}
B = {0: 0.803, 1: 0.809, 2: 0.815, 3: 0.781, 4: 0.802}


@pytest.mark.parametrize("confidence", [0.95, 0.99375])
def test_interval_and_p_value_are_those_of_the_paired_t_test(confidence):
    expected = stats.ttest_rel(list(A.values()), list(B.values()))
    found = paired_difference(A, B, confidence)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(confidence)))
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.mean, found.n) == (pytest.approx(0.0102), 5)


def test_missing_seeds_and_values_that_are_not_finite_leave_the_other_pairs():
    incomplete = {**{seed: A[seed] for seed in (0, 1, 2)}, 3: math.nan, 9: 5.0}
    known = [A[seed] - B[seed] for seed in (0, 1, 2)]
    assert paired_difference(incomplete, B) == student(known)
    assert paired_difference({}, B) is None
    assert paired_difference({0: math.nan}, B) is None


def test_equal_splits_are_paired_within_a_seed_and_the_seed_is_the_unit():
    values = {0: [1.0, 2.0, 9.0], 1: [4.0, math.nan, 5.0]}
    baseline = {0: [0.0, 3.0], 1: [1.0, 100.0, 1.0]}
    assert paired_by_seed(values, baseline) == {0: 0.0, 1: 3.5}
    found = paired_difference(values, baseline)
    assert (found.n, found.splits, found.mean) == (2, 2, 1.75)
    assert paired_by_seed({0: [0.5]}, {0: [0.0, 2.0]}) == {0: -0.5}, "a mean of many splits is not the first one"
    alone = paired_difference({0: [1.0] * 20}, {0: list(range(20))})
    assert (alone.interval, alone.p, alone.n, alone.splits) == (None, None, 1, 20)


@pytest.mark.parametrize(("n", "interval"), [(5, None), (6, (0.01, 0.01))])
def test_equal_differences_have_an_interval_only_where_the_order_statistics_have_it(n, interval):
    found = paired_difference({k: 0.8 + k / 7 + 0.01 for k in range(n)}, {k: 0.8 + k / 7 for k in range(n)})
    assert found.mean == pytest.approx(0.01)
    assert found.p == 2 ** (1 - n)
    assert found.interval == (interval and pytest.approx(interval))


def test_no_difference_at_all_is_no_evidence_of_one():
    assert paired_difference(A, A) == Difference(0.0, None, 5, 1.0)
    assert student([0.0] * 8) == Difference(0.0, (0.0, 0.0), 8, 1.0)


def test_holm_agrees_with_a_worked_example_and_leaves_out_what_was_not_tested():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.5]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_slope_is_that_of_the_least_squares_line():
    x, y = [0.0, 0.2, 0.4, 1.0], [3.0, 1.0, 2.0, -4.0]
    assert slope(x, y) == pytest.approx(stats.linregress(x, y).slope)


def test_correlations_are_scipys_and_pearsons_interval_too():
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0, 5.0], [2.0, 1.0, 4.0, 3.0, 7.0, 6.5]
    found = correlate(x, y)
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic)
    expected = stats.pearsonr(x, y)
    assert found.pearson == pytest.approx(expected.statistic)
    assert found.pearson_interval == pytest.approx(tuple(expected.confidence_interval()))
    assert found.spearman_interval[0] < found.spearman < found.spearman_interval[1] < 1
    assert correlate(x, [0.1 + 0.2] * 5 + [0.3]) is None
    assert correlate(x[:2], y[:2]) is None
    assert correlate([1, 2, 3, 4], [1, 2, 3, 4])[1:] == (None, pytest.approx(1), None, 4)


def test_bootstrap_over_seeds_is_the_same_each_time_and_wider_for_noisier_seeds():
    noise = np.random.default_rng(0).normal(size=(30, 8))
    rank = np.arange(30.0)[:, None] + 0 * noise
    quiet, loud = (bootstrap_spearman(rank, rank + scale * noise) for scale in (0.3, 20))
    assert loud == bootstrap_spearman(rank, rank + 20 * noise)
    assert quiet[0] == pytest.approx(stats.spearmanr(rank.mean(1), (rank + 0.3 * noise).mean(1)).statistic)
    assert quiet[1][0] > loud[1][0]
    assert loud[1][0] < loud[0] < loud[1][1]
    assert bootstrap_spearman(rank[:, :4], noise[:, :4])[1] is None
    assert bootstrap_spearman(rank, 0 * noise + 0.1) is None
