"""SIGReg: features are brought to an isotropic Gaussian, one random direction at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from sslcollapse.core.distributed import Gather
from sslcollapse.core.memory import onto
from sslcollapse.core.precision import full_precision, precisely
from sslcollapse.core.seeding import generator
from sslcollapse.nn.init import check_samples
from sslcollapse.nn.moments import widen
from sslcollapse.recipe.schema import Above, Between, Coefficient, Distinct
from sslcollapse.regularizers.base import FeaturePenalty


class SIGRegPenalty(FeaturePenalty):
    """Epps-Pulley distance of the features to N(0, I), a mean over random directions a of unit length.

    Formula: N ∫ |φ̂_a(t) − exp(−t²/2)|² exp(−t²/2) dt over [−T, T], φ̂_a(t) = mean_n exp(i t aᵀx_n), by the trapezoidal
    rule on ``knots`` points of [0, T], the integrand being even.

    It is least where features have mean 0, variance 1 in every direction and no other structure, so neither a collapsed
    dimension nor a collapsed network has a small value. The directions are a function of the step and the same on all
    ranks.

    Args:
        coefficient: any form of coefficient, the kinds of feature standing for layers.
        on: which features: ``"representation"``, ``"embedding"``, ``"prediction"``, or layers by name or glob, whose
            outputs are meant.
        directions: random directions a step.
        knots: points of the integral.
        limit: T.

    Shapes:
        features of each view: [N, d].

    Raises:
        ValueError: for fewer than one direction or two knots, or a limit that is not positive.
        RecipeError: for a single sample.

    Source: Balestriero & LeCun 2025 (LeJEPA), who use 17 knots on [0, 3], 256 to 1,024 directions and a weight of 0.02
    to 0.05; Epps & Pulley 1983.
    """

    def __init__(
        self,
        *,
        coefficient: Coefficient = 0.02,
        on: Annotated[Sequence[str], Distinct()] = ("embedding",),
        directions: Annotated[int, Between(1, 65_536)] = 256,
        knots: Annotated[int, Between(2, 10_000)] = 17,
        limit: Annotated[float, Above(0)] = 3.0,
    ) -> None:
        super().__init__(coefficient, on)
        if directions < 1:
            raise ValueError(f"directions must be at least 1, got {directions}")
        if knots < 2:
            raise ValueError(f"knots must be at least 2, got {knots}")
        if not (limit > 0 and math.isfinite(limit)):
            raise ValueError(f"limit must be a positive number, got {limit}")
        self.directions, self.knots, self.limit = directions, knots, limit

    def forward(self, features: Sequence[Tensor], gather: Gather, step: int = 0) -> Tensor:
        """[N, d] a view → mean over views and directions of the distance."""
        check_samples("the regularizer 'sigreg'", len(features[0]) * gather.ranks)
        with full_precision(features[0].device):
            gathered = gather.views(*map(widen, features))
            directions = self.directions_at(step, gathered[0].shape[1])
            directions = onto(gathered[0].device, directions).to(gathered[0].dtype)
            projected = [precisely(torch.matmul, view, directions) for view in gathered]
            return torch.stack([epps_pulley(each, self.knots, self.limit) for each in projected]).mean()

    def directions_at(self, step: int, dim: int) -> Tensor:
        """The directions of a step as columns of unit length: [dim, directions], float32, on the CPU."""
        rng = generator(torch.device("cpu"), "sigreg directions", step)
        return torch.nn.functional.normalize(torch.randn(dim, self.directions, generator=rng), dim=0)


def epps_pulley(projections: Tensor, knots: int, limit: float) -> Tensor:
    """Mean over columns of the weighted distance between empirical and normal characteristic function.

    Shapes:
        projections: [N, M] → scalar.
    """
    t = torch.linspace(0.0, limit, knots, dtype=projections.dtype, device=projections.device)
    normal = torch.exp(-0.5 * t.square())
    spacing = limit / (knots - 1)
    weights = torch.full_like(t, 2.0 * spacing)  # twice, for −t as well
    weights[0] = weights[-1] = spacing
    weights = weights * normal
    total = projections.new_zeros(())
    for k in range(knots):  # one knot at a time: [N, M] in memory, not [N, M, knots]
        angles = projections * t[k]
        real, imaginary = angles.cos().mean(0), angles.sin().mean(0)  # [M]
        total = total + weights[k] * ((real - normal[k]).square() + imaginary.square()).mean()
    return len(projections) * total
