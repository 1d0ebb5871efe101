import dataclasses
import warnings

import numpy as np
import pytest
import torch

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.core.registry import PROBES
from sslcollapse.core.types import ProbeSet, Split
from sslcollapse.probes import logistic
from sslcollapse.probes.logistic import LogisticProbe
from sslcollapse.probes.newton import solve
from sslcollapse.recipe.check import describe

SOLVERS = ["auto", "liblinear"]
NAMES = {"auto": "newton", "liblinear": "newton, one-vs-rest"}


def blobs(n=150, d=10, classes=3, spread=0.7, seed=0):
    """Gaussian clusters with one public split of thirds."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, d, generator=generator)
    features = centres[labels] + spread * torch.randn(n, d, generator=generator)
    parts = np.array_split(np.random.default_rng(seed).permutation(n), 3)
    return features, ProbeSet((), labels, classes, {"public": [Split(*parts)]})


def multilabel(n=150, d=10, count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features, probe_set = blobs(n, d, seed=seed)
    noise = 0.3 * torch.randn(n, count, generator=generator)
    logits = features @ torch.randn(d, count, generator=generator) + noise
    return features, ProbeSet((), (logits > 0).float(), count, probe_set.splits)


def test_the_registry_builds_it_from_a_recipe():
    probe = PROBES.build({"type": "logistic", "split": "random", "repeats": 3})
    features, probe_set = blobs()
    assert len(probe(features, probe_set).test) == 3
    assert describe(PROBES.parameters("logistic")["repeats"].annotation) == "an int in [1, 10000]"


def test_the_grid_is_the_powers_of_two_from_minus_ten_to_ten():
    assert LogisticProbe().cs == [2.0**k for k in range(-10, 11)]
    assert LogisticProbe(c_step=5).cs == [2.0**k for k in (-10, -5, 0, 5, 10)]


@pytest.mark.parametrize("solver", SOLVERS)
def test_separable_clusters_are_told_apart(solver):
    result = LogisticProbe(solver=solver)(*blobs(spread=0.1))
    assert result.solver == NAMES[solver]
    assert result.metric == "accuracy"
    assert result.test == [1.0]


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_length_of_a_row_does_not_matter(solver):
    features, probe_set = blobs(spread=1.5)
    scaled = features * torch.logspace(-3, 3, len(features))[:, None]
    assert LogisticProbe(solver=solver)(features, probe_set) == LogisticProbe(solver=solver)(scaled, probe_set)


@pytest.mark.parametrize("solver", SOLVERS)
def test_zero_rows_and_fully_collapsed_features_survive(solver):
    features, probe_set = blobs(spread=0.1)
    features[::7] = 0
    assert 0.8 < LogisticProbe(solver=solver)(features, probe_set).test[0] <= 1.0
    collapsed = LogisticProbe(solver=solver)(torch.ones_like(features), probe_set)
    assert collapsed.test[0] < 0.5


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_class_absent_from_training_is_counted_as_missed(solver):
    features, probe_set = blobs(classes=4, spread=0.1)
    split = probe_set.splits["public"][0]
    labels = probe_set.labels.numpy()
    split = dataclasses.replace(split, train=split.train[labels[split.train] != 2])
    probe_set = dataclasses.replace(probe_set, splits={"public": [split]})
    result = LogisticProbe(solver=solver)(features, probe_set)
    seen = (labels[split.test] != 2).mean()
    assert seen - 0.1 < result.test[0] <= seen


def test_a_single_training_class_is_refused():
    features, probe_set = blobs()
    split = probe_set.splits["public"][0]
    split = dataclasses.replace(split, train=split.train[probe_set.labels.numpy()[split.train] == 1])
    with pytest.raises(ValueError, match=r"split 0 of 'public': all 16 rows of the training part are of class 1"):
        LogisticProbe()(features, dataclasses.replace(probe_set, splits={"public": [split]}))


@pytest.mark.parametrize("solver", SOLVERS)
def test_binary_sets_are_scored_by_roc_auc(solver):
    features, probe_set = blobs(classes=2, spread=0.5)
    result = LogisticProbe(solver=solver)(features, probe_set)
    assert result.metric == "roc_auc"
    assert result.test[0] > 0.9
    assert LogisticProbe(metric="accuracy")(features, probe_set).metric == "accuracy"


@pytest.mark.parametrize("solver", SOLVERS)
def test_multilabel_sets_are_scored_by_micro_f1(solver):
    result = LogisticProbe(solver=solver)(*multilabel())
    assert result.metric == "micro_f1"
    assert result.test[0] > 0.8


@pytest.mark.parametrize("solver", SOLVERS)
def test_multilabel_columns_constant_in_training_are_predicted_as_such(solver):
    features, probe_set = multilabel()
    probe_set.labels[:, 0], probe_set.labels[:, 1] = 1, 0
    rest = dataclasses.replace(probe_set, labels=probe_set.labels[:, 2:], num_classes=2)
    full, part = (
        LogisticProbe(solver=solver)(features, probe_set),
        LogisticProbe(solver=solver)(features, rest),
    )
    assert part.test[0] < full.test[0] < 1.0


def test_small_fits_use_one_thread_each_and_give_the_others_back(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = []
        monkeypatch.setattr(logistic, "CACHED", 1)  # each split in a batch of its own
        monkeypatch.setattr(
            logistic, "solve", lambda *args, **kw: seen.append(torch.get_num_threads()) or solve(*args, **kw)
        )
        result = LogisticProbe(c_step=20, split="random", repeats=4, fractions=(0.3, 0.3, 0.4))(*blobs())
        assert (len(result.test), seen) == (4, [1] * 4)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_fits_that_stop_early_are_counted_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for solver in SOLVERS:
            features, probe_set = blobs(spread=2.0)
            assert LogisticProbe(solver=solver, max_iter=1, c_step=4)(features, probe_set).details["unconverged"] > 0
            assert LogisticProbe(solver=solver)(features, probe_set).details["unconverged"] == 0


def test_normalised_rows_converge_at_the_largest_c():
    features, probe_set = blobs(spread=3.0)
    assert LogisticProbe()(features, probe_set).details["unconverged"] == 0


def test_json_holds_what_was_chosen():
    stored = LogisticProbe(c_step=20)(*blobs()).to_json()
    assert list(stored) == ["solver", "test_accuracy", "validation_accuracy", "chosen_c", "unconverged"]
    assert stored["solver"] == "newton"
    assert stored["chosen_c"][0] in (2.0**-10, 2.0**10)


def test_nan_features_are_named_by_row():
    features, probe_set = blobs()
    features[7, 3] = float("nan")
    features[9, 0] = float("inf")
    with pytest.raises(DataError, match="2 of 150 feature rows hold NaN or infinite values, the first is row 7"):
        LogisticProbe()(features, probe_set)


def test_features_of_another_length_are_refused():
    features, probe_set = blobs()
    with pytest.raises(ValueError, match=r"each of the 150 labels, got shape \(149, 10\)"):
        LogisticProbe()(features[1:], probe_set)


def test_labels_outside_the_classes_are_refused_only_where_used():
    features, probe_set = blobs()
    split = probe_set.splits["public"][0]
    probe_set.labels[split.test[0]] = -1
    with pytest.raises(ValueError, match=rf"1 rows .* outside 0\.\.2, the first is row {split.test[0]} with -1"):
        LogisticProbe()(features, probe_set)
    unused = dataclasses.replace(split, test=split.test[1:])
    LogisticProbe()(features, dataclasses.replace(probe_set, splits={"public": [unused]}))


def test_an_unknown_split_lists_the_known_ones():
    features, probe_set = blobs()
    with pytest.raises(RecipeError, match=r"no split 'publc'; did you mean 'public'\? \(known: public, random\)"):
        LogisticProbe(split="publc")(features, probe_set)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solver": "saga"}, "solver must be one of auto, liblinear, got 'saga'"),
        ({"metric": "f1"}, "metric must be one of auto, accuracy, micro_f1, roc_auc, got 'f1'"),
        ({"repeats": 0}, "repeats must be >= 1, got 0"),
        ({"max_iter": 0}, "max_iter must be >= 1, got 0"),
        ({"c_step": 0}, "c_step must be >= 1, got 0"),
        ({"split_seed": -1}, "split_seed must be >= 0, got -1"),
        ({"fractions": (0.9, 0.9, 0.9)}, r"sum to at most 1, got \[0.9, 0.9, 0.9\]"),
    ],
)
def test_bad_arguments_are_quoted_before_any_data(arguments, message):
    with pytest.raises(ValueError, match=message):
        LogisticProbe(**arguments)


def test_metrics_that_do_not_fit_the_labels_are_refused():
    with pytest.raises(ValueError, match="'roc_auc' needs two classes, but this set has 3"):
        LogisticProbe(metric="roc_auc")(*blobs())
    with pytest.raises(ValueError, match="'accuracy' needs one class a row"):
        LogisticProbe(metric="accuracy")(*multilabel())


def test_raw_rows_keep_what_their_length_says_and_do_not_depend_on_the_scale_of_all():
    features, probe_set = blobs(d=4, spread=0.1)
    direction = torch.ones(len(features), 4) / 2
    lengths_only = direction * (1.0 + probe_set.labels[:, None])  # classes differ in nothing but the length of rows
    chance = LogisticProbe()(lengths_only, probe_set).test[0]
    raw = LogisticProbe(rows="raw")(lengths_only, probe_set)
    assert chance < 0.6 < raw.test[0]
    assert LogisticProbe(rows="raw")(1000 * lengths_only, probe_set).details["chosen_c"] == raw.details["chosen_c"]


def test_rows_that_are_neither_unit_nor_raw_are_refused():
    with pytest.raises(ValueError, match=r"rows must be 'unit' or 'raw', got 'l1'"):
        LogisticProbe(rows="l1")


@pytest.mark.parametrize("solver", ["auto", "liblinear"])
def test_sets_so_large_that_they_are_kept_in_float32_are_evaluated_as_others(solver, monkeypatch):
    probe = LogisticProbe(split="random", repeats=3, solver=solver)
    expected = probe(*blobs(spread=2.0))
    monkeypatch.setattr(logistic, "SINGLE", 1)
    found = probe(*blobs(spread=2.0))
    assert found.test == pytest.approx(expected.test, abs=0.02)
    assert found.details["unconverged"] == 0
