import dataclasses

import numpy as np
import pytest
import torch
from probe_data import noisy
from torch.nn.functional import normalize

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.core.registry import PROBES
from sslcollapse.core.types import ProbeSet, Split
from sslcollapse.probes import knn
from sslcollapse.probes.evaluate import check_probes
from sslcollapse.probes.knn import KNNProbe, vote_shares
from sslcollapse.recipe.check import describe


def directions(queries=30, bank=70, d=6, classes=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    rows = normalize(torch.randn(queries + bank, d, generator=generator, dtype=torch.float64)).to(dtype)
    return rows[:queries], rows[queries:], torch.randint(classes, (bank,), generator=generator)


def test_the_registry_builds_it_from_a_recipe():
    probe = PROBES.build({"type": "knn", "split": "random", "repeats": 3, "fractions": (0.4, 0.2, 0.4), "k": 5})
    result = probe(*noisy())
    assert (result.metric, len(result.test), len(result.splits)) == ("accuracy", 3, 3)
    assert describe(PROBES.parameters("knn")["temperature"].annotation) == "a number > 0"


@pytest.mark.parametrize("k", [1, 7, 70])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_shares_are_those_of_the_formula(k, temperature):
    queries, bank, labels = directions()
    expected = np.zeros((30, 5))
    for i, query in enumerate(queries.numpy()):
        similarity = [float(query @ row) for row in bank.numpy()]
        for j in sorted(range(70), key=lambda j: -similarity[j])[:k]:
            expected[i, labels[j]] += np.exp(similarity[j] / temperature)
    expected /= expected.sum(1, keepdims=True)
    shares = vote_shares(queries, bank, labels, 5, k=k, temperature=temperature)
    np.testing.assert_allclose(shares.numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("k", [1, 10, 50])
def test_predictions_are_those_of_lightly(k):
    benchmarking = pytest.importorskip("lightly.utils.benchmarking")
    queries, bank, labels = directions(queries=200, dtype=torch.float32)
    expected = benchmarking.knn_predict(queries, bank.T, labels, num_classes=5, knn_k=k, knn_t=0.1)[:, 0]
    assert torch.equal(vote_shares(queries, bank, labels, 5, k=k).argmax(1), expected)


def test_chunks_change_nothing():
    features, probe_set = noisy(n=600)
    whole = KNNProbe(k=20)(features, probe_set).to_json()
    assert all(KNNProbe(k=20, chunk=chunk)(features, probe_set).to_json() == whole for chunk in (1, 7, 200))


@pytest.mark.parametrize("tile", [30, 70, 199])
def test_tiles_of_the_training_part_change_nothing(tile, monkeypatch):
    features, probe_set = noisy(n=600)
    whole = KNNProbe(k=20)(features, probe_set).to_json()
    seen, topk = [], torch.Tensor.topk
    monkeypatch.setattr(knn, "TILE", tile)
    monkeypatch.setattr(torch.Tensor, "topk", lambda x, *args, **kw: seen.append(x.shape[1]) or topk(x, *args, **kw))
    assert KNNProbe(k=20)(features, probe_set).to_json() == whole
    assert max(seen) == max(tile, 40)  # of 200 training rows; the nearest of two tiles meet


def test_never_more_than_a_chunk_of_similarities_exists(monkeypatch):
    seen = []
    topk = torch.Tensor.topk
    monkeypatch.setattr(
        torch.Tensor, "topk", lambda x, *args, **kw: seen.append(tuple(x.shape)) or topk(x, *args, **kw)
    )
    KNNProbe(k=5, chunk=32)(*noisy(n=300))
    assert set(seen) == {(32, 100), (4, 100)}


def test_a_small_temperature_does_not_overflow():
    queries, bank, labels = directions(dtype=torch.float32)
    shares = vote_shares(queries, bank, labels, 5, temperature=1e-4)
    assert torch.equal(shares.argmax(1), labels[(queries @ bank.T).argmax(1)])


def test_k_is_capped_at_the_training_part_and_reported():
    features, probe_set = noisy()
    result = KNNProbe(k=200)(features, probe_set)
    assert result.details["k"] == [80]
    assert result.test == KNNProbe(k=80)(features, probe_set).test
    assert KNNProbe(k=3)(features, probe_set).to_json()["k"] == [3]


def test_nearest_rows_decide_and_length_does_not_matter():
    features, probe_set = noisy(signal=30.0)
    assert KNNProbe(k=10)(features, probe_set).test == [1.0]
    weak, _ = noisy()
    scaled = weak * torch.logspace(-3, 3, len(weak))[:, None]
    assert KNNProbe(k=10)(weak, probe_set).test == KNNProbe(k=10)(scaled, probe_set).test


def test_collapsed_features_are_at_chance_and_zero_rows_survive():
    features, probe_set = noisy()
    assert KNNProbe()(torch.ones_like(features), probe_set).test[0] < 0.5
    assert KNNProbe()(torch.zeros_like(features), probe_set).test[0] < 0.5


def test_it_repeats_exactly_and_leaves_the_features_alone():
    features, probe_set = noisy()
    before = features.clone()
    first = KNNProbe(k=9)(features.requires_grad_(), probe_set).to_json()
    assert first == KNNProbe(k=9)(features, probe_set).to_json()
    assert torch.equal(features, before)


def test_a_leak_shows_only_in_the_part_that_has_it():
    features, probe_set = noisy(signal=0.0)
    split = probe_set.splits["public"][0]
    for leaking in (("train",), ("train", "validation"), ("train", "test"), ("validation", "test")):
        leak = torch.zeros(len(features), probe_set.num_classes)
        for part in leaking:
            rows = getattr(split, part)
            leak[rows, probe_set.labels[rows]] = 20.0
        result = KNNProbe(k=10)(torch.cat([features, leak], 1), probe_set)
        for part, value in (("validation", result.validation[0]), ("test", result.test[0])):
            assert value == 1.0 if leaking[0] == "train" and part in leaking else value < 0.5


def test_rows_of_test_and_validation_are_never_neighbours():
    """Every test row has a twin with its label in test and validation, and one of another class in training."""
    points = normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(0)))
    features = points.repeat(4, 1)  # train, validation, test, test
    labels = torch.cat([torch.ones(20), torch.zeros(60)]).long()
    labels[0] = 2  # so that not all training rows agree
    split = Split(*(np.arange(80)[part] for part in (slice(20), slice(20, 40), slice(40, 80))))
    probe_set = ProbeSet((), labels, 3, {"public": [split]})
    result = KNNProbe(k=1)(features, probe_set)
    assert (result.validation, result.test) == ([0.0], [0.0])


