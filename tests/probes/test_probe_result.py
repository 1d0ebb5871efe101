import numpy as np
import pytest
import torch
from probe_data import noisy
from torch.nn.functional import normalize

from sslcollapse.core.types import Split
from sslcollapse.probes.base import ProbeResult, scaled
from sslcollapse.probes.knn import KNNProbe
from sslcollapse.probes.linear import LinearProbe
from sslcollapse.probes.logistic import LogisticProbe

SPLIT = Split(np.array([0]), np.array([1]), np.array([2]))


def test_json_holds_sample_deviation_and_null_for_one_split():
    several = ProbeResult("accuracy", [0.5, 0.7], [0.6, 0.6], "lbfgs", (SPLIT, SPLIT)).to_json()
    assert several["test_accuracy"] == {
        "values": [0.5, 0.7],
        "mean": pytest.approx(0.6),
        "std": pytest.approx(0.1 * 2**0.5),
    }
    one = ProbeResult("micro_f1", [0.5], [0.6], "torch", (SPLIT,)).to_json()
    assert one["test_micro_f1"]["std"] is None
    assert one["validation_micro_f1"]["mean"] == 0.6


def test_json_holds_the_solver_and_the_details_beside_the_metrics():
    stored = ProbeResult("accuracy", [0.5], [0.6], "lbfgs", (SPLIT,), {"chosen_c": [1.0]}).to_json()
    assert list(stored) == ["solver", "test_accuracy", "validation_accuracy", "chosen_c"]
    assert (stored["solver"], stored["chosen_c"]) == ("lbfgs", [1.0])


PROBES_OF_FEATURES = {
    "logistic": LogisticProbe(split="random", repeats=1),
    "raw": LogisticProbe(split="random", repeats=1, rows="raw"),
    "knn": KNNProbe(split="random", repeats=1, k=10),
    "linear": LinearProbe(split="random", repeats=1, epochs=5),
    "length": LinearProbe(split="random", repeats=1, epochs=5, scaling="length"),
}


@pytest.mark.parametrize("power", [-130, -60, 60, 120])
@pytest.mark.parametrize("probe", PROBES_OF_FEATURES)
def test_features_of_an_extreme_size_are_not_taken_for_zeros(probe, power):
    features, probe_set = noisy()
    exact = features.bfloat16().float()  # so few digits that nothing is lost where float32 has few left
    expected = PROBES_OF_FEATURES[probe](exact, probe_set)
    assert PROBES_OF_FEATURES[probe]((exact.double() * 2.0**power).float(), probe_set).test == expected.test
    assert PROBES_OF_FEATURES[probe](exact.double() * 2.0**power, probe_set).test == expected.test


def test_scaling_by_rows_changes_no_digit():
    features, _ = noisy()
    assert torch.equal(normalize(scaled(features, 1)), normalize(features))
    assert not scaled(torch.zeros(3, 2), 0).any()
