"""VICReg: variance, invariance and covariance, weighted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sslcollapse.nn.moments import covariance_excess, std_shortfall
from sslcollapse.nn.norm import ActivationName, NormName
from sslcollapse.objectives.base import StatisticsObjective, check_weight
from sslcollapse.recipe.schema import Weight, Width


class VICReg(StatisticsObjective):
    """VICReg: the views' distance, the shortfall of each feature's standard deviation, and covariances.

    Formula: λ ‖Z₁ − Z₂‖²_F / (N d) + μ [v(Z₁) + v(Z₂)] / 2 + ν [c(Z₁) + c(Z₂)], with
    v(Z) = mean_j max(0, 1 − √(var(z_j) + ε)) and c(Z) = Σ_{i≠j} cov(Z)²_ij / d, both over N − 1.

    Args:
        invariance: λ.
        variance: μ.
        covariance: ν.
        eps: ε.
        projector: width of each linear layer of the projector; empty for none.
        norm: after each layer of the projector but the last.
        activation: after each layer of the projector but the last.

    Shapes:
        z of each online branch: [N, d].

    Raises:
        ValueError: for a negative weight or eps, or a width below 1.
        RecipeError: for other than two views, or a single sample.

    Source: Bardes et al. 2022, eq. 1 to 6; the ½ of the variance term is their code's, as are μ and ν.

    lightly's ``VICRegLoss`` with gathering is exact under several processes too, but returns the sum of the terms,
    fixes at construction whether it gathers, and selects covariances by a boolean mask, which waits for the device
    and makes 16 d² bytes of indices (1 GiB for d = 8192). Tests compare with it.
    """

    def __init__(
        self,
        *,
        invariance: Weight = 25.0,
        variance: Weight = 25.0,
        covariance: Weight = 1.0,
        eps: Weight = 1e-4,
        projector: Sequence[Width] = (8192, 8192, 8192),
        norm: NormName = "batch",
        activation: ActivationName = "relu",
    ) -> None:
        super().__init__("vicreg", projector, norm, activation)
        self.invariance = check_weight("invariance", invariance)
        self.variance = check_weight("variance", variance)
        self.covariance = check_weight("covariance", covariance)
        self.eps = check_weight("eps", eps)

    def terms(self, z1: Tensor, z2: Tensor) -> Mapping[str, Tensor]:
        """[N, d], [N, d] → ``invariance``, ``variance`` and ``covariance``, weighted."""
        shortfall = std_shortfall(z1, eps=self.eps) + std_shortfall(z2, eps=self.eps)
        return {
            "invariance": self.invariance * torch.nn.functional.mse_loss(z1, z2),
            "variance": 0.5 * self.variance * shortfall,
            "covariance": self.covariance * (covariance_excess(z1) + covariance_excess(z2)),
        }
