"""Measure every layer of a target and judge it: healthy, degrading or collapsed.

A rank is held against what chance gives, not against the largest possible one: a random square matrix has an
effective rank of 0.805 of its size, a random wide one nearly all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslcollapse.core.memory import map_on_threads
from sslcollapse.core.precision import device_of, full_precision
from sslcollapse.core.types import Point
from sslcollapse.layers.layer import Coverage
from sslcollapse.rank.diagnose.matrices import Matrix
from sslcollapse.rank.diagnose.targets import Target, with_data
from sslcollapse.rank.measure import measure, run_through
from sslcollapse.rank.record import LayerRank, rank_of
from sslcollapse.rank.spectrum import NotFiniteError, singular_values

HEALTHY, DEGRADING, COLLAPSED = "healthy", "degrading", "collapsed"
VERDICTS = (HEALTHY, DEGRADING, COLLAPSED)

DEGRADING_BELOW = 0.5
"""Share of the reference rank below which a layer is degrading: half of the directions that chance gives are lost."""

COLLAPSED_BELOW = 0.1
"""Share of the reference rank below which a layer has collapsed: nine directions in ten are lost."""

FEW_DIRECTIONS = 2.0
"""An output with fewer effective directions has collapsed whatever an untrained network has, where at least
``FEW_DIRECTIONS / COLLAPSED_BELOW`` are attainable: deep untrained networks can be collapsed themselves."""

CONDITION_LIMIT = 1e7
"""Above this a condition number counts as infinite: smaller singular values are rounding noise of the Gram matrix."""

_POINTS = 4096


@dataclass(frozen=True)
class Judged:
    """A weight, an output or the representation: its rank, un-centred, and what is said of it.

    Attributes:
        rank: NaN where an entry of a weight is not finite.
        reference: effective rank of a random matrix of a weight's shape; of an output, the untrained network's.
        verdict: by ``share``.
        reason: one line.
        sigma: singular values, descending; None where an entry is not finite.
        shape: [out, in] of a weight; empty of an output, which has no numbers after it.
        condition: σ₁/σ_min; None also above ``CONDITION_LIMIT`` and where an entry is not finite.
        orthogonality_defect: ‖WᵀW − I‖_F over the smaller Gram matrix; None where an entry is not finite.
    """

    rank: LayerRank
    reference: float
    verdict: str
    reason: str
    sigma: np.ndarray | None
    shape: tuple[int, ...] = ()
    condition: float | None = None
    orthogonality_defect: float | None = None

    @property
    def share(self) -> float:
        """Effective rank over its reference; 0 where it is not finite."""
        return self.rank.effective_rank / (self.reference or 1.0) if self.rank.finite else 0.0


@dataclass(frozen=True)
class LayerReport:
    """One layer: its weight, its output where there were data, and the worse verdict of both."""

    weight: Judged
    output: Judged | None = None

    @property
    def name(self) -> str:
        """Of the layer."""
        return self.weight.rank.layer

    @property
    def depth(self) -> int:
        """Of the layer."""
        return self.weight.rank.depth

    @property
    def verdict(self) -> str:
        """The worse of the two."""
        return worst(part.verdict for part in (self.weight, self.output) if part is not None)


@dataclass(frozen=True)
class Diagnosis:
    """Every layer of a target, and its representation where there were data."""

    title: str
    layers: Sequence[LayerReport]
    coverage: Coverage
    representation: Judged | None = None
    data: str | None = None
    unmeasured: str | None = None

    @property
    def verdict(self) -> str:
        """The worst of all; collapsed where outputs could not be measured because they are not finite."""
        verdicts = [layer.verdict for layer in self.layers]
        verdicts += [self.representation.verdict] if self.representation else []
        return worst([*verdicts, COLLAPSED] if self.unmeasured else verdicts)

    def count(self, verdict: str) -> int:
        """Number of layers with a verdict."""
        return sum(layer.verdict == verdict for layer in self.layers)

    def fails(self, at: str) -> bool:
        """Whether the worst verdict is ``at`` or worse."""
        return VERDICTS.index(self.verdict) >= VERDICTS.index(at)


def diagnose_weights(target: Target) -> Diagnosis:
    """Judge every weight matrix of a target."""
    return Diagnosis(target.title, list(map(LayerReport, map_on_threads(weigh, target.matrices))), target.coverage)


def weigh(matrix: Matrix) -> Judged:
    """Measure and judge one weight matrix."""
    weight = matrix.weight.detach()
    shape = (weight.shape[0], weight.shape[1])
    reference = random_rank(*shape)
    rank, sigma = rank_of(Point("weight", matrix.name), shape, lambda: singular_values(weight), depth=matrix.depth)
    if not rank.finite:
        bad = int((~torch.isfinite(weight.float())).sum())
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
    defect = float((sigma.square() - 1).square().sum().sqrt())
    verdict = weight_verdict(value, reference)
    return Judged(rank, reference, verdict, reason, sigma.numpy(), shape, _condition(sigma), defect)


def add_outputs(diagnosis: Diagnosis, target: Target, data: Mapping[str, Any], samples: int | None) -> Diagnosis:
    """The same diagnosis with the outputs of every layer and the representation, on the probe set of a recipe.

    Args:
        diagnosis: of the weights of ``target``.
        target: with a known architecture.
        data: recipe whose domain supplies the inputs, as ``load_data`` has read it.
        samples: at most this many; None is all nodes of graphs and ``DIAGNOSED`` images.

    Raises:
        TargetError: a target that is tensors only, or that reads other inputs than the recipe's.
        RecipeError, MissingDataError, DataError: see the recipe's domain.
    """
    trained, untrained, views, rows, described = with_data(target, data, samples)
    if not target.trained:
        with_statistics(trained, views)
    try:
        measured = measure(trained, views, rows=rows)
    except NotFiniteError as error:
        return replace(diagnosis, data=described, unmeasured=str(error))
    untrained.to(next(trained.parameters()).device)
    reference = {row.point: row for row in measure(with_statistics(untrained, views), views, rows=rows).rows}
    judged = {
        row.point: _output(row, reference[row.point], measured.singular[row.point.key])
        for row in measured.rows
        if row.kind == "output" or row.layer == "representation"
    }
    layers = [replace(layer, output=judged.get(Point("output", layer.name))) for layer in diagnosis.layers]
    return replace(diagnosis, layers=layers, representation=judged[Point("feature", "representation")], data=described)


@torch.no_grad()
def with_statistics(network: nn.Module, views: Iterable[Any]) -> nn.Module:
    """The same network, its BatchNorms' running statistics replaced by the mean over batches of these inputs.

    A trained network comes with statistics of its data. Without them an untrained one would not normalise at all, and
    its outputs would have less rank than chance gives.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return network
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    seen = 0
    with full_precision(device_of(network), convolutions=True):  # as what is measured afterwards
        for view in views:
            if isinstance(view, Tensor) and len(view) == 1:
                continue  # one sample has no variance
            seen += 1
            for norm in norms:
                norm.momentum = 1 / seen
            run_through(network, view)
    return network.eval()


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


def _output(rank: LayerRank, untrained: LayerRank, sigma: np.ndarray) -> Judged:
    value, reference = rank.effective_rank, untrained.effective_rank
    share = f", {value / reference:.2f} of the untrained network's" if reference else ""
    verdict = output_verdict(value, reference, rank.reachable)
    return Judged(rank, reference, verdict, f"effective rank {value:.1f} of {rank.reachable}{share}", sigma)


def _condition(sigma: Tensor) -> float | None:
    largest, smallest = float(sigma[0]), float(sigma[-1])
    if largest == 0 or smallest * CONDITION_LIMIT < largest:
        return None
    return largest / smallest


def _by_share(share: float) -> str:
    if share < COLLAPSED_BELOW:
        return COLLAPSED
    return DEGRADING if share < DEGRADING_BELOW else HEALTHY
