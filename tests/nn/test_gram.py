import pytest
import torch

from sslcollapse.nn.moments import add_gram_, gram_matrix, mirrored_

SHAPES = [(3, 5), (255, 4), (513, 7), (514, 3)]  # the last two are computed by panels, also where they do not divide


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("transposed_storage", [False, True])
def test_the_gram_matrix_of_rows_is_their_product_above_and_below_the_diagonal(shape, dtype, transposed_storage):
    w = torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    stored = w.t().contiguous().t() if transposed_storage else w
    torch.testing.assert_close(gram_matrix(stored), w @ w.t())


def test_products_add_up_and_are_complete_when_mirrored():
    first, second = (torch.randn(300, 4, dtype=torch.float64) for _ in range(2))
    total = add_gram_(torch.full((300, 300), torch.nan, dtype=torch.float64), first, beta=0)
    add_gram_(total, second)
    torch.testing.assert_close(mirrored_(total), first @ first.t() + second @ second.t())


def test_a_large_product_leaves_out_what_is_above_the_diagonal():
    total = add_gram_(torch.zeros(256, 256, dtype=torch.float64), torch.ones(256, 2, dtype=torch.float64))
    assert int((total == 0).sum()) == 6 * 64 * 64
