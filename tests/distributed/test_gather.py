import re
import sys
from pathlib import Path

import torch
import torch.multiprocessing as mp

from sslcollapse.core.distributed import Gather

sys.path.insert(0, str(Path(__file__).parent))
import gather_workers
import workers


def test_two_ranks_with_half_a_batch_each_give_the_gradient_of_one_rank_with_the_whole(tmp_path):
    mp.spawn(workers.gathered_gradient, (2, str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3).double()
    x = torch.randn(6, 4, dtype=torch.float64) * torch.arange(1, 7)[:, None]
    workers.coupled_loss(model(x)).backward()
    for rank in range(2):
        gathered = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(gathered, model.weight.grad, rtol=1e-9, atol=0)


def test_gather_on_one_process_returns_its_input_untouched():
    x = torch.randn(3, 2)
    assert Gather()(x) is x


def results_of(worker, tmp_path):
    mp.spawn(worker, (2, str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_unequal_shapes_are_refused_on_every_rank_with_all_of_them_and_the_next_call_works(tmp_path):
    first, second = results_of(gather_workers.unequal, tmp_path)
    assert first == second
    rows, widths, dimensions, after = first
    assert "the same shape on every rank, got rank 0 (3, 4), rank 1 (5, 4); give every rank as many samples" in rows
    assert "rank 0 (3, 4), rank 1 (3, 5)" in widths
    assert "rank 0 (3, 4), rank 1 (3, 4, 2)" in dimensions
    assert after == [0.0, 0.0, 1.0, 1.0]


def test_an_objective_that_couples_nodes_is_refused_on_graphs_of_unequal_size(tmp_path):
    for refused, trained in results_of(gather_workers.graphs, tmp_path):
        assert re.search(r"rank 0 \(20, \d+\), rank 1 \(30, \d+\); give every rank as many samples", refused)
        assert trained == "finite: True"


def test_shapes_that_are_known_to_be_equal_cost_no_collective_of_their_own(tmp_path):
    for counts in results_of(gather_workers.collectives, tmp_path):
        assert counts == [1, 2]


def test_the_second_derivative_through_two_ranks_is_that_of_one(tmp_path):
    results = results_of(gather_workers.second, tmp_path)
    x = gather_workers.samples().requires_grad_()
    (gradient,) = torch.autograd.grad(workers.coupled_loss(x), x, create_graph=True)
    (product,) = torch.autograd.grad(gradient.square().sum(), x)
    torch.testing.assert_close(torch.cat([found for found, _ in results]), gradient.detach())
    torch.testing.assert_close(torch.cat([found for _, found in results]), product)


def test_complex_covariances_of_two_ranks_are_merged(tmp_path):
    rows = gather_workers.complex_rows()
    for n, sigma in results_of(gather_workers.complex_covariance, tmp_path):
        assert n == 6
        torch.testing.assert_close(sigma, torch.linalg.svdvals(rows - rows.mean(0)))


def test_the_backward_pass_sends_each_rank_the_sum_of_its_own_rows_alone(tmp_path):
    for names in results_of(gather_workers.backward_collectives, tmp_path):
        assert len(names) == 1
        assert "reduce_scatter" in names[0]


def test_processes_on_one_graph_take_the_mean_of_the_gradients_of_their_own_views(tmp_path):
    found = results_of(gather_workers.replicated, tmp_path)
    for name in gather_workers.REPLICATED:
        own = [gather_workers.graph_gradients(name, rank) for rank in range(2)]
        for parameter, first in own[0].items():
            mean = (first + own[1][parameter]) / 2
            for each in found:
                torch.testing.assert_close(each[name][parameter], mean, rtol=1e-5, atol=1e-7)
        assert any((own[0][key] - own[1][key]).norm() > 0.01 * own[0][key].norm() for key in own[0])
