"""Penalties on features: VICReg's variance and covariance terms for any objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from sslcollapse.core.distributed import Gather
from sslcollapse.core.precision import full_precision
from sslcollapse.nn.init import check_samples
from sslcollapse.nn.moments import covariance_excess, std_shortfall, widen
from sslcollapse.recipe.schema import Above, Coefficient, Distinct
from sslcollapse.regularizers.base import FeaturePenalty


class VariancePenalty(FeaturePenalty):
    """Shortfall of each feature's standard deviation: mean_j max(0, target − √(var(x_j) + ε)).

    With the coefficient 25 on the embedding it is the variance term of ``vicreg``.

    Args:
        coefficient: any form of coefficient, the kinds of feature standing for layers.
        on: which features: ``"representation"``, ``"embedding"``, ``"prediction"``, or layers by name or glob, whose
            outputs are meant.
        target: the standard deviation below which a feature is penalised.
        eps: ε, which bounds the gradient at a constant feature.

    Shapes:
        features of each view: [N, d].

    Raises:
        ValueError: for a target or eps that is not positive.
        RecipeError: for a single sample.

    Source: Bardes et al. 2022 (VICReg), eq. 1.
    """

    def __init__(
        self,
        *,
        coefficient: Coefficient = 1.0,
        on: Annotated[Sequence[str], Distinct()] = ("representation",),
        target: Annotated[float, Above(0)] = 1.0,
        eps: Annotated[float, Above(0)] = 1e-4,
    ) -> None:
        super().__init__(coefficient, on)
        for name, value in (("target", target), ("eps", eps)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive, got {value}")
        self.target = target
        self.eps = eps

    def forward(self, features: Sequence[Tensor], gather: Gather, step: int = 0) -> Tensor:
        """[N, d] a view → mean over views of the shortfall."""
        check_samples("the regularizer 'variance'", len(features[0]) * gather.ranks)
        with full_precision(features[0].device):
            gathered = gather.views(*map(widen, features))
            return torch.stack([std_shortfall(view, self.target, self.eps) for view in gathered]).mean()


class CovariancePenalty(FeaturePenalty):
    """Squared covariances between different features: Σ_{i≠j} cov(x)²_ij / d.

    A mean over views, of which the covariance term of ``vicreg`` is the sum: there the coefficient 1 is 2 here.

    Args:
        coefficient: any form of coefficient, the kinds of feature standing for layers.
        on: which features: ``"representation"``, ``"embedding"``, ``"prediction"``, or layers by name or glob, whose
            outputs are meant.

    Shapes:
        features of each view: [N, d].

    Raises:
        RecipeError: for a single sample.

    Source: Bardes et al. 2022 (VICReg), eq. 4. Alone it is least for constant features; use it with ``variance``, or
    with an objective that keeps features from vanishing.
    """

    def __init__(
        self, *, coefficient: Coefficient = 0.04, on: Annotated[Sequence[str], Distinct()] = ("representation",)
    ) -> None:
        super().__init__(coefficient, on)

    def forward(self, features: Sequence[Tensor], gather: Gather, step: int = 0) -> Tensor:
        """[N, d] a view → mean over views of the squared covariances."""
        check_samples("the regularizer 'covariance'", len(features[0]) * gather.ranks)
        with full_precision(features[0].device):
            gathered = gather.views(*map(widen, features))
            return torch.stack([covariance_excess(view) for view in gathered]).mean()
