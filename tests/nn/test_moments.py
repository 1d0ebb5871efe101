import pytest
import torch

from sslcollapse.nn.moments import off_diagonal_square_sum, standardize


def definition(a, b):
    product = a.T @ b
    return (product - torch.diag(product.diag())).square().sum()


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (5, 5)])
@pytest.mark.parametrize("same", [True, False])
def test_closed_form_value_and_gradients_equal_the_definition_for_more_and_for_fewer_rows_than_columns(shape, same):
    torch.manual_seed(0)
    a, b = torch.randn(2, *shape, dtype=torch.float64)
    operands = [a] if same else [a, b]
    ours, theirs = ([x.clone().requires_grad_() for x in operands] for _ in range(2))
    value, expected = off_diagonal_square_sum(*ours), definition(theirs[0], theirs[-1])
    torch.testing.assert_close(value, expected)
    (3.0 * value).backward()
    (3.0 * expected).backward()
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x.grad, y.grad)


def test_gradients_of_one_operand_alone_are_right_too():
    a, b = torch.randn(2, 4, 9, dtype=torch.float64)
    b.requires_grad_()
    off_diagonal_square_sum(a, b).backward()
    (expected,) = torch.autograd.grad(definition(a, b), b)
    torch.testing.assert_close(b.grad, expected)


def test_standardised_columns_have_mean_zero_and_population_variance_one():
    x = standardize(3 + 2 * torch.randn(50, 4, dtype=torch.float64), eps=0.0)
    torch.testing.assert_close(x.mean(0), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(x.square().mean(0), torch.ones(4, dtype=torch.float64))
