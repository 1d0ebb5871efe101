"""Healthy, degrading or collapsed: thresholds, and the rank that each is a fraction of.

A rank is held against what chance gives, not against the largest possible one: a random square matrix has an
effective rank of 0.805 of its size, a random wide one nearly all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

HEALTHY, DEGRADING, COLLAPSED = "healthy", "degrading", "collapsed"
VERDICTS = (HEALTHY, DEGRADING, COLLAPSED)

DEGRADING_BELOW = 0.5
"""Share of the reference rank below which a layer is degrading: half of the directions that chance gives are lost."""

COLLAPSED_BELOW = 0.1
"""Share of the reference rank below which a layer has collapsed: nine directions in ten are lost."""

FEW_DIRECTIONS = 2.0
"""An output with fewer effective directions has collapsed whatever an untrained network has, where at least
``FEW_DIRECTIONS / COLLAPSED_BELOW`` are attainable: deep untrained networks can be collapsed themselves."""

_POINTS = 4096


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
    return _by_share(effective_rank / reference if reference > 0 else 1.0)


def worst(verdicts: Iterable[str]) -> str:
    """The worst of some verdicts; healthy where there are none."""
    return max(verdicts, key=VERDICTS.index, default=HEALTHY)


def _by_share(share: float) -> str:
    if share < COLLAPSED_BELOW:
        return COLLAPSED
    return DEGRADING if share < DEGRADING_BELOW else HEALTHY
