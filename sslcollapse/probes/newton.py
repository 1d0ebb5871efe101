"""Logistic regression for many values of C and many training parts at once, by Newton's method in torch.

Each problem is: minimise C Σ_i loss(W x_i + b, y_i) + ½ ‖W‖² over W and b, with b penalised or not.

*Coordinates.* Rows are rotated to the eigenvectors of their Gram matrix, which leaves ‖W‖ alone; before, where b is not
penalised, they are centred, which b undoes exactly. In these coordinates the Hessian is near the diagonal
C w̄ λ_j + 1, where w̄ is the mean of the loss's second derivative over the rows. So conjugate gradients with that
diagonal need few iterations for every C, also where a collapsed representation has λ over many orders of magnitude.
With fewer rows than dimensions there are as many coordinates as rows: the optimum lies in their span.

*Precision.* Values and gradients are float64; only Newton's step, which need not be exact, is found in float32. A step
that is wrong by a little costs another one, and no precision.

*Batch.* All C share the rows of a training part, so that a product with all their weights is one matrix product, and
parts of one size are one batch of those. Larger C take more steps, so the ones that are still at work are the last.

Sources: Lin et al. 2008, "Trust region Newton method for large-scale logistic regression", for Newton steps by
conjugate gradients; Dembo and Steihaug 1983 for how exact each has to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

TOLERANCE = 1e-5
"""Bound, to first order, of how far a score of a row of length 1 is from the optimum's: √(gᵀ H⁻¹ g) for the gradient g
and the Hessian H, which is at least 1 in every direction; with the diagonal in place of H."""
LOOSE, TIGHT = 0.3, 1e-3
"""How exact a step is: its residual relative to the gradient, far from the optimum and near it."""
DECREASE = 1e-4
"""Share of the decrease that a step's slope promises which it has to reach (Armijo)."""
TOGETHER = 2**24
"""Probabilities of several C that are held at once: 64 MB."""
TILE = 2**22
"""Scores, and values of rows in float64, that there are at once where values and gradients are computed."""


class Solutions(NamedTuple):
    """Solutions of S training parts for B values of C.

    Shapes:
        weight: [S, B, K, d]; bias: [S, B, K]; converged: [S, B].
    """

    weight: Tensor
    bias: Tensor
    converged: Tensor


