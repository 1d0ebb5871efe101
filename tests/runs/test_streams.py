"""A record is of today's random numbers if its streams are, or if its run draws from none that changed."""

from pathlib import Path

import pytest

from sslcollapse.ablation.job import why_another
from sslcollapse.core.seeding import STREAMS
from sslcollapse.recipe import assign, load, resolve
from sslcollapse.runs.directory import of_most, streams_of

RECIPES = Path(__file__).parents[2] / "recipes"


def recipe(name, **changes):
    return resolve(assign(load(RECIPES / f"{name}.py"), changes))


def same_streams(record, recipe):
    return not why_another(record, {}, streams_of(recipe))


@pytest.mark.parametrize("name", ["bgrl_cora", "grace_citeseer", "toy_noise"])
def test_a_run_on_one_graph_or_a_toy_draws_what_it_drew_in_version_1(name):
    if name == "toy_noise":
        assert recipe(name)["evaluate"] == {}
    assert same_streams({}, recipe(name))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("simclr_digits", {}),
        ("bgrl_ppi", {}),
        ("bgrl_cora", {"regularizers.sigreg": {"type": "sigreg", "coefficient": 0.1}}),
        ("bgrl_cora", {"evaluate.linear": {"type": "linear"}}),
        ("bgrl_cora", {"encoder": {"type": "pyg", "module": "GCN", "out_dim": 8, "kwargs": {"dropout": 0.5}}}),
    ],
)
def test_a_run_that_draws_an_order_directions_or_dropout_is_of_its_own_version_only(name, changes):
    assert not same_streams({}, recipe(name, **changes))
    assert not same_streams({"streams": 1}, recipe(name, **changes))
    assert same_streams({"streams": STREAMS}, recipe(name, **changes))


def test_tables_are_of_the_version_that_most_records_have():
    assert of_most([{}, {}, {"streams": 2}]) == 1
    assert of_most([{}, {"streams": 2}]) == 2
    assert of_most([]) == STREAMS
