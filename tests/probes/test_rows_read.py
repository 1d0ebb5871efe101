"""Probes read the rows of their splits and no others, and hold no copies of all rows."""

import numpy as np
import pytest
import torch

from sslcollapse.core.registry import PROBES
from sslcollapse.core.types import ProbeSet, Split
from sslcollapse.probes import base, logistic
from sslcollapse.probes.evaluate import rows_read, run_probes
from sslcollapse.probes.metrics import Tally, scores


def labelled(rows=400, classes=3, dim=8):
    """Features of which a third of the rows are in the splits."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (rows,), generator=rng)
    x = torch.randn(rows, dim, generator=rng) + labels[:, None] * torch.rand(dim, generator=rng)
    order = np.random.default_rng(0).permutation(rows)
    cuts = (0, 60, 90, 140), (100, 150, 170, 200)
    splits = [Split(order[a:b], order[b:c], order[c:d]) for a, b, c, d in cuts]
    return x, ProbeSet([], labels, classes, {"public": splits})


SPECS = {
    "logistic": dict(type="logistic", c_step=5),
    "liblinear": dict(type="logistic", solver="liblinear", c_step=5),
    "knn": dict(type="knn", k=7, chunk=16),
    "linear": dict(type="linear", epochs=3),
}


def test_results_from_the_rows_of_the_splits_alone_are_those_from_all_rows_to_the_bit():
    x, probe_set = labelled()
    probes = {name: PROBES.build(spec) for name, spec in SPECS.items()}
    rows = rows_read(probes, probe_set)
    assert len(rows) == 200
    whole, splits = run_probes(probes, x, probe_set)
    found, same = run_probes(probes, x[rows], probe_set, rows=rows)
    assert found == whole
    assert splits.keys() == same.keys()
    assert all(np.array_equal(splits[key], same[key]) for key in splits)


def test_probes_that_may_read_any_row_are_given_all():
    _, probe_set = labelled()
    random = PROBES.build(dict(type="knn", split="random", repeats=1))
    assert rows_read({"random": random}, probe_set) is None
    assert rows_read({"own": lambda features, probe_set: None}, probe_set) is None


@pytest.mark.parametrize("kind", ["unit", "raw"])
@pytest.mark.parametrize("metric", ["accuracy", "micro_f1"])
def test_logistic_regression_makes_and_scores_rows_in_tiles_with_the_same_result(kind, metric, monkeypatch):
    x, probe_set = labelled()
    probe = PROBES.build(dict(type="logistic", rows=kind, metric=metric, c_step=5))
    monkeypatch.setattr(logistic, "SINGLE", 1)  # rows are made where they are read, as of many
    expected = probe(x, probe_set).to_json()
    monkeypatch.setattr(logistic, "TILE", 64)
    monkeypatch.setattr(base, "TILE", 64)
    assert probe(x, probe_set).to_json() == expected


def test_a_knn_probe_normalises_its_bank_in_tiles_with_the_same_bits(monkeypatch):
    x, probe_set = labelled(dim=33)
    rows = probe_set.splits["public"][0].train
    from sslcollapse.probes.knn import _unit

    expected = _unit(x)[rows]
    monkeypatch.setattr(base, "TILE", 4 * 33 * 5)
    assert torch.equal(base.rows_made(_unit, x, rows), expected)


@pytest.mark.parametrize(
    ("metric", "shape"), [("accuracy", (50,)), ("micro_f1", (50,)), ("micro_f1", (50, 2)), ("roc_auc", (50,))]
)
def test_a_metric_of_parts_is_that_of_all_rows(metric, shape):
    rng = torch.Generator().manual_seed(0)
    predicted = torch.randn(3, 50, 2, generator=rng)
    labels = torch.randint(2, shape, generator=rng)
    tally = Tally(metric)
    for start in range(0, 50, 17):
        tally.add(predicted[:, start : start + 17], labels[start : start + 17])
    assert tally.values() == scores(metric, predicted, labels)


def test_rows_that_are_not_finite_are_found_in_tiles(monkeypatch):
    monkeypatch.setattr(base, "TILE", 16)
    x = torch.zeros(9, 8)
    x[7, 3] = torch.inf
    with pytest.raises(base.DataError, match="1 of 9 feature rows hold NaN or infinite values, the first is row 7"):
        base.check_features(x, torch.zeros(9))