@torch.no_grad()
def solve(
    x: Tensor, targets: Tensor, cs: Sequence[float], *, softmax: bool, penalised_bias: bool = False, max_iter: int
) -> Solutions:
    """Solve every problem, on the device of ``x``.

    Args:
        x: rows of the training parts; float64, or float32 where that would not fit.
        targets: 1 where a row is of a class, else 0.
        cs: ascending.
        softmax: one softmax over K classes, else K independent sigmoids.
        penalised_bias: whether the norm that is kept small includes b, as in liblinear.
        max_iter: limit of iterations of conjugate gradients, which all problems are in together.

    Shapes:
        x: [S, n, d]; targets: [S, K, n].
    """
    space = _Space.of(x, penalised_bias)
    problem = _Problem(space, targets.to(x.device, torch.float64), softmax)
    weight = targets.new_zeros(len(x), 1, targets.shape[1], len(space.ridge), dtype=torch.float64, device=x.device)
    weights, converged = [], []
    size = max(1, TOGETHER // targets.numel())
    for start in range(0, len(cs), size):
        c = torch.tensor(cs[start : start + size], dtype=torch.float64, device=x.device)
        weight, ok = problem.minimise(weight[:, -1:].expand(-1, len(c), -1, -1), c, max_iter)
        weights.append(weight)
        converged.append(ok)
    return Solutions(*space.original(torch.cat(weights, 1)), torch.cat(converged, 1))


@dataclass(frozen=True)
class _Space:
    """The coordinates that problems are solved in; a free bias is the last of them, in which all rows are 1.

    Shapes:
        rows: [S, n, r]; curvature: [S, r], Σ of squares of each column; ridge: [r], 0 for a free bias, else 1;
        axes: [S, d, r], without the bias; mean: [S, 1, d] of the rows, None for a penalised bias.
    """

    rows: Tensor
    curvature: Tensor
    ridge: Tensor
    axes: Tensor
    mean: Tensor | None

    @classmethod
    def of(cls, x: Tensor, penalised_bias: bool) -> _Space:
        mean = None if penalised_bias else x.mean(1, keepdim=True)
        moved = pad(x, (0, 1), value=1.0) if mean is None else x - mean
        n, d = moved.shape[1:]
        if n < d:
            moved = moved.double()
            curvature, left = torch.linalg.eigh(moved @ moved.mT)  # [S, n], [S, n, n]
            # What is below rounding errors of the Gram matrix is no direction.
            curvature *= curvature > n * torch.finfo(torch.float64).eps * curvature[:, -1:]
            length = curvature.sqrt()[:, None]
            rows = left * length
            axes = moved.mT @ (left * torch.where(length > 0, 1 / length, 0.0))
        else:
            curvature, axes = torch.linalg.eigh((moved.mT @ moved).double())  # [S, d], [S, d, d]
            curvature.clamp_min_(0)
            rows = moved @ axes.to(x)
        ridge = curvature.new_ones(curvature.shape[1])
        if mean is not None:
            rows = pad(rows, (0, 1), value=1.0)
            curvature = pad(curvature, (0, 1), value=float(n))
            ridge = pad(ridge, (0, 1), value=0.0)
        return cls(rows.to(x), curvature, ridge, axes, mean)

    def original(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [S, B, K, d] and biases [S, B, K] for the rows as they were given."""
        if self.mean is None:
            both = weight @ self.axes.mT[:, None]
            return both[..., :-1], both[..., -1]
        bias = weight[..., -1]
        weight = weight[..., :-1] @ self.axes.mT[:, None]
        return weight, bias - (weight @ self.mean.double().mT[:, None])[..., 0]


class _State(NamedTuple):
    """Values at some weights, one a problem: a softmax is one problem a C, and each sigmoid is one.

    Shapes:
        loss: [S, B, 1, 1] or, of sigmoids, [S, B, K, 1]; gradient: [S, B, K, r]; probability: [S, B, K, n], float32.
    """

    loss: Tensor
    gradient: Tensor
    probability: Tensor

    def last(self, start: int) -> _State:
        """Of the C from a number on."""
        return _State(*(part[:, start:] for part in self))


class _Problem:
    """All problems of a space but for their C.

    Shapes:
        targets: [S, K, n].
    """

    def __init__(self, space: _Space, targets: Tensor, softmax: bool) -> None:
        self.rows, self.targets, self.softmax = space.rows, targets[:, None], softmax
        self.single = space.rows.float()
        self.curvature, self.ridge = space.curvature[:, None, None].float(), space.ridge
        self.dims = (2, 3) if softmax else (3,)

    def minimise(self, start: Tensor, c: Tensor, max_iter: int) -> tuple[Tensor, Tensor]:
        """Weights [S, B, K, r] from those to start at, and which C [S, B] have converged."""
        weight, c = start.clone(), c[:, None, None]
        at = self.evaluate(weight, c)
        converged = torch.zeros_like(at.loss, dtype=torch.bool)
        stuck = torch.zeros_like(converged)
        first, left = 0, max_iter
        while True:
            inverse = self.inverse(at.probability, c[first:])
            error = self.dot(at.gradient, at.gradient * inverse).sqrt()
            converged[:, first:] = error <= TOLERANCE
            pending = ~(converged | stuck)[:, first:]
            at_work = pending.flatten(2).any(2).any(0).nonzero()
            if left <= 0 or not len(at_work):
                return weight, converged.flatten(2).all(2)
            skip = int(at_work[0])
            first += skip
            at, inverse, error, pending = at.last(skip), inverse[:, skip:], error[:, skip:], pending[:, skip:]
            step, used = self.step(at, c[first:], inverse, error, pending, left)
            left -= used
            moved, at, failed = self.search(weight[:, first:], at, step.double(), c[first:])
            weight[:, first:] = moved
            stuck[:, first:] |= failed

    def evaluate(self, weight: Tensor, c: Tensor) -> _State:
        """Values at [S, B, K, r] weights."""
        shape = (*weight.shape[:3], -1)
        flat = weight.flatten(1, 2)  # [S, B K, r]
        loss, gradient, probabilities = torch.zeros_like(c), torch.zeros_like(flat), []
        size = max(1, TILE // (len(flat) * max(flat.shape[1:])))
        for rows, targets in zip(self.rows.split(size, 1), self.targets.split(size, 3), strict=True):
            rows = rows.double()
            scores = (flat @ rows.mT).view(shape)  # [S, B, K, tile]
            if self.softmax:
                log_p = scores.log_softmax(2)
                loss = loss - (log_p * targets).sum(self.dims, keepdim=True)
                p = log_p.exp_()
            else:
                loss = loss + (softplus(scores) - scores * targets).sum(self.dims, keepdim=True)
                p = scores.sigmoid_()
            probabilities.append(p.float())
            gradient = gradient + ((p - targets).flatten(1, 2) @ rows)
        ridge = self.ridge * weight
        value = c * loss + 0.5 * self.dot(weight, ridge)
        return _State(value, c * gradient.view(shape) + ridge, torch.cat(probabilities, 3))

    def inverse(self, probability: Tensor, c: Tensor) -> Tensor:
        """The diagonal 1 / (C w̄ λ_j + ridge) [S, B, K, r], which stands for the inverse of the Hessian."""
        mean = (probability * (1 - probability)).mean(3, keepdim=True).clamp_min_(1e-12)  # [S, B, K, 1]
        diagonal = c.float() * mean * self.curvature + self.ridge.float()
        if self.softmax and self.ridge[-1] == 0:
            # One for all classes, so that no step adds a number to all biases, which changes nothing.
            diagonal[..., -1] = diagonal[..., -1].mean(2, keepdim=True)
        return diagonal.reciprocal_()

    def step(
        self, at: _State, c: Tensor, inverse: Tensor, error: Tensor, pending: Tensor, max_iter: int
    ) -> tuple[Tensor, int]:
        """Newton's step by conjugate gradients in float32, about as exact as helps, and the number of iterations."""
        scale, ridge, p = c.float(), self.ridge.float(), at.probability
        residual = -at.gradient.float()
        goal = torch.maximum(error * error.clamp(TIGHT, LOOSE), error.new_tensor(TOLERANCE / 2)).square().float()
        step = torch.zeros_like(residual)
        slope = p * (1 - p)
        z = residual * inverse
        direction = z
        size, none = self.dot(residual, z), z.new_zeros(())
        used = 0
        while used < max_iter:
            used += 1
            scores = (direction.flatten(1, 2) @ self.single.mT).view(p.shape)
            if self.softmax:
                scores *= p
                scores.addcmul_(p, scores.sum(2, keepdim=True), value=-1)
            else:
                scores *= slope
            product = (scores.flatten(1, 2) @ self.single).view(step.shape)
            product = torch.addcmul(ridge * direction, scale, product)
            length = torch.where(pending, size / self.dot(direction, product), none)
            step.addcmul_(length, direction)
            residual.addcmul_(length, product, value=-1)
            z = residual * inverse
            before, size = size, self.dot(residual, z)
            pending = pending & (size > goal)
            if not pending.any():
                break
            direction = torch.addcmul(z, torch.where(pending, size / before, none), direction)
        return step, used

    def search(self, weight: Tensor, at: _State, step: Tensor, c: Tensor) -> tuple[Tensor, _State, Tensor]:
        """Weights and values after a step that is halved until the loss falls, and for which problems it never does."""
        slope = self.dot(at.gradient, step)
        rounding = 1e-12 * at.loss.abs()
        length = torch.ones_like(at.loss)
        for _ in range(30):
            moved = weight + length * step
            then = self.evaluate(moved, c)
            failed = then.loss > at.loss + DECREASE * length * slope + rounding
            if not failed.any():
                return moved, then, failed
            length = torch.where(failed, length / 2, length)
        return moved, then, failed

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Σ a b of each problem."""
        return (a * b).sum(self.dims, keepdim=True)
