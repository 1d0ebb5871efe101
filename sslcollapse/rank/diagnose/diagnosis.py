"""Measure every layer of a target and judge it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslcollapse.core.threads import map_on_threads
from sslcollapse.layers.coverage import Coverage
from sslcollapse.rank.diagnose.matrices import Matrix
from sslcollapse.rank.diagnose.state_dict import TargetError
from sslcollapse.rank.diagnose.targets import Target
from sslcollapse.rank.diagnose.verdict import COLLAPSED, VERDICTS, output_verdict, random_rank, weight_verdict, worst
from sslcollapse.rank.spectrum import NotFiniteError, singular_values, summarize

DIAGNOSED = 1024
"""Samples of inputs that are made a batch at a time, where nobody says how many."""

CONDITION_LIMIT = 1e7
"""Above this a condition number counts as infinite: smaller singular values are rounding noise of the Gram matrix."""


@dataclass(frozen=True)
class WeightReport:
    """Rank of one weight matrix.

    Attributes:
        shape: [out, in].
        attainable: min(out, in).
        reference: effective rank of a random matrix of that shape.
        effective_rank, stable_rank, numerical_rank: None where an entry is not finite, as all that follow.
        condition: σ₁/σ_min; None also above ``CONDITION_LIMIT``.
        orthogonality_defect: ‖WᵀW − I‖_F over the smaller Gram matrix.
        verdict: by ``effective_rank / reference``.
        sigma: singular values, descending.
    """

    shape: tuple[int, int]
    attainable: int
    reference: float
    effective_rank: float | None
    stable_rank: float | None
    numerical_rank: int | None
    condition: float | None
    orthogonality_defect: float | None
    verdict: str
    reason: str
    sigma: np.ndarray | None


@dataclass(frozen=True)
class OutputReport:
    """Un-centred rank of a layer's output or of the representation; ``reference`` is the untrained network's."""

    n: int
    attainable: int
    reference: float
    effective_rank: float
    effective_rank_centred: float
    verdict: str
    reason: str
    sigma: np.ndarray


@dataclass(frozen=True)
class LayerReport:
    """One layer: its weight, its output where there were data, and the worse verdict of both."""

    name: str
    depth: int
    weight: WeightReport
    output: OutputReport | None = None

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
    representation: OutputReport | None = None
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
    reports = map_on_threads(weigh, target.matrices)
    layers = [
        LayerReport(matrix.name, matrix.depth, report) for matrix, report in zip(target.matrices, reports, strict=True)
    ]
    return Diagnosis(target.title, layers, target.coverage)


def weigh(matrix: Matrix) -> WeightReport:
    """Measure and judge one weight matrix."""
    weight = matrix.weight.detach()
    shape = (weight.shape[0], weight.shape[1])
    attainable, reference = min(shape), random_rank(*shape)
    try:
        sigma = singular_values(weight)
    except NotFiniteError:
        bad = int((~torch.isfinite(weight.float())).sum())
        reason = (
            f"{bad} of {weight.numel()} entries are NaN or infinite" if bad else "its entries are too large to square"
        )
        return WeightReport(shape, attainable, reference, None, None, None, None, None, COLLAPSED, reason, None)
    ranks = summarize(sigma, attainable)
    rank = ranks["effective_rank"]
    reason = (
        f"effective rank {rank:.1f} of {attainable}, {rank / reference:.2f} of a random matrix's"
        if rank
        else "all entries are zero"
    )
    return WeightReport(
        shape,
        attainable,
        reference,
        rank,
        ranks["stable_rank"],
        int(ranks["numerical_rank"]),
        _condition(sigma),
        float((sigma.square() - 1).square().sum().sqrt()),
        weight_verdict(rank, reference),
        reason,
        sigma.cpu().numpy(),
    )


def add_outputs(diagnosis: Diagnosis, target: Target, data: Path, samples: int | None) -> Diagnosis:
    """The same diagnosis with the outputs of every layer and the representation, on the probe set of a recipe.

    Args:
        diagnosis: of the weights of ``target``.
        target: with a known architecture.
        data: recipe whose domain supplies the inputs.
        samples: at most this many; None is all nodes of graphs and ``DIAGNOSED`` images.

    Raises:
        TargetError: a target that is tensors only, or that reads other inputs than the recipe's.
        RecipeError, MissingDataError, DataError: see the recipe's domain.
    """
    if target.networks is None:
        raise TargetError(
            f"--data: {target.title} is tensors without an architecture, so it cannot be run; give a run directory, an "
            "exported encoder or timm:MODEL"
        )
    from sslcollapse.rank.measure import measure
    from sslcollapse.recipe import load, resolve_data
    from sslcollapse.training.build import build_domain

    recipe = resolve_data(load(data))
    domain = build_domain(recipe)
    if target.reads is not None and domain.kind not in target.reads:
        raise TargetError(
            f"--data: its views are of kind {domain.kind}, and the encoder reads {' or '.join(target.reads)}"
        )
    trained, untrained = target.networks(domain.in_shape)
    domain.load()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    views, rows = domain.probe_set().to(device).measured(samples, DIAGNOSED)
    described = f"{recipe['name']} ({domain.describe()})"
    trained.to(device)
    if not target.trained:
        with_statistics(trained, views)
    try:
        measured = measure(trained, views, rows=rows)
    except NotFiniteError as error:
        return replace(diagnosis, data=described, unmeasured=str(error))
    reference = measure(with_statistics(untrained.to(device), views), views, rows=rows).ranks
    layers = []
    for layer in diagnosis.layers:
        found = measured.ranks["layers"].get(layer.name, {}).get("output")
        if found is not None:
            sigma = measured.singular[f"output/{layer.name}"]
            of_untrained = reference["layers"][layer.name]["output"]
            layer = replace(layer, output=_output(found, of_untrained, layer.weight.attainable, sigma))
        layers.append(layer)
    whole = measured.ranks["representation"]
    representation = _output(
        whole, reference["representation"], whole["attainable"], measured.singular["representation"]
    )
    return replace(diagnosis, layers=layers, representation=representation, data=described)


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
    for view in views:
        if isinstance(view, Tensor) and len(view) == 1:
            continue  # one sample has no variance
        seen += 1
        for norm in norms:
            norm.momentum = 1 / seen
        network(view)
    return network.eval()


def _output(found: Mapping[str, Any], untrained: Mapping[str, Any], limit: int, sigma: np.ndarray) -> OutputReport:
    rank, reference = found["effective_rank"], untrained["effective_rank"]
    # A map from 64 dimensions to 256 is not losing rank at 64.
    attainable = min(found["attainable"], limit)
    share = f", {rank / reference:.2f} of the untrained network's" if reference else ""
    return OutputReport(
        found["n"],
        attainable,
        reference,
        rank,
        found["effective_rank_centred"],
        output_verdict(rank, reference, attainable),
        f"effective rank {rank:.1f} of {attainable}{share}",
        sigma,
    )


def _condition(sigma: Tensor) -> float | None:
    largest, smallest = float(sigma[0]), float(sigma[-1])
    if largest == 0 or smallest * CONDITION_LIMIT < largest:
        return None
    return largest / smallest
