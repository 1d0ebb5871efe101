"""Sparse products against dense ones."""

import pytest
import torch

from sslcollapse.nn.sparse import Pattern, SparseMatrix, stable_order, summed_in_order


def random_matrix(kept: float) -> SparseMatrix:
    torch.manual_seed(0)
    row, col = torch.randint(7, (60,)), torch.randint(5, (60,))
    values = torch.randn(60, dtype=torch.float64) * (torch.rand(60) < kept)
    return SparseMatrix(Pattern.from_indices(row, col, (7, 5)), values)


@pytest.mark.parametrize("kept", [1.0, 0.9, 0.3, 0.0])
def test_products_with_dropped_entries_and_their_gradient_are_the_dense_ones(kept):
    matrix = random_matrix(kept)
    reference = torch.zeros(7, 5, dtype=torch.float64)
    reference.index_put_((matrix.pattern.row, matrix.pattern.col), matrix.values, accumulate=True)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(7, 3, dtype=torch.float64)
    out = matrix @ x
    out.backward(upstream)
    torch.testing.assert_close(out, reference @ x)
    torch.testing.assert_close(x.grad, reference.t() @ upstream)


def test_a_matrix_of_mostly_dropped_entries_stores_the_others_only_on_a_cpu():
    matrix = random_matrix(0.3)
    left = int((matrix.values != 0).sum())
    assert 0 < left < 30
    assert matrix.forward_matrix.values().numel() == left
    assert matrix.backward_matrix.values().numel() == left
    assert random_matrix(0.95).forward_matrix.values().numel() == 60


def test_a_deterministic_product_is_the_product(monkeypatch):
    rng = torch.Generator().manual_seed(0)
    matrix = torch.randn(9, 7, generator=rng, dtype=torch.float64)
    matrix = matrix * (torch.rand(9, 7, generator=rng) < 0.4)
    matrix[3] = 0.0  # a row without non-zeros
    dense = torch.randn(7, 5, generator=rng, dtype=torch.float64)
    for at_a_time in (1, 1 << 20):
        monkeypatch.setattr("sslcollapse.nn.sparse.AT_A_TIME", at_a_time)
        torch.testing.assert_close(summed_in_order(matrix.to_sparse_csr(), dense), matrix @ dense)


@pytest.mark.parametrize(("count", "below"), [(0, 5), (1, 1), (3000, 40), (3000, 2**40), (300, 2**62)])
def test_sorting_numbers_with_their_places_is_a_stable_sort(count, below):
    keys = torch.randint(min(below, 2**40), (count,), generator=torch.Generator().manual_seed(0))
    keys[count // 2 :] += below - min(below, 2**40)
    order, ordered = stable_order(keys, below)
    assert torch.equal(order, torch.argsort(keys, stable=True))
    assert torch.equal(ordered, keys.sort().values)
