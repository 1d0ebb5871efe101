"""Objectives that make views agree and features differ: VICReg, Barlow Twins and CCA-SSG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sslcollapse.core.distributed import Gather
from sslcollapse.core.types import Branch
from sslcollapse.nn.heads import Head
from sslcollapse.nn.moments import covariance_excess, off_diagonal_square_sum, standardize, std_shortfall, widen
from sslcollapse.nn.norm import ActivationName, NormName
from sslcollapse.objectives.base import Objective, check_samples, embeddings_of_two_views
from sslcollapse.objectives.checks import check_projector, check_weight
from sslcollapse.recipe.schema import Weight, Width


class RedundancyObjective(Objective):
    """What the three share: statistics of the embeddings of two views over the samples of all ranks.

    Args:
        name: as messages call it.
        projector: width of each linear layer of the projector; empty for none.
        norm: after each layer of the projector but the last, which has neither normalisation nor bias: the loss
            does not change when the same vector is added to all embeddings.
        activation: after each layer of the projector but the last.
    """

    couples_batch = True

    def __init__(self, name: str, projector: Sequence[int], norm: NormName, activation: ActivationName) -> None:
        super().__init__()
        self.name = name
        self.widths = check_projector(projector)
        self.norm, self.activation = norm, activation

    def projector(self, in_dim: int) -> nn.Module | None:
        """Linear, normalisation and activation, repeated, then Linear."""
        if not self.widths:
            return None
        return Head(in_dim, *self.widths, norm=self.norm, activation=self.activation, last_bias=False)

    def forward(
        self, online: Sequence[Branch], target: Sequence[Branch] | None, gather: Gather
    ) -> Mapping[str, Tensor]:
        """Two online branches → the weighted terms of the loss, float32 or wider."""
        z1, z2 = embeddings_of_two_views(self.name, online)
        check_samples(self.name, len(z1) * gather.ranks)
        with torch.autocast(z1.device.type, enabled=False):
            return self.terms(*gather.views(widen(z1), widen(z2)))

    def terms(self, z1: Tensor, z2: Tensor) -> Mapping[str, Tensor]:
        """The embeddings of all samples, [N, d] each → named terms."""
        raise NotImplementedError


class VICReg(RedundancyObjective):
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


class BarlowTwins(RedundancyObjective):
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


class CCASSG(RedundancyObjective):
    """CCA-SSG: standardised views agree, and the features of each are uncorrelated.

    Formula: ½ ‖Z̃₁ − Z̃₂‖²_F + λ (‖Z̃₁ᵀZ̃₁ − I‖²_F + ‖Z̃₂ᵀZ̃₂ − I‖²_F), Z̃ = (Z − mean) / (σ √N). Since each column of
    Z̃ has length 1, the first term is d − tr(Z̃₁ᵀZ̃₂): the authors' code without its constant. Their paper has no ½;
    its λ is twice the code's and this one.

    Args:
        decorrelation: λ.
        eps: added to the variance; small, since representations may be.
        projector: width of each linear layer of a projector; the authors have none.
        norm: after each layer of the projector but the last.
        activation: after each layer of the projector but the last.

    Shapes:
        z of each online branch: [N, d].

    Raises:
        ValueError: for a negative λ or eps, or a width below 1.
        RecipeError: for other than two views, or a single sample.

    Source: Zhang et al. 2021, "From Canonical Correlation Analysis to Self-supervised Graph Neural Networks".
    """

    def __init__(
        self,
        *,
        decorrelation: Weight = 1e-3,
        eps: Weight = 1e-12,
        projector: Sequence[Width] = (),
        norm: NormName = "batch",
        activation: ActivationName = "relu",
    ) -> None:
        super().__init__("cca_ssg", projector, norm, activation)
        self.decorrelation = check_weight("decorrelation", decorrelation)
        self.eps = check_weight("eps", eps)

    def terms(self, z1: Tensor, z2: Tensor) -> Mapping[str, Tensor]:
        """[N, d], [N, d] → ``invariance`` and ``decorrelation``, weighted."""
        root = math.sqrt(len(z1))
        z1, z2 = standardize(z1, self.eps) / root, standardize(z2, self.eps) / root
        return {
            "invariance": 0.5 * (z1 - z2).square().sum(),
            "decorrelation": self.decorrelation * (_identity_defect(z1) + _identity_defect(z2)),
        }


def _identity_defect(z: Tensor) -> Tensor:
    """‖ZᵀZ − I‖²_F: [N, d] → scalar."""
    return off_diagonal_square_sum(z) + (z.square().sum(0) - 1.0).square().sum()
