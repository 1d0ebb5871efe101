import math

import numpy as np
import pytest
from scipy import stats

from sslcollapse.ablation.statistics.intervals import (
    Difference,
    PairingError,
    bonferroni,
    bootstrap_spearman,
    correlate,
    fewest_seeds,
    paired_by_seed,
    paired_difference,
    shared_confidence,
    slope,
    student,
)
from sslcollapse.ablation.statistics.pairing import WIDENING, choose

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
    values = {0: [1.0, 2.0], 1: [4.0, math.nan, 5.0]}
    baseline = {0: [0.0, 3.0], 1: [1.0, 100.0, 1.0]}
    assert paired_by_seed(values, baseline) == {0: 0.0, 1: 3.5}
    found = paired_difference(values, baseline)
    assert (found.n, found.splits, found.mean) == (2, 2, 1.75)
    alone = paired_difference({0: [1.0] * 20}, {0: list(range(20))})
    assert (alone.interval, alone.p, alone.n, alone.splits) == (None, None, 1, 20)


@pytest.mark.parametrize(("own", "other"), [([0.9, 0.8, 0.7, 0.1], [0.5, 0.5]), ([0.5], [0.0, 2.0])])
def test_values_of_unequal_number_are_no_pairs(own, other):
    with pytest.raises(PairingError, match=rf"seed 3: {len(own)} values cannot be paired with {len(other)}; give both"):
        paired_difference({3: own}, {3: other})


@pytest.mark.parametrize(("n", "interval"), [(5, None), (6, (0.01, 0.01))])
def test_equal_differences_have_an_interval_only_where_the_order_statistics_have_it(n, interval):
    found = paired_difference({k: 0.8 + k / 7 + 0.01 for k in range(n)}, {k: 0.8 + k / 7 for k in range(n)})
    assert found.mean == pytest.approx(0.01)
    assert found.p == 2 ** (1 - n)
    assert found.interval == (interval and pytest.approx(interval))


def test_no_difference_at_all_is_no_evidence_of_one():
    assert paired_difference(A, A) == Difference(0.0, None, 5, 1.0, std=0.0)
    assert student([0.0] * 8) == Difference(0.0, (0.0, 0.0), 8, 1.0, std=0.0)


@pytest.mark.parametrize("shift", [0.006, 0.0095, 0.0096, 0.02, -0.03])
@pytest.mark.parametrize("tests", [1, 4, 12])
def test_a_corrected_p_value_is_below_5_percent_just_where_the_corrected_interval_leaves_0_out(shift, tests):
    found = paired_difference({k: a + shift for k, a in A.items()}, B, shared_confidence(tests))
    low, high = found.interval
    assert (bonferroni(found.p, tests) < 0.05) is not (low <= 0 <= high)


def test_corrected_intervals_of_a_family_hold_together_at_95_percent():
    rng = np.random.default_rng(1)
    misses = 0
    for _ in range(500):
        noise = rng.normal(size=(9, 5))  # eight cells with one baseline, all equal
        differences = [student(list(row - noise[0]), shared_confidence(8)) for row in noise[1:]]
        misses += any(not low <= 0 <= high for _, (low, high), *_ in differences)
    assert misses / 500 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 500)


@pytest.mark.parametrize("agreement", [0.6, 1.0])
@pytest.mark.parametrize("n", [5, 10])
def test_choosing_by_validation_leaves_the_rate_of_false_positives_at_most_nominal(agreement, n):
    rng = np.random.default_rng(n)
    trials, level = 1500, 0.025
    crossed, plain = 0, 0
    for _ in range(trials):
        validation, own = rng.normal(size=(2, 4, n))  # four cells and a baseline, all equal
        test = agreement * validation + math.sqrt(1 - agreement**2) * own - rng.normal(size=n)
        taken = choose(
            [(row, dict(enumerate(row_validation))) for row, row_validation in zip(test, validation, strict=True)]
        )
        values = [taken.halves[seed % 2][seed] for seed in range(n)]
        crossed += student(values, widening=WIDENING).interval[0] > 0
        plain += student(list(test[validation.mean(1).argmax()])).interval[0] > 0
    error = math.sqrt(level * (1 - level) / trials)
    assert crossed / trials < level + 2 * error
    if agreement == 1:
        assert plain / trials > level + 4 * error, "where the same seeds choose and are tested"


