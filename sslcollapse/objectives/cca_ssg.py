"""CCA-SSG: standardised views agree, and their features are uncorrelated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from sslcollapse.nn.moments import off_diagonal_square_sum, standardize
from sslcollapse.nn.norm import ActivationName, NormName
from sslcollapse.objectives.base import StatisticsObjective, check_weight
from sslcollapse.recipe.schema import Weight, Width


class CCASSG(StatisticsObjective):
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
