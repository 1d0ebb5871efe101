"""Means, variances and correlations of features over a batch, and Gram matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.precision import full_precision, precisely


def widen(x: Tensor) -> Tensor:
    """`x` in float32 or wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def standardize(x: Tensor, eps: float) -> Tensor:
    """(x − mean) / √(variance + eps) per column, the variance over N: [N, d] → [N, d]."""
    variance, mean = torch.var_mean(x, dim=0, correction=0)
    return (x - mean) * torch.rsqrt(variance + eps)


def std_shortfall(x: Tensor, target: float = 1.0, eps: float = 1e-4) -> Tensor:
    """Mean over columns of max(0, target − √(variance + eps)), the variance over N − 1: [N, d] → scalar.

    Source: Bardes et al. 2022 (VICReg), eq. 1.
    """
    return torch.relu(target - torch.sqrt(x.var(dim=0) + eps)).mean()


def covariance_excess(x: Tensor) -> Tensor:
    """Σ_{i≠j} cov_ij² / d, the covariance over N − 1: [N, d] → scalar.

    Source: Bardes et al. 2022 (VICReg), eq. 4.
    """
    rows, dim = x.shape
    return off_diagonal_square_sum(x - x.mean(0)) / ((rows - 1) ** 2 * dim)


def gradients_to_differentiate(function: Callable[..., Tensor], grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of a plain function of tensors that can be differentiated themselves, for a backward pass.

    What a forward pass of our own keeps does not know where it comes from. ``once_differentiable`` would notice only
    where the gradient that comes in has one itself.
    """
    own = [x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in inputs]  # apart, if one is twice
    return torch.autograd.grad(precisely(function, *own), own, grad, create_graph=True)


def off_diagonal_square_sum(a: Tensor, b: Tensor | None = None) -> Tensor:
    """Σ_{i≠j} (aᵀb)²_ij, b being a where it is left out: [N, d], [N, d] → scalar.

    With fewer rows than columns the [d, d] matrix is never formed, since ‖aᵀb‖²_F = Σ_nm (aaᵀ)_nm (bbᵀ)_nm: at
    N = 256, d = 8192 that is 1/32 of the work. The gradient has one product for each operand.
    """
    with full_precision(a.device):
        return _OffDiagonalSquareSum.apply(a, b)


class _OffDiagonalSquareSum(torch.autograd.Function):
    """C = aᵀb without its diagonal c; K = aaᵀ, L = bbᵀ.

    N ≥ d: value ‖C‖², ∂/∂a = 2 b Cᵀ, ∂/∂b = 2 a C. N < d: value Σ K∘L − Σ c², ∂/∂a = 2 (L a − b diag c),
    ∂/∂b = 2 (K b − a diag c). There the off-diagonal part is no small rest of the whole, so that the difference loses
    no precision: a matrix of rank N < d has it at least (d/N − 1) times as large as the diagonal part where the
    variances are equal. For b = a both gradients add up.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor | None) -> Tensor:
        other = a if b is None else b
        ctx.tall = a.shape[0] >= a.shape[1]
        if ctx.tall:
            product = a.t() @ other
            product.diagonal().zero_()
            ctx.save_for_backward(a, b, product)
            return torch.linalg.vector_norm(product).square()
        diagonal = torch.linalg.vecdot(a, other, dim=0)  # [d]
        gram = a @ a.t()  # [N, N]
        other_gram = gram if b is None else b @ b.t()
        ctx.save_for_backward(a, b, diagonal, gram, other_gram)
        return torch.dot(gram.view(-1), other_gram.view(-1)) - torch.dot(diagonal, diagonal)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        a, b, *rest = ctx.saved_tensors
        if torch.is_grad_enabled():
            found = gradients_to_differentiate(_plain_off_diagonal, grad, *(x for x in (a, b) if x is not None))
            return found[0], None if b is None else found[1]
        other, factor = (a, 4.0 * grad) if b is None else (b, 2.0 * grad)
        with full_precision(a.device):
            if ctx.tall:
                product = rest[0] * factor
                return other @ product.t(), None if b is None else a @ product
            diagonal, gram, other_gram = rest[0] * factor, rest[1], rest[2]
            to_a = (other_gram * factor) @ a - other * diagonal
            return to_a, None if b is None else (gram * factor) @ b - a * diagonal


def _plain_off_diagonal(a: Tensor, b: Tensor | None = None) -> Tensor:
    product = a.t() @ (a if b is None else b)
    return product.square().sum() - product.diagonal().square().sum()


_PANELS = 4
_HALVED_FROM = 2048
"""Bytes of a row of a Gram matrix from which on, on a CPU, the half that is left out costs more than additional calls:
512 columns of float32, 256 of float64."""


def gram_matrix(w: Tensor) -> Tensor:
    """``w @ w.mH``, the product with the conjugate transpose: [n, k] → [n, n]."""
    if not _halved(w):
        return w @ w.mH
    return mirrored_(add_gram_(w.new_empty(w.shape[0], w.shape[0]), w, beta=0))


def add_gram_(total: Tensor, w: Tensor, *, beta: float = 1) -> Tensor:
    """Make ``total`` beta · total + ``w @ w.mH`` up to mirroring: above the diagonal it may hold anything.

    Args:
        total: [n, n], changed and returned; ``mirrored_`` completes it.
        w: [n, k].
        beta: with 0 ``total`` may be uninitialised.
    """
    if not _halved(w):
        return total.addmm_(w, w.mH, beta=beta)
    for top, bottom in _panels(w.shape[0]):
        total[top:bottom, :bottom].addmm_(w[top:bottom], w[:bottom].mH, beta=beta)
    return total


def mirrored_(total: Tensor) -> Tensor:
    """Copy what ``add_gram_`` has below the diagonal of ``total`` [n, n] to above it; changed and returned."""
    for top, bottom in _panels(total.shape[0]):
        total[:top, top:bottom] = total[top:bottom, :top].mH
    return total


def _panels(n: int) -> Iterator[tuple[int, int]]:
    """First and last row of each panel; its part on the diagonal is computed whole."""
    height = max(-(-n // _PANELS), 1)
    return ((top, min(top + height, n)) for top in range(0, n, height))


def _halved(w: Tensor) -> bool:
    return w.device.type == "cpu" and w.shape[0] * w.element_size() >= _HALVED_FROM
