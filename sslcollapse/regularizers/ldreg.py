"""LDReg: features are kept from lying on sheets of few dimensions around every sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from sslcollapse.core.distributed import Gather
from sslcollapse.core.precision import full_precision
from sslcollapse.nn.init import check_samples
from sslcollapse.nn.moments import widen
from sslcollapse.recipe.schema import Between, Coefficient, Distinct
from sslcollapse.regularizers.base import FeaturePenalty

_CLOSEST = 1e-6
"""Least (a_k − m) / a_k that is told from zero, which bounds the gradient of equidistant samples."""


class LDRegPenalty(FeaturePenalty):
    """Minus the mean logarithm of the local intrinsic dimension: −mean_i ln(m_i / (a_i − m_i)).

    a_i is the distance of sample i to its k-th nearest neighbour in the batch and m_i the mean of its k nearest
    distances, so that the penalty is −ln of ``local_intrinsic_dimension``. It is negative where the dimension is above
    1, and scale does not matter to it. Gradients go to a sample and to its neighbours. Samples that coincide with k
    others give 0, without gradient. All distances between samples of the batch are held in memory.

    Args:
        coefficient: any form of coefficient, the kinds of feature standing for layers.
        on: which features: ``"representation"``, ``"embedding"``, ``"prediction"``, or layers by name or glob, whose
            outputs are meant.
        k: number of neighbours; all other samples where the batch over all ranks has fewer.

    Shapes:
        features of each view: [N, d].

    Raises:
        ValueError: for a k below 2.
        RecipeError: for fewer than three samples.

    Source: Huang et al. 2024 (LDReg), with the L1 form of its loss; it uses the coefficient 0.01 with SimCLR and 0.005
    with BYOL.
    """

    def __init__(
        self,
        *,
        coefficient: Coefficient = 0.01,
        on: Annotated[Sequence[str], Distinct()] = ("representation",),
        k: Annotated[int, Between(2, 65_536)] = 64,
    ) -> None:
        super().__init__(coefficient, on)
        if k < 2:
            raise ValueError(f"k must be at least 2, got {k}")
        self.k = k

    def forward(self, features: Sequence[Tensor], gather: Gather, step: int = 0) -> Tensor:
        """[N, d] a view → mean over views of −ln of the dimension."""
        check_samples("the regularizer 'ldreg'", len(features[0]) * gather.ranks, minimum=3)
        with full_precision(features[0].device):
            gathered = gather.views(*map(widen, features))
            return torch.stack([negative_log_dimension(view, self.k) for view in gathered]).mean()


def negative_log_dimension(x: Tensor, k: int) -> Tensor:
    """−mean ln(m/(a_k − m)) over samples with their min(k, N − 1) nearest neighbours: [N, d] → scalar."""
    n = len(x)
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")  # [N, N]
    itself = torch.eye(n, dtype=torch.bool, device=x.device)
    nearest = distances.masked_fill(itself, torch.inf).topk(min(k, n - 1), largest=False).values  # [N, k], ascending
    m, a = nearest.mean(1), nearest[:, -1]
    apart = a > 0
    # Where samples coincide both logarithms are of 1, since 0 · the gradient of log 0 would be NaN.
    a, m = torch.where(apart, a, 1.0), torch.where(apart, m, 0.5)
    return ((a - m).clamp_min(_CLOSEST * a.detach()).log() - m.log()).mean()
