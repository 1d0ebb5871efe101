"""What every logistic solver shares: the classes it can learn from the training rows, and its result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sslcollapse.core.errors import DataError


class Fit(NamedTuple):
    """One solution: weight [K, d], bias [K] for the K columns or classes of ``Targets.values``."""

    weight: Tensor
    bias: Tensor
    converged: bool


@dataclass(frozen=True)
class LinearModel:
    """Class scores x Wᵀ + b; a class never seen in training has bias −inf.

    Shapes:
        weight: [C, d]; bias: [C]; scores: [N, d] → [N, C].
    """

    weight: Tensor
    bias: Tensor
    converged: bool

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes, on the device and in the precision of ``x``."""
        return torch.addmm(self.bias.to(x), x, self.weight.to(x).T)


@dataclass(frozen=True)
class Targets:
    """Training labels without the classes that they cannot teach.

    Shapes:
        values: [n] codes 0..K-1 (K ≥ 3, all present) for a softmax, or [n, L] in {0, 1}, each column
            with both values, for L independent sigmoids.
        classes: [K] or [L] class numbers of the codes or columns; for two classes, the second one.
        bias: [C] scores of the classes that are not fitted.
    """

    values: Tensor
    classes: Tensor
    bias: Tensor

    @classmethod
    def of(cls, labels: Tensor, num_classes: int, *, one_vs_rest: bool) -> Targets:
        """Encode training labels ([n] classes or [n, C] in {0, 1}).

        Two classes become one sigmoid, as in scikit-learn: a softmax of two classes is penalised
        half as much.

        Raises:
            DataError: when there is nothing to tell apart.
        """
        if labels.dim() == 2:
            mean = labels.double().mean(0)
            varied = ((mean > 0) & (mean < 1)).nonzero().flatten()
            if len(varied) == 0:
                raise DataError("no label varies over the training rows: nothing can be learnt from them")
            bias = torch.where(mean > 0, math.inf, -math.inf).double()
            return cls(labels[:, varied].double(), varied, bias)
        classes, codes = torch.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise DataError(
                f"the training part holds class {classes.tolist()} only: nothing to tell apart; "
                f"use a larger training part"
            )
        bias = torch.full((num_classes,), -math.inf, dtype=torch.float64, device=labels.device)
        if len(classes) == 2:
            bias[classes[0]] = 0.0  # the reference class: its score is 0, the other's is the log-odds
            return cls(codes[:, None].double(), classes[1:], bias)
        if one_vs_rest:
            return cls(torch.nn.functional.one_hot(codes).double(), classes, bias)
        return cls(codes, classes, bias)

    def model(self, fit: Fit) -> LinearModel:
        """The classifier over all C classes from the solution for the fitted ones."""
        weight = fit.weight.new_zeros(len(self.bias), fit.weight.shape[1])
        weight[self.classes] = fit.weight
        bias = self.bias.to(fit.bias, copy=True)  # each C has its own
        bias[self.classes] = fit.bias
        return LinearModel(weight, bias, fit.converged)
