"""The choices and results of the logistic probe are those of scikit-learn, one fit after the other to convergence.

On features of encoders: with real data where it is there, on digits always.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from probe_data import noisy

from sslcollapse.core.types import ProbeSet
from sslcollapse.probes.logistic import LogisticProbe
from sslcollapse.rank.measure import represent
from sslcollapse.recipe import resolve
from sslcollapse.training.build import build_domain, build_encoder

sys.path.insert(0, str(Path(__file__).parents[2]))
from tools.bench.probes import ScikitLearnProbe

TOLERANCE = 1e-8
"""Largest gradient entry where scikit-learn's lbfgs stops: its default of 1e-4 leaves predictions at large C open."""


def represented(dataset, hidden=(64, 32)):
    """What an untrained GCN makes of a graph."""
    recipe = resolve(
        {
            "name": "untrained",
            "domain": {"type": "graph", "dataset": dataset, "views": {"strength": 0.0}},
            "encoder": {"type": "gcn", "hidden": list(hidden), "norm": "batch"},
            "objective": {"type": "bgrl"},
            "optim": {"type": "adamw", "lr": 1e-3},
            "train": {"steps": 1},
        }
    )
    domain = build_domain(recipe)
    domain.load()
    probe_set = domain.probe_set()
    return represent(build_encoder(recipe, domain), probe_set.views), probe_set


def both(features, probe_set, **settings):
    """Our result and scikit-learn's."""
    ours, theirs = LogisticProbe(**settings), ScikitLearnProbe(tolerance=TOLERANCE, **settings)
    ours.max_iter, theirs.max_iter = 1000, 20_000
    return ours(features, probe_set), theirs(features, probe_set)


def assert_equal(ours, theirs):
    assert ours.details["unconverged"] == 0
    assert ours.details["chosen_c"] == theirs.details["chosen_c"]
    assert ours.validation == theirs.validation
    assert ours.test == theirs.test


@pytest.mark.parametrize("solver", ["auto", "liblinear"])
@pytest.mark.parametrize("settings", [{"split": "public"}, {"split": "random", "repeats": 2}], ids=["public", "random"])
def test_on_digits_every_c_chosen_and_every_accuracy_is_scikit_learns(settings, solver):
    assert_equal(*both(*represented({"type": "digits"}), c_step=2, solver=solver, **settings))


@pytest.mark.parametrize("name", ["Cora", "CiteSeer"])
def test_on_citations_every_c_chosen_and_every_accuracy_is_scikit_learns(name, data_root):
    features, probe_set = represented({"type": "planetoid", "name": name}, (512, 256))
    assert_equal(*both(features, probe_set, split="public"))
    assert_equal(*both(features, probe_set, split="random", repeats=1, c_step=2))


def test_on_cora_one_class_against_the_rest_is_liblinears(data_root):
    features, probe_set = represented({"type": "planetoid", "name": "Cora"}, (512, 256))
    assert_equal(*both(features, probe_set, split="public", solver="liblinear"))


@pytest.mark.parametrize("solver", ["auto", "liblinear"])
@pytest.mark.parametrize("classes", [2, 3])
def test_on_few_classes_every_c_chosen_and_every_score_is_scikit_learns(classes, solver):
    settings = {"split": "random", "repeats": 3, "fractions": (0.3, 0.3, 0.4), "solver": solver}
    ours, theirs = both(*noisy(classes=classes), **settings)
    assert ours.metric == ("roc_auc" if classes == 2 else "accuracy")
    assert ours.details["chosen_c"] == theirs.details["chosen_c"]
    np.testing.assert_allclose(ours.test, theirs.test, atol=1e-12)


def test_on_several_labels_a_row_every_c_chosen_and_every_score_is_scikit_learns():
    features, probe_set = noisy()
    labels = torch.stack([(features[:, k] > 0.3 * k).float() for k in range(3)], 1)
    labels = torch.where(torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.1, 1 - labels, labels)
    several = ProbeSet((), labels, 3, probe_set.splits)
    ours, theirs = both(features, several, split="random", repeats=3, fractions=(0.3, 0.3, 0.4))
    assert ours.metric == "micro_f1"
    assert_equal(ours, theirs)
