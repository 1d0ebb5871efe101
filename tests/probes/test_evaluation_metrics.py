import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from sslcollapse.core.types import ProbeSet
from sslcollapse.probes.metrics import accuracy, metric_for, micro_f1, roc_auc, score


def probe_set(labels, num_classes):
    return ProbeSet(views=(), labels=labels, num_classes=num_classes, splits={})


def test_the_customary_metric_follows_the_labels():
    assert metric_for(probe_set(torch.tensor([0, 1, 2]), 3)) == "accuracy"
    assert metric_for(probe_set(torch.tensor([0, 1]), 2)) == "roc_auc"
    assert metric_for(probe_set(torch.zeros(3, 2), 2)) == "micro_f1"


def test_accuracy_takes_tensors_and_arrays():
    assert accuracy(torch.tensor([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75


def test_micro_f1_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    predicted, labels = rng.integers(0, 2, (2, 50, 7))
    assert micro_f1(predicted, labels) == pytest.approx(f1_score(labels, predicted, average="micro"))


def test_micro_f1_of_single_labels_is_accuracy():
    predicted, labels = np.random.default_rng(0).integers(0, 4, (2, 30))
    expected = f1_score(labels, predicted, average="micro")
    assert micro_f1(predicted, labels) == pytest.approx(expected) == pytest.approx(accuracy(predicted, labels))


def test_micro_f1_without_any_positive_is_zero():
    assert micro_f1(torch.zeros(3, 2), torch.zeros(3, 2)) == 0.0


def test_roc_auc_is_the_share_of_pairs_in_order():
    assert roc_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == pytest.approx(0.75)


def test_roc_auc_of_one_class_says_what_is_missing():
    with pytest.raises(ValueError, match=r"rows of both classes, got only \[1\] among 2 rows"):
        roc_auc(torch.tensor([0.1, 0.2]), torch.tensor([1, 1]))


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 1\) do not belong to labels of shape \(3,\)"):
        accuracy(torch.zeros(3, 1), torch.zeros(3))


def test_scores_become_classes_labels_or_an_order():
    scores = torch.tensor([[2.0, 1.0], [-3.0, -2.0], [0.5, -1.0]])
    assert score("accuracy", scores, torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)
    assert score("micro_f1", scores, torch.tensor([[1, 1], [0, 0], [1, 0]])) == 1.0
    assert score("roc_auc", scores, torch.tensor([0, 1, 0])) == 1.0
