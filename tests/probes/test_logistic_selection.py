"""Train, validation and test are never mixed up."""

import dataclasses

import numpy as np
import pytest
import torch
from probe_data import noisy

from sslcollapse.probes.logistic import LogisticProbe

SOLVERS = ["auto", "liblinear"]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("leaking", "validation_is_perfect", "test_is_perfect"),
    [
        (("train",), False, False),
        (("train", "validation"), True, False),
        (("train", "test"), False, True),
        (("validation", "test"), False, False),  # nothing to learn the leak from
    ],
)
def test_a_leak_shows_only_in_the_part_that_has_it(solver, leaking, validation_is_perfect, test_is_perfect):
    features, probe_set = noisy(signal=0.0)
    split = probe_set.splits["public"][0]
    leak = torch.zeros(len(features), probe_set.num_classes)
    for part in leaking:
        rows = getattr(split, part)
        leak[rows, probe_set.labels[rows]] = 20.0
    result = LogisticProbe(solver=solver)(torch.cat([features, leak], 1), probe_set)
    for value, perfect in ((result.validation[0], validation_is_perfect), (result.test[0], test_is_perfect)):
        assert value == 1.0 if perfect else value < 0.5


@pytest.mark.parametrize("solver", SOLVERS)
def test_test_labels_change_neither_the_chosen_c_nor_validation(solver):
    features, probe_set = noisy()
    test = probe_set.splits["public"][0].test
    labels = probe_set.labels.clone()
    labels[test] = labels[np.random.default_rng(1).permutation(test)]
    before = LogisticProbe(solver=solver)(features, probe_set)
    after = LogisticProbe(solver=solver)(features, dataclasses.replace(probe_set, labels=labels))
    assert (before.details["chosen_c"], before.validation) == (after.details["chosen_c"], after.validation)
    assert before.test != after.test


@pytest.mark.parametrize("solver", SOLVERS)
def test_test_features_change_neither_the_chosen_c_nor_validation(solver):
    features, probe_set = noisy()
    before = LogisticProbe(solver=solver)(features, probe_set)
    changed = features.clone()
    changed[probe_set.splits["public"][0].test] *= -1
    after = LogisticProbe(solver=solver)(changed, probe_set)
    assert (before.details["chosen_c"], before.validation) == (after.details["chosen_c"], after.validation)
    assert before.test != after.test


@pytest.mark.parametrize("solver", SOLVERS)
def test_test_is_scored_with_the_c_of_validation_even_when_another_is_better(solver):
    features, probe_set = noisy(seed=3)
    curve = []
    for c in LogisticProbe().cs:
        alone = LogisticProbe(solver=solver)
        alone.cs = [c]
        result = alone(features, probe_set)
        curve.append((result.validation[0], result.test[0]))
    validation, test = zip(*curve, strict=True)
    chosen = int(np.argmax(validation))
    assert max(test) > test[chosen], "the data must have a C that is better on test"
    result = LogisticProbe(solver=solver)(features, probe_set)
    assert result.details["chosen_c"] == [LogisticProbe().cs[chosen]]
    assert result.validation == [validation[chosen]]
    assert result.test == [test[chosen]]


def test_of_equally_good_c_the_smallest_is_chosen():
    features, probe_set = noisy(signal=30.0)
    result = LogisticProbe()(features, probe_set)
    assert result.validation == [1.0]
    smaller, chosen, larger = LogisticProbe(), LogisticProbe(), LogisticProbe()
    smaller.cs, chosen.cs, larger.cs = [result.details["chosen_c"][0] / 2], result.details["chosen_c"], [2.0**10]
    assert smaller(features, probe_set).validation[0] < 1.0
    assert chosen(features, probe_set).validation == larger(features, probe_set).validation == [1.0]


def test_validation_rows_are_not_trained_on():
    features, probe_set = noisy()
    split = probe_set.splits["public"][0]
    fewer = dataclasses.replace(split, validation=split.validation[: len(split.validation) // 2])
    probe = LogisticProbe()
    probe.cs = [1.0]
    whole = probe(features, probe_set)
    part = probe(features, dataclasses.replace(probe_set, splits={"public": [fewer]}))
    assert whole.test == part.test


def test_every_split_is_evaluated_alone_and_in_order():
    features, probe_set = noisy()
    probe = LogisticProbe(split="random", repeats=3, fractions=(0.3, 0.3, 0.4))
    together = probe(features, probe_set)
    fixed = dataclasses.replace(probe_set, splits={str(k): [s] for k, s in enumerate(together.splits)})
    for k in range(3):
        alone = LogisticProbe(split=str(k))(features, fixed)
        assert (alone.test, alone.details["chosen_c"]) == ([together.test[k]], [together.details["chosen_c"][k]])


def test_overlapping_fixed_splits_are_refused():
    features, probe_set = noisy()
    split = probe_set.splits["public"][0]
    mixed = dataclasses.replace(split, test=np.append(split.test, split.validation[:2]))
    probe_set = dataclasses.replace(probe_set, splits={"public": [split, mixed]})
    with pytest.raises(ValueError, match="split 1 of 'public': the validation and test parts share 2 rows"):
        LogisticProbe()(features, probe_set)


def test_model_seeds_do_not_move_the_splits():
    _, probe_set = noisy()
    torch.manual_seed(0)
    first = LogisticProbe(split="random", repeats=2).splits.of(probe_set)
    torch.manual_seed(1)
    second = LogisticProbe(split="random", repeats=2).splits.of(probe_set)
    assert all(np.array_equal(a.train, b.train) for a, b in zip(first, second, strict=True))
