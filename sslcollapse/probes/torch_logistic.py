"""Logistic regression in torch for large sets: softmax or independent sigmoids, on the features' device.

It minimises scikit-learn's objective C Σ_i loss(W x_i + b, y_i) + ½ ‖W‖², b not penalised, by full-batch
L-BFGS (SciPy's) in coordinates where the problem is well-conditioned. Rows are centred (which the free
intercept undoes exactly) and rotated to the eigenvectors of their Gram matrix (which leaves ‖W‖ alone).
Since the curvature of both losses is at most ¼ for a sigmoid and ½ for a softmax, ¼ C λ_j + 1 is close to
the curvature along eigenvector j, and u_j = w_j √(¼ C λ_j + 1) has curvature about 1 for every j and C.
Collapsed representations, whose λ span many orders of magnitude, are the case where that matters.
Böhning 1992, "Multinomial logistic regression algorithm", gives the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from sslcollapse.probes.base import Fit

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4}
"""Largest gradient entry in those coordinates, in units of about that at W = 0. Rounding in float32 leaves
room for 1e-4, where about one prediction in a thousand still differs from the optimum's."""

Losses = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def torch_path(
    x: Tensor, values: Tensor, cs: Sequence[float], *, max_iter: int, tol: float | None = None
) -> Iterator[Fit]:
    """Yield the solution for each C, the smallest first, each started from the one before.

    The products run in the precision of ``x``, sums and the optimiser in float64.

    Shapes:
        x: [n, d].
        values: [n] codes (softmax) or [n, L] in {0, 1} (L sigmoids).
    """
    n, d = x.shape
    tol = TOLERANCE[x.dtype] if tol is None else tol
    mean = x.mean(0)
    centred = x - mean
    curvature, axes = torch.linalg.eigh((centred.T @ centred).double())  # [d], [d, d]
    curvature = curvature.clamp_min_(0) / 4
    rotated = centred @ axes.to(x)  # [n, d]
    losses = _softmax_losses if values.dim() == 1 else _sigmoid_losses
    evaluate, rows = losses(rotated, values)
    weight = curvature.new_zeros(rows, d)
    bias = curvature.new_zeros(rows)
    for c in sorted(cs):
        scale = (c * curvature + 1).rsqrt()  # [d], w = u · scale
        bias_scale = (c * n / 4) ** -0.5
        weight, bias, converged = _minimise(evaluate, weight, bias, scale, bias_scale, c, n, max_iter, tol)
        original = weight @ axes.T  # [K, d]
        yield Fit(original, bias - original @ mean.double(), converged)


def _minimise(
    evaluate: Losses,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    bias_scale: float,
    c: float,
    n: int,
    max_iter: int,
    tol: float,
) -> tuple[Tensor, Tensor, bool]:
    """L-BFGS over u = (weight / scale, bias / bias_scale), objective in units that make the gradient O(1)."""
    shape = (len(bias), len(scale) + 1)
    unit = (c * n) ** -0.5

    def unpack(u: np.ndarray) -> tuple[Tensor, Tensor]:
        both = torch.from_numpy(u).to(scale.device).view(shape)
        return both[:, :-1] * scale, both[:, -1] * bias_scale

    def objective(u: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = unpack(u)
        loss, grad_w, grad_b = evaluate(w, b)
        value = (c * loss + 0.5 * w.square().sum()) * unit
        grad = torch.cat([(c * grad_w + w) * scale, (c * bias_scale * grad_b)[:, None]], dim=1) * unit
        return float(value), grad.flatten().cpu().numpy()

    start = torch.cat([weight / scale, (bias / bias_scale)[:, None]], dim=1).flatten().cpu().numpy()
    options = {"maxiter": max_iter, "maxfun": 2 * max_iter, "gtol": tol, "ftol": 0.0}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    weight, bias = unpack(found.x)
    return weight, bias, bool(np.abs(found.jac).max() <= tol)


def _softmax_losses(x: Tensor, codes: Tensor) -> tuple[Losses, int]:
    """Σ cross-entropy with its gradients, and the number of classes."""
    one = one_hot(codes).to(x)  # [n, K]

    def evaluate(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_p = torch.addmm(bias.to(x), x, weight.to(x).T).log_softmax(1)
        loss = -log_p.gather(1, codes[:, None]).sum(dtype=torch.float64)
        return loss, *_gradients(log_p.exp_().sub_(one), x)

    return evaluate, one.shape[1]


def _sigmoid_losses(x: Tensor, columns: Tensor) -> tuple[Losses, int]:
    """Σ binary cross-entropy over rows and columns with its gradients, and the number of columns."""
    target = columns.to(x)  # [n, L]

    def evaluate(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = torch.addmm(bias.to(x), x, weight.to(x).T)
        loss = (softplus(logits) - logits * target).sum(dtype=torch.float64)
        return loss, *_gradients(logits.sigmoid_().sub_(target), x)

    return evaluate, target.shape[1]


def _gradients(residual: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """[K, d] and [K] gradients from the [n, K] derivatives by the logits."""
    return (residual.T @ x).double(), residual.sum(0, dtype=torch.float64)
