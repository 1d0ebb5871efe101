"""Gradients of all our own autograd functions can be differentiated again."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from sslcollapse.core.distributed import Gather
from sslcollapse.nn.moments import off_diagonal_square_sum
from sslcollapse.nn.norm import NormAct, PReLU
from sslcollapse.nn.sparse import SparseMatrix
from sslcollapse.objectives.byol import mean_cosine
from sslcollapse.objectives.simclr import nt_xent
from sslcollapse.regularizers.attach import WERank
from sslcollapse.regularizers.orthogonality import isometry_defect
from sslcollapse.regularizers.werank import orthogonality_defect, orthogonality_defects


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def check(function, *inputs):
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("gram", ["output", "input", "smaller"])
def test_second_derivatives_of_the_orthogonality_defect(dtype, shape, squared, gram):
    weight, other = randn(*shape, dtype=dtype), randn(*shape, dtype=dtype, seed=1)
    by_columns = weight.detach().t().contiguous().t().requires_grad_()

    def grouped(a, b):
        values = orthogonality_defects({"a": a, "b": b}, squared=squared, gram=gram, grouped=True)
        return values["a"] + 2 * values["b"]

    for one in (weight, by_columns):
        check(lambda w: orthogonality_defect(w, squared=squared, gram=gram), one)
    check(grouped, weight, other)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 5, 3)])
def test_second_derivatives_of_the_isometry_defect(dtype, shape):
    check(lambda w: isometry_defect(w, 2), randn(*shape, dtype=dtype))


@pytest.mark.parametrize("squared", [False, True])
def test_second_derivatives_at_an_orthogonal_weight_are_finite(squared):
    weight = torch.eye(4, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(orthogonality_defect(weight, squared=squared), weight, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), weight)
    assert torch.isfinite(second).all()


def test_a_product_with_the_hessian_through_werank_is_that_of_finite_differences():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 5)).double()
    penalty, weight, direction = WERank(model, coefficient=1.0), model[0].weight, torch.randn(3, 4).double()

    def gradient(create_graph=False):
        return torch.autograd.grad(penalty(), weight, create_graph=create_graph)[0]

    (found,) = torch.autograd.grad((gradient(create_graph=True) * direction).sum(), weight)
    with torch.no_grad():
        weight.add_(1e-5 * direction)
    after = gradient()
    with torch.no_grad():
        weight.sub_(2e-5 * direction)
    torch.testing.assert_close(found, (after - gradient()) / 2e-5, rtol=1e-6, atol=1e-6)


def test_second_derivatives_of_the_bootstrap_loss():
    z = randn(5, 4, seed=1).detach()
    check(lambda p: mean_cosine(p, z), randn(5, 4))


@pytest.mark.parametrize("slope", [0.25, -0.3])
@pytest.mark.parametrize("constant_input", [False, True])
def test_second_derivatives_of_batch_norm_and_prelu(slope, constant_input):
    module = NormAct(4, "batch", 0.1, "prelu").double()

    def run(x, weight, bias, slopes):
        parameters = {"norm.weight": weight, "norm.bias": bias, "activation.weight": slopes}
        return torch.func.functional_call(module, parameters, (x,))

    rest = randn(4, seed=1), randn(4, seed=2), torch.tensor([slope], dtype=torch.float64, requires_grad=True)
    x = randn(6, 4)
    check(run, x.detach() if constant_input else x, *rest)
    activation = PReLU().double()
    check(lambda y, slopes: torch.func.functional_call(activation, {"weight": slopes}, (y,)), x, rest[2])


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_second_derivatives_of_a_sparse_product():
    dense = randn(6, 5).detach() * (torch.rand(6, 5, generator=torch.Generator().manual_seed(1)) < 0.5)
    matrix = SparseMatrix.from_csr(dense.to_sparse_csr())
    check(lambda x: (matrix @ x) ** 3, randn(5, 2))


@pytest.mark.parametrize("similarity", ["cosine", "dot", "squared_distance"])
def test_second_derivatives_of_nt_xent(similarity):
    check(lambda a, b: nt_xent(a, b, 0.5, Gather(), similarity), randn(4, 3), randn(4, 3, seed=1))


@pytest.mark.parametrize("shape", [(6, 4), (3, 5)])
def test_second_derivatives_of_off_diagonal_products(shape):
    a, b = randn(*shape), randn(*shape, seed=1)
    check(off_diagonal_square_sum, a)
    check(off_diagonal_square_sum, a, b)
    check(lambda x: off_diagonal_square_sum(x, b.detach()), a)
