"""What is said of one weight or output: healthy, degrading or collapsed.

A rank is held against what chance gives, not against the largest possible one: a random square matrix has an
effective rank of 0.805 of its size, a random wide one nearly all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.types import Point
from sslcollapse.rank.diagnose.matrices import Matrix
from sslcollapse.rank.record import LayerRank, rank_of
from sslcollapse.rank.spectrum import from_gram, singular_values, widest

HEALTHY, DEGRADING, COLLAPSED = "healthy", "degrading", "collapsed"
VERDICTS = (HEALTHY, DEGRADING, COLLAPSED)

NO_CHANGE = "an adapter: no change"
"""Why the weight of an adapter with B·A = 0 is healthy."""

DEGRADING_BELOW = 0.5
"""Share of the reference rank below which a layer is degrading: half of the directions that chance gives are lost."""

COLLAPSED_BELOW = 0.1
"""Share of the reference rank below which a layer has collapsed: nine directions in ten are lost."""

OUTPUT_DEGRADING_BELOW = 0.2
"""The same for an output. It is lower, since a good network may have less rank than an untrained one, which passes
all noise of its inputs on; ``python tools/evidence.py calibration`` counts false alarms and misses by it."""

FEW_DIRECTIONS = 2.0
"""An output with fewer effective directions has collapsed whatever an untrained network has, where at least
``FEW_DIRECTIONS / COLLAPSED_BELOW`` are attainable: deep untrained networks can be collapsed themselves."""

CONDITION_LIMIT = 1e7
"""Above this a condition number counts as infinite: smaller singular values are rounding noise of the Gram matrix."""

_POINTS = 4096

_WHOLE = 2**24
"""Matrices with more entries are brought to float64 a part at a time."""


@dataclass(frozen=True)
class Judged:
    """A weight, an output or the representation: its rank, un-centred, and what is said of it.

    Attributes:
        rank: NaN where an entry of a weight is not finite.
        reference: effective rank of a random matrix of a weight's shape; of an output, the untrained network's, and 0
            where there is none.
        verdict: by ``share``.
        reason: one line.
        sigma: singular values, descending; None where an entry is not finite.
        shape: [out, in] of a weight; empty of an output, which has no numbers after it.
        condition: σ₁/σ_min; None also above ``CONDITION_LIMIT`` and where an entry is not finite.
        orthogonality_defect: ‖WᵀW − I‖_F over the smaller Gram matrix; None where an entry is not finite.
        columns: what else was asked for, by name (``columns.py``).
    """

    rank: LayerRank
    reference: float
    verdict: str
    reason: str
    sigma: np.ndarray | None
    shape: tuple[int, ...] = ()
    condition: float | None = None
    orthogonality_defect: float | None = None
    columns: Mapping[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Effective rank over its reference; 0 where it is not finite."""
        return self.rank.effective_rank / (self.reference or 1.0) if self.rank.finite else 0.0


def weigh(matrix: Matrix) -> Judged:
    """Measure and judge one weight matrix, or the change of one by a low-rank adapter."""
    weight = matrix.weight.detach()
    shape = (weight.shape[0], weight.shape[1])
    reference = random_rank(*shape)
    rank, sigma = rank_of(Point("weight", matrix.name), shape, lambda: spectrum_of(weight), depth=matrix.depth)
    if not rank.finite:
        bad = int((~torch.isfinite(widest(weight))).sum())
        reason = (
            f"{bad} of {weight.numel()} entries are NaN or infinite" if bad else "its entries are too large to square"
        )
        return Judged(rank, reference, COLLAPSED, reason, None, shape)
    value = rank.effective_rank
    reason = (
        f"effective rank {value:.1f} of {rank.attainable}, {value / reference:.2f} of a random matrix's"
        if value
        else "all entries are zero"
    )
    verdict = weight_verdict(value, reference)
    if matrix.adapter:  # what an adapter leaves as it was is no loss of rank
        verdict, most = HEALTHY, min(matrix.adapter, *shape)
        reference = random_rank(most, max(shape))
        rank = replace(rank, attainable=most, reachable=most, fraction=value / most)
        reason = f"an adapter's change: effective rank {value:.1f} of {most}" if value else NO_CHANGE
    defect = float((sigma.square() - 1).square().sum().sqrt())
    return Judged(rank, reference, verdict, reason, sigma.numpy(), shape, _condition(sigma), defect)


def spectrum_of(weight: Tensor) -> Tensor:
    """Singular values [k] in float64, descending; a large matrix is not copied to float64 as a whole.

    Raises:
        NotFiniteError: NaN or infinite entries.
    """
    if weight.numel() <= _WHOLE or weight.is_complex() or weight.device.type != "cpu":
        return singular_values(weight)
    side = weight if weight.shape[0] <= weight.shape[1] else weight.mT
    gram = torch.zeros(side.shape[0], side.shape[0], dtype=torch.float64)
    for columns in side.split(max(_WHOLE // side.shape[0], 1), dim=1):
        wide = columns.double()
        gram.addmm_(wide, wide.mT)
        del wide
    return from_gram(gram) if bool(torch.isfinite(gram).all()) else singular_values(weight)


def random_rank(out: int, columns: int) -> float:
    """Expected effective rank of an [out, in] matrix of independent entries of one variance, for large matrices.

    With c = min/max of the two sizes, the squared singular values λ (over max · variance) follow the
    Marchenko-Pastur law on [(1 − √c)², (1 + √c)²], and the effective rank tends to

        min · E[s] · exp(−E[s log s] / E[s]),  s = √λ.

    The law does not depend on the distribution, so it holds for Gaussian, Glorot and He initialisations alike; it is
    within 2 % of an average over draws from about 20 rows and columns on.

    Source: Marchenko & Pastur 1967.
    """
    small, large = sorted((out, columns))
    c = small / large
    # λ = 1 + c + 2√c·cos θ takes the square roots out of the density, so that midpoints converge at once.
    theta = (torch.arange(_POINTS, dtype=torch.float64) + 0.5) * (math.pi / _POINTS)
    energy = 1 + c + 2 * math.sqrt(c) * torch.cos(theta)
    density = 2 * torch.sin(theta).square() / energy / _POINTS
    s = energy.sqrt()
    mean = float((density * s).sum())
    entropy = float((density * s * s.log()).sum()) / mean
    return min(max(small * mean * math.exp(-entropy), 1.0), float(small))


def weight_verdict(effective_rank: float, reference: float) -> str:
    """Verdict on a weight whose random counterpart has the effective rank ``reference``."""
    return _by_share(effective_rank / reference)


def output_verdict(effective_rank: float, reference: float, attainable: int) -> str:
    """Verdict on features of which the untrained network has the effective rank ``reference``."""
    if effective_rank < FEW_DIRECTIONS and attainable >= FEW_DIRECTIONS / COLLAPSED_BELOW:
        return COLLAPSED
    return _by_share(effective_rank / reference if reference > 0 else 1.0, OUTPUT_DEGRADING_BELOW)


def worst(verdicts: Iterable[str]) -> str:
    """The worst of some verdicts; healthy where there are none."""
    return max(verdicts, key=VERDICTS.index, default=HEALTHY)


def _condition(sigma: Tensor) -> float | None:
    largest, smallest = float(sigma[0]), float(sigma[-1])
    if largest == 0 or smallest * CONDITION_LIMIT < largest:
        return None
    return largest / smallest


def _by_share(share: float, degrading_below: float = DEGRADING_BELOW) -> str:
    if not share >= COLLAPSED_BELOW:  # nor is NaN
        return COLLAPSED
    return DEGRADING if share < degrading_below else HEALTHY
