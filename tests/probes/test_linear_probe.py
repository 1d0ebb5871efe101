import dataclasses

import numpy as np
import pytest
import torch
from probe_data import noisy
from sklearn.linear_model import LogisticRegression
from torch import nn

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.core.registry import PROBES
from sslcollapse.core.seeding import generator
from sslcollapse.probes import linear
from sslcollapse.probes.linear import LinearProbe
from sslcollapse.recipe.check import describe

SCALINGS = ["standard", "length"]


def quick(**arguments):
    return LinearProbe(**{"epochs": 20, "batch_size": 32, **arguments})


def train_linear(x, labels, *args, **kw):
    """Regressions of one training part."""
    weights, biases = linear.train_linear(x[None], labels[None], *args, **kw)
    return weights[0], biases[0]


def scores(x, trained, k=0):
    weights, biases = trained
    return x @ weights[k].T + biases[k]


def test_the_registry_builds_it_from_a_recipe():
    probe = PROBES.build({"type": "linear", "split": "random", "repeats": 2, "fractions": (0.4, 0.2, 0.4), "epochs": 2})
    result = probe(*noisy())
    assert (result.metric, len(result.test), len(result.splits)) == ("accuracy", 2, 2)
    assert describe(PROBES.parameters("linear")["epochs"].annotation) == "an int >= 1"


def test_each_layer_is_trained_as_by_torch_sgd_alone():
    features, probe_set = noisy(n=50)
    lrs, epochs, batch_size = [0.01, 0.5], 3, 16
    weights, biases = train_linear(
        features, probe_set.labels, 4, lrs, epochs=epochs, batch_size=batch_size, momentum=0.8, seed=5
    )
    for lr, weight, bias in zip(lrs, weights, biases, strict=True):
        layer = nn.Linear(12, 4)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.8)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * 4)
        for epoch in range(epochs):
            order = torch.randperm(50, generator=generator(torch.device("cpu"), "probe order", 5, epoch))
            for rows in order.tensor_split(4):  # 13, 13, 12, 12 rows
                optimizer.zero_grad()
                nn.functional.cross_entropy(layer(features[rows]), probe_set.labels[rows]).backward()
                optimizer.step()
                schedule.step()
        # torch scales the learning rate by the step before; both go along the same cosine.
        torch.testing.assert_close(weight, layer.weight.detach(), rtol=2e-4, atol=1e-6)
        torch.testing.assert_close(bias, layer.bias.detach(), rtol=2e-4, atol=1e-6)


def test_long_training_finds_the_optimum_of_the_cross_entropy():
    features, probe_set = noisy(n=400, signal=0.5)
    trained = train_linear(features, probe_set.labels, 4, [0.3], epochs=200, batch_size=400)
    reference = LogisticRegression(C=np.inf, tol=1e-8, max_iter=5000).fit(features.numpy(), probe_set.labels.numpy())
    expected = reference.predict_proba(features.numpy())
    np.testing.assert_allclose(scores(features, trained).softmax(1).numpy(), expected, atol=2e-3)


