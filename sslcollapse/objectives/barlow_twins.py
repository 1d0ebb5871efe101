"""Barlow Twins: the views' features correlate with themselves alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from sslcollapse.nn.moments import off_diagonal_square_sum, standardize
from sslcollapse.nn.norm import ActivationName, NormName
from sslcollapse.objectives.base import StatisticsObjective, check_weight
from sslcollapse.recipe.schema import Weight, Width


class BarlowTwins(StatisticsObjective):
    """Barlow Twins: the correlation matrix of the two views' features is brought to the identity.

    Formula: Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij², C = Ẑ₁ᵀẐ₂ / N, the columns of Ẑ having mean 0 and variance 1 over
    the samples of all ranks.

    Args:
        redundancy: λ; None for 1/d (Graph Barlow Twins).
        scale: of the whole loss; the authors' code has 0.024 with LARS.
        eps: added to the variance, as in BatchNorm.
        projector: width of each linear layer of the projector; empty for none (Graph Barlow Twins).
        norm: after each layer of the projector but the last.
        activation: after each layer of the projector but the last.

    Shapes:
        z of each online branch: [N, d].

    Raises:
        ValueError: for a negative λ, scale or eps, or a width below 1.
        RecipeError: for other than two views, or a single sample.

    Source: Zbontar et al. 2021, eq. 1 and 2; Bielak et al. 2022 (Graph Barlow Twins).

    lightly's ``BarlowTwinsLoss`` standardises with each process's own mean and variance, also where it gathers, so
    that two processes have the gradient of another loss than one; its release 1.5.0 moreover standardises both views
    with common ones and sums correlations over processes without a gradient. Tests compare with it on one process.
    """

    def __init__(
        self,
        *,
        redundancy: Weight | None = 5e-3,
        scale: Weight = 1.0,
        eps: Weight = 1e-5,
        projector: Sequence[Width] = (8192, 8192, 8192),
        norm: NormName = "batch",
        activation: ActivationName = "relu",
    ) -> None:
        super().__init__("barlow_twins", projector, norm, activation)
        self.redundancy = None if redundancy is None else check_weight("redundancy", redundancy)
        self.scale = check_weight("scale", scale)
        self.eps = check_weight("eps", eps)

    def terms(self, z1: Tensor, z2: Tensor) -> Mapping[str, Tensor]:
        """[N, d], [N, d] → ``invariance`` and ``redundancy``, weighted."""
        rows, dim = z1.shape
        z1, z2 = standardize(z1, self.eps), standardize(z2, self.eps)
        correlation = (z1 * z2).mean(0)  # [d], the diagonal
        weight = 1.0 / dim if self.redundancy is None else self.redundancy
        return {
            "invariance": self.scale * (1.0 - correlation).square().sum(),
            "redundancy": self.scale * weight / rows**2 * off_diagonal_square_sum(z1, z2),
        }
