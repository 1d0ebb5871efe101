"""Two processes with half a batch each train exactly as one with the whole, whatever is registered."""

import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from sslcollapse.core.registry import CONSTRAINTS, REGULARIZERS

sys.path.insert(0, str(Path(__file__).parent))
import objective_workers as cases

ALL = cases.cases()
COUPLED = [
    (objective, penalty)
    for objective, penalty in ALL
    if cases.module(objective, penalty).coupling() - ({"objective"} if penalty else set())
]


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory):
    """What each of two processes found, one dict a rank."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(cases.every_gradient, (2, str(folder / "store"), str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def alone(objective, penalty):
    """The gradients of one process with the whole batch."""
    built = cases.module(objective, penalty)
    return cases.gradients(built, built, cases.batch(slice(None)))


def relative_error(found, expected):
    """Over all parameters together."""
    assert found.keys() == expected.keys()
    parameters = [name for name in expected if name != "loss"]
    difference = sum((found[name] - expected[name]).square().sum() for name in parameters)
    return float((difference / sum(expected[name].square().sum() for name in parameters)).sqrt())


def test_every_registered_objective_regularizer_and_constraint_is_a_case():
    assert {objective for objective, penalty in ALL if penalty is None} == {*cases.NAMES, *cases.VARIANTS}
    assert {penalty for _, penalty in ALL if penalty} == {*REGULARIZERS.names(), *CONSTRAINTS.names()}


@pytest.mark.parametrize(("objective", "penalty"), ALL)
def test_two_ranks_with_half_a_batch_each_have_the_gradient_of_one_with_the_whole(by_rank, objective, penalty):
    expected = alone(objective, penalty)
    for found in by_rank:
        assert relative_error(found[f"{objective}/{penalty}"], expected) < 1e-6
        for name, gradient in found[f"{objective}/{penalty}"].items():
            if name != "loss":  # each parameter alone: a large one hides no small one
                torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-12)
    mean_loss = sum(found[f"{objective}/{penalty}"]["loss"] for found in by_rank) / 2
    torch.testing.assert_close(mean_loss, expected["loss"])


@pytest.mark.parametrize(("objective", "penalty"), ALL)
def test_a_batch_that_both_ranks_hold_is_not_gathered_and_gives_the_gradient_of_one_rank(by_rank, objective, penalty):
    expected = alone(objective, penalty)
    for found in by_rank:
        assert relative_error(found[f"replicated/{objective}/{penalty}"], expected) < 1e-12


@pytest.mark.parametrize(("objective", "penalty"), COUPLED)
def test_rows_gathered_without_their_gradient_would_be_noticed(by_rank, objective, penalty):
    assert relative_error(by_rank[0][f"broken/{objective}/{penalty}"], alone(objective, penalty)) > 1e-3


@pytest.mark.parametrize("name", cases.LOSSES)
def test_what_a_loss_of_lightly_gathers_itself_is_believed_exactly_where_it_is_exact(by_rank, name):
    expected, found = alone(f"lightly/{name}", None), [each[f"own/{name}"] for each in by_rank]
    exact = found[0] is not None and all(relative_error(each, expected) < 1e-6 for each in found)
    assert cases.LOSSES[name].gathers == exact


def test_two_gathered_tensors_that_share_one_incoming_gradient_do_not_spoil_it_for_each_other(by_rank):
    expected = cases.gradients_of_a_sum()
    for rank, found in enumerate(by_rank):
        for name, gradient in found["sum"].items():
            torch.testing.assert_close(gradient, 2 * expected[name].chunk(2)[rank])  # every rank has the same loss
