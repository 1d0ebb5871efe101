import numpy as np
import pytest

from sslcollapse.core.types import Split
from sslcollapse.probes.base import ProbeResult

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