def test_test_rows_do_not_change_validation_nor_validation_rows_test():
    features, probe_set = noisy()
    split = probe_set.splits["public"][0]
    before = KNNProbe(k=10)(features, probe_set)
    for part, kept, moved in (("test", "validation", "test"), ("validation", "test", "validation")):
        changed = features.clone()
        changed[getattr(split, part)] *= -1
        after = KNNProbe(k=10)(changed, probe_set)
        assert getattr(before, kept) == getattr(after, kept)
        assert getattr(before, moved) != getattr(after, moved)


def test_binary_sets_are_scored_by_roc_auc_of_the_shares():
    features, probe_set = noisy(classes=2, signal=2.0)
    result = KNNProbe(k=20)(features, probe_set)
    assert result.metric == "roc_auc"
    assert 0.8 < result.test[0] <= 1.0
    assert KNNProbe(metric="accuracy")(features, probe_set).metric == "accuracy"


def test_multilabel_sets_are_refused_with_the_probe_to_use():
    features, probe_set = noisy()
    probe_set = dataclasses.replace(probe_set, labels=torch.zeros(len(features), 4))
    with pytest.raises(RecipeError, match=r"'knn' needs one class a row.*use a probe of type 'logistic'"):
        KNNProbe()(features, probe_set)


def test_unusable_features_and_labels_are_refused():
    features, probe_set = noisy()
    features[7, 3] = float("nan")
    with pytest.raises(DataError, match="the first is row 7"):
        KNNProbe()(features, probe_set)
    with pytest.raises(DataError, match=r"each of the 240 labels, got shape \(239, 12\)"):
        KNNProbe()(features[1:], probe_set)
    with pytest.raises(RecipeError, match="no split 'publik'; did you mean 'public'"):
        KNNProbe(split="publik")(features, probe_set)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be >= 1, got 0"),
        ({"chunk": 0}, "chunk must be >= 1, got 0"),
        ({"temperature": 0.0}, "temperature must be a positive number, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be a positive number, got nan"),
        ({"repeats": 0}, "repeats must be >= 1, got 0"),
        ({"metric": "f1"}, "metric must be one of auto, accuracy, micro_f1, roc_auc, got 'f1'"),
    ],
)
def test_bad_arguments_are_quoted(arguments, message):
    with pytest.raises(ValueError, match=message):
        KNNProbe(**arguments)


def test_probes_refuse_a_set_of_one_class_before_there_are_features():
    split = Split(np.arange(2), np.arange(2, 3), np.arange(3, 4))
    one = ProbeSet([torch.zeros(4, 2)], torch.zeros(4, dtype=torch.int64), 1, {"public": (split,)})
    with pytest.raises(DataError, match=r"evaluate\.knn: all samples are of one class.*evaluate=\{\}"):
        check_probes({"knn": KNNProbe()}, one)
