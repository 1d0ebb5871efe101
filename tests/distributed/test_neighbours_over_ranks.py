"""Two processes with half of the roots each see around them what one with all sees, and train as it does."""

import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from sslcollapse.core.registry import OBJECTIVES

sys.path.insert(0, str(Path(__file__).parent))
import neighbour_workers as cases


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(cases.every_gradient, (2, str(folder / "store"), str(folder)), nprocs=2)
    return {
        batching: [torch.load(folder / f"{batching}{rank}.pt", weights_only=True) for rank in range(2)]
        for batching in cases.BATCHINGS
    }


@pytest.fixture(scope="module")
def whole():
    return {batching: cases.batch(batching) for batching in cases.BATCHINGS}


@pytest.mark.parametrize("batching", cases.BATCHINGS)
def test_the_roots_of_the_ranks_in_turn_are_those_of_one(by_rank, whole, batching):
    assert torch.equal(torch.cat([found["roots"] for found in by_rank[batching]]), whole[batching].index)


@pytest.mark.parametrize("batching", cases.BATCHINGS)
@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_two_ranks_with_half_of_the_roots_have_the_loss_and_gradients_of_one_with_all(
    by_rank, whole, objective, batching
):
    by_rank, whole = by_rank[batching], whole[batching]
    expected = cases.gradients(objective, whole)
    mean_loss = sum(found[objective]["loss"] for found in by_rank) / 2
    torch.testing.assert_close(mean_loss, expected["loss"], rtol=1e-6, atol=1e-9)
    for found in by_rank:
        assert found[objective].keys() == expected.keys()
        for name, gradient in found[objective].items():
            if name != "loss":
                torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-9)
    assert any(float(gradient.norm()) > 1e-3 for name, gradient in expected.items() if name != "loss")