def test_learning_rates_do_not_touch_each_other():
    features, probe_set = noisy()
    arguments = {"epochs": 5, "batch_size": 32}
    together = train_linear(features, probe_set.labels, 4, [0.01, 0.1, 1.0], **arguments)
    for k, lr in enumerate((0.01, 0.1, 1.0)):
        alone = train_linear(features, probe_set.labels, 4, [lr], **arguments)
        torch.testing.assert_close(scores(features, together, k), scores(features, alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_separable_clusters_are_told_apart(scaling):
    result = quick(scaling=scaling)(*noisy(signal=30.0))
    assert result.test == [1.0]
    assert result.solver == "sgd"


def test_the_scale_and_offset_of_a_column_do_not_matter_when_standardised():
    features, probe_set = noisy(signal=1.0)
    moved = features * torch.logspace(-2, 2, 12) + torch.linspace(-3, 3, 12)
    assert quick()(features, probe_set).test == quick()(moved, probe_set).test


def test_the_length_of_a_row_does_not_matter_when_scaled_to_one_length():
    features, probe_set = noisy(signal=1.0)
    moved = features * torch.logspace(-3, 3, len(features))[:, None]
    assert quick(scaling="length")(features, probe_set).test == quick(scaling="length")(moved, probe_set).test


@pytest.mark.parametrize("value", [0.0, 1.0, 1234.5678])
def test_constant_columns_and_collapsed_features_survive(value):
    features, probe_set = noisy(signal=1.0)
    constant = torch.full((len(features), 3), value)
    assert quick()(torch.cat([features, constant], 1), probe_set).test == quick()(features, probe_set).test
    for scaling in SCALINGS:
        assert quick(scaling=scaling)(torch.full_like(features, value), probe_set).test[0] < 0.5


def test_columns_that_vary_by_rounding_only_have_no_say():
    features, probe_set = noisy()
    rounding = torch.full((len(features), 1), 1000.0)
    rounding += 2**-14 * probe_set.labels[:, None]  # neighbouring float32 numbers
    assert len(rounding.unique()) == 4
    assert quick()(rounding, probe_set).test[0] < 0.5
    assert quick()(rounding - 1000, probe_set).test[0] > 0.5


def test_a_column_constant_in_training_alone_has_no_say():
    features, probe_set = noisy(signal=1.0)
    extra = torch.full((len(features), 1), 2.0)
    split = probe_set.splits["public"][0]
    extra[split.test] = torch.randn(len(split.test), 1)
    assert quick()(torch.cat([features, extra], 1), probe_set).test == quick()(features, probe_set).test


def test_it_repeats_exactly_whatever_the_global_generator():
    features, probe_set = noisy()
    first = quick()(features.requires_grad_(), probe_set).to_json()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert quick()(features, probe_set).to_json() == first
    assert torch.equal(torch.get_rng_state(), state)


def test_the_seed_orders_the_rows():
    features, probe_set = noisy()
    a, b = (
        train_linear(features, probe_set.labels, 4, [0.3], epochs=1, batch_size=16, seed=seed)[0] for seed in (0, 1)
    )
    assert not torch.allclose(a, b)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(
    ("leaking", "validation_is_perfect", "test_is_perfect"),
    [
        (("train",), False, False),
        (("train", "validation"), True, False),
        (("train", "test"), False, True),
        (("validation", "test"), False, False),  # nothing to learn the leak from
    ],
)
def test_a_leak_shows_only_in_the_part_that_has_it(scaling, leaking, validation_is_perfect, test_is_perfect):
    features, probe_set = noisy(signal=0.0)
    split = probe_set.splits["public"][0]
    leak = torch.zeros(len(features), probe_set.num_classes)
    for part in leaking:
        rows = getattr(split, part)
        leak[rows, probe_set.labels[rows]] = 20.0
    result = quick(scaling=scaling)(torch.cat([features, leak], 1), probe_set)
    for value, perfect in ((result.validation[0], validation_is_perfect), (result.test[0], test_is_perfect)):
        assert value == 1.0 if perfect else value < 0.5


@pytest.mark.parametrize("scaling", SCALINGS)
def test_test_rows_change_neither_the_chosen_learning_rate_nor_validation(scaling):
    features, probe_set = noisy()
    test = probe_set.splits["public"][0].test
    before = quick(scaling=scaling)(features, probe_set)
    labels = probe_set.labels.clone()
    labels[test] = labels[np.random.default_rng(1).permutation(test)]
    changed = features.clone()
    changed[test] *= -5
    for after in (
        quick(scaling=scaling)(features, dataclasses.replace(probe_set, labels=labels)),
        quick(scaling=scaling)(changed, probe_set),
    ):
        assert (before.details, before.validation) == (after.details, after.validation)
        assert before.test != after.test


def test_validation_rows_neither_train_nor_scale():
    features, probe_set = noisy()
    changed = features.clone()
    changed[probe_set.splits["public"][0].validation] *= 100
    assert quick(lrs=[0.1])(features, probe_set).test == quick(lrs=[0.1])(changed, probe_set).test


def test_test_is_scored_with_the_learning_rate_of_validation_even_when_another_is_better():
    lrs = [0.0001, 0.001, 0.01, 0.1, 1.0, 3.0]
    features, probe_set = noisy(seed=8)
    curve = [quick(lrs=[lr])(features, probe_set) for lr in lrs]
    validation = [each.validation[0] for each in curve]
    test = [each.test[0] for each in curve]
    chosen = validation.index(max(validation))
    assert max(test) > test[chosen], "the data must have a learning rate that is better on test"
    result = quick(lrs=lrs)(features, probe_set)
    assert result.details["chosen_lr"] == [lrs[chosen]]
    assert (result.validation, result.test) == ([validation[chosen]], [test[chosen]])


def test_of_equally_good_learning_rates_the_smallest_is_chosen():
    result = quick(lrs=[1.0, 0.1, 0.3])(*noisy(signal=30.0))
    assert (result.validation, result.to_json()["chosen_lr"]) == ([1.0], [0.1])


def test_every_split_is_evaluated_alone_and_in_order():
    features, probe_set = noisy()
    together = quick(split="random", repeats=3, fractions=(0.3, 0.3, 0.4))(features, probe_set)
    fixed = dataclasses.replace(probe_set, splits={str(k): [s] for k, s in enumerate(together.splits)})
    for k in range(3):
        alone = quick(split=str(k))(features, fixed)
        assert (alone.test, alone.details["chosen_lr"]) == ([together.test[k]], [together.details["chosen_lr"][k]])


def test_small_steps_use_one_thread_and_give_the_others_back(monkeypatch):
    before, train = torch.get_num_threads(), linear.train_linear
    torch.set_num_threads(3)
    try:
        seen = []
        monkeypatch.setattr(
            linear, "train_linear", lambda *args, **kw: seen.append(torch.get_num_threads()) or train(*args, **kw)
        )
        quick(epochs=1)(*noisy())
        assert (seen, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)


def test_splits_of_one_size_are_trained_together_and_as_alone(monkeypatch):
    features, probe_set = noisy()
    probe = quick(split="random", repeats=4, fractions=(0.3, 0.3, 0.4))
    parts, train = [], linear.train_linear
    monkeypatch.setattr(linear, "train_linear", lambda x, *args, **kw: parts.append(len(x)) or train(x, *args, **kw))
    together = probe(features, probe_set)
    monkeypatch.setattr(linear, "TOGETHER", 1)
    assert probe(features, probe_set).to_json() == together.to_json()
    assert parts == [4, 1, 1, 1, 1]


def test_binary_sets_are_scored_by_roc_auc():
    result = quick()(*noisy(classes=2, signal=2.0))
    assert result.metric == "roc_auc"
    assert 0.9 < result.test[0] <= 1.0


def test_multilabel_sets_are_refused_with_the_probe_to_use():
    features, probe_set = noisy()
    probe_set = dataclasses.replace(probe_set, labels=torch.zeros(len(features), 4))
    with pytest.raises(RecipeError, match=r"'linear' needs one class a row.*use a probe of type 'logistic'"):
        LinearProbe()(features, probe_set)


def test_nan_features_are_named_by_row():
    features, probe_set = noisy()
    features[7, 3] = float("nan")
    with pytest.raises(DataError, match="the first is row 7"):
        LinearProbe()(features, probe_set)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"lrs": []}, r"lrs must be one or more positive numbers, got \[\]"),
        ({"lrs": [0.1, 0.0]}, r"lrs must be one or more positive numbers, got \[0.1, 0.0\]"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"scaling": "l2"}, "scaling must be one of standard, length, got 'l2'"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"split_seed": -1}, "split_seed must be >= 0, got -1"),
    ],
)
def test_bad_arguments_are_quoted(arguments, message):
    with pytest.raises(ValueError, match=message):
        LinearProbe(**arguments)