def test_halves_of_the_seeds_choose_for_each_other():
    first = {0: 0.9, 1: 0.1, 2: 0.9, 3: 0.1}
    second = {0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5}
    taken = choose([("first", first), ("second", second), ("without", {})])
    assert (taken.halves, taken.crossed) == (("second", "first"), True)
    records = {name: [{"seed": seed, "of": name} for seed in range(4)] for name in ("first", "second")}
    assert [(r["seed"], r["of"]) for r in taken.records(records.get)] == [
        (0, "second"), (2, "second"), (1, "first"), (3, "first"),
    ]  # fmt: skip
    alone = choose([("first", {0: 0.9}), ("second", {0: 0.5})])
    assert (alone.every, alone.same) == (["first"], True)
    assert not choose([("first", first), ("without", {})]).crossed, "there was no choice"
    assert choose([("without", {})]) is None


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
    assert correlate([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])[1:] == (None, pytest.approx(1), None, 6)


def test_a_correlation_needs_six_cells_that_differ():
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.001, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert correlate(x[:4], y[:4]) is None, "+1.00 [+1.00, +1.00] of four cells"
    assert correlate(x[:5] * 2, y[:5] * 2) is None, "ten cells, of which five are the same as others"
    assert correlate(x, y).n == 6


@pytest.mark.parametrize(("confidence", "n"), [(0.95, 6), (0.975, 7), (0.9875, 8), (0.99375, 11)])
def test_a_bootstrap_interval_is_not_the_range_of_its_resamples(confidence, n):
    assert fewest_seeds(confidence) == n
    noise = np.random.default_rng(3).normal(size=(2, 7, n))
    x, y = np.arange(7.0)[:, None] + 3 * noise
    assert bootstrap_spearman(x[:, :-1], y[:, :-1], confidence)[1] is None
    low, high = bootstrap_spearman(x, y, confidence)[1]
    from scipy.stats import spearmanr

    ends = [spearmanr(x[:, k], y[:, k]).statistic for k in range(n)]  # the extreme resamples: one seed n times
    assert (low, high) != (min(ends), max(ends))
    assert 2.0 ** (1 - n) <= 1 - confidence


def test_bootstrap_over_seeds_is_the_same_each_time_and_wider_for_noisier_seeds():
    noise = np.random.default_rng(0).normal(size=(30, 8))
    rank = np.arange(30.0)[:, None] + 0 * noise
    quiet, loud = (bootstrap_spearman(rank, rank + scale * noise) for scale in (0.3, 20))
    assert loud == bootstrap_spearman(rank, rank + 20 * noise)
    assert quiet[0] == pytest.approx(stats.spearmanr(rank.mean(1), (rank + 0.3 * noise).mean(1)).statistic)
    assert quiet[1][0] > loud[1][0]
    assert loud[1][0] < loud[0] < loud[1][1]
    assert bootstrap_spearman(rank[:, :5], noise[:, :5])[1] is None, "1 − 2^(1−5) is below 0.95"
    assert bootstrap_spearman(rank, 0 * noise + 0.1) is None


@pytest.mark.parametrize("confidence", [1 - 2e-4, 1 - 1e-6, 1.0])
def test_a_confidence_that_no_number_of_seeds_reaches_is_said_and_not_searched_for_without_end(confidence):
    assert fewest_seeds(confidence) is None
    values = [[float(cell * seed % 7) for seed in range(9)] for cell in range(8)]
    assert bootstrap_spearman(values, values, confidence) == (pytest.approx(1.0), None)
