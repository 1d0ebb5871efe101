"""What probes refuse of a set's labels, on the very splits that they will use, before there are features."""

import numpy as np
import pytest
import torch
from probe_data import noisy

from sslcollapse.core.errors import DataError
from sslcollapse.core.types import ProbeSet, Split
from sslcollapse.probes.evaluate import check_probes
from sslcollapse.probes.knn import KNNProbe
from sslcollapse.probes.linear import LinearProbe
from sslcollapse.probes.logistic import LogisticProbe

PROBES = [LogisticProbe, LinearProbe, KNNProbe]
every_probe = pytest.mark.parametrize("probe", PROBES)


def labelled(labels: list[int], classes: int = 2) -> ProbeSet:
    """30 rows, of which the public split trains on the first ten, validates on the next, tests on the last."""
    split = Split(*np.array_split(np.arange(30), 3))
    return ProbeSet((), torch.tensor(labels), classes, {"public": [split]})


@every_probe
@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_part_of_one_class_in_a_binary_set_is_refused_before_there_are_features(probe, part):
    labels = [0, 1] * 15
    labels[10 * part : 10 * part + 10] = [1] * 10
    name = ("training", "validation", "test")[part]
    with pytest.raises(
        DataError, match=f"evaluate.a: split 0 of 'public': all 10 rows of the {name} part are of class 1"
    ):
        check_probes({"a": probe()}, labelled(labels))


@every_probe
def test_a_validation_part_of_one_class_is_fine_where_the_metric_is_accuracy(probe):
    labels = [0, 1] * 15
    labels[10:20] = [1] * 10
    check_probes({"a": probe(metric="accuracy")}, labelled(labels))


@every_probe
@pytest.mark.parametrize("split", ["public", "random"])
def test_labels_of_minus_one_in_a_split_that_will_be_used_are_refused_before_there_are_features(probe, split):
    labels = [0, 1, 2] * 10
    labels[25] = -1
    with pytest.raises(DataError, match=r"evaluate.a: 1 rows of the splits have labels outside 0..2.* row 25 with -1"):
        check_probes({"a": probe(split=split)}, labelled(labels, 3))


@every_probe
def test_unlabelled_rows_outside_the_splits_are_no_fault(probe):
    features, probe_set = noisy()
    unused = probe_set.splits["public"][0].test[:5]
    probe_set.labels[unused] = -1
    split = probe_set.splits["public"][0]
    probe_set.splits["public"][0] = Split(split.train, split.validation, split.test[5:])
    check_probes({"a": probe()}, probe_set)
    assert len(probe()(features, probe_set).test) == 1


@every_probe
def test_random_splits_are_checked_one_by_one_with_their_own_seed_and_fractions(probe):
    labels = [0] * 29 + [1]
    with pytest.raises(DataError, match=r"split \d of 'random': all \d+ rows of the (training|validation|test) part"):
        check_probes({"a": probe(split="random", repeats=3, fractions=[0.4, 0.3, 0.3])}, labelled(labels))


def test_multi_label_rows_that_are_all_alike_teach_nothing():
    split = Split(*np.array_split(np.arange(30), 3))
    labels = torch.zeros(30, 4)
    labels[:, 1] = 1.0
    with pytest.raises(DataError, match="all 10 rows of the training part have the same labels"):
        check_probes({"a": LogisticProbe()}, ProbeSet((), labels, 4, {"public": [split]}))
