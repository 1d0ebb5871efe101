"""The rank of one thing in a network at one time: of a layer's weight, of its output, or of a feature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sslcollapse.core.types import Point
from sslcollapse.layers.map import Layer
from sslcollapse.rank.covariance import StreamingCovariance
from sslcollapse.rank.spectrum import (
    NotFiniteError,
    effective_rank_from_singular_values,
    participation_ratio_from_singular_values,
    singular_values,
    summarize,
)


@dataclass(frozen=True)
class LayerRank:
    """Rank of one layer's weight or output, or of a feature, at one time.

    Attributes:
        step: when; in a monitor's record by default the number of training forwards seen.
        layer: name; of a feature its kind, such as ``representation``.
        depth: of the layer; of a feature 0, 1 or 2 for representation, embedding and prediction.
        kind: ``"weight"``, ``"output"``, or ``"feature"``, which a monitor has none of.
        n: rows that the output's covariance is of; None for a weight.
        attainable: the largest rank that the shape allows: min(out, in) of a weight, min(n, out) of an output.
        effective_rank: un-centred for an output, as the other measures here.
        fraction: effective rank over ``reachable``. A bias, or weights that move between measured forwards, can take it
            a little above 1.
        rankme: see ``sslcollapse.rankme``.
        stable_rank: see ``sslcollapse.stable_rank``.
        participation_ratio: of σ², un-centred.
        numerical_rank: number of singular values above ``rtol`` times the largest.
        rtol: that tolerance.
        effective_rank_centred: of an output less its mean; None for a weight.
        attainable_centred: min(n − 1, out); None for a weight.
        participation_ratio_centred: of an output less its mean; None for a weight.
        reachable: ``attainable``; of an output that of its weight where that is less, since a map from 64 dimensions
            to 256 is not losing rank at 64.

    All measures are NaN where the weight or an output had NaN or infinite entries.
    """

    step: int
    layer: str
    depth: int
    kind: Literal["output", "weight", "feature"]
    n: int | None
    attainable: int
    effective_rank: float
    fraction: float
    rankme: float
    stable_rank: float
    participation_ratio: float
    numerical_rank: float
    rtol: float
    effective_rank_centred: float | None
    attainable_centred: int | None
    participation_ratio_centred: float | None
    reachable: int

    @property
    def point(self) -> Point:
        """What it is the rank of."""
        return Point(self.kind, self.layer)

    @property
    def finite(self) -> bool:
        """Whether it was measured: nothing in the weight or output was NaN or infinite."""
        return not math.isnan(self.effective_rank)

    def measures(self) -> dict[str, float | int | None]:
        """The numbers alone, as ``result.json`` has them."""
        names = ["effective_rank", "rankme", "participation_ratio", "stable_rank", "numerical_rank", "rtol"]
        names += ["attainable"]
        if self.n is not None:
            names += ["n", "effective_rank_centred", "participation_ratio_centred", "attainable_centred"]
        return {name: getattr(self, name) for name in names}


def rank_of(
    point: Point,
    shape: tuple[int, ...],
    spectrum: Callable[[], Tensor],
    *,
    n: int | None = None,
    centred: Callable[[], Tensor] | None = None,
    depth: int = 0,
    step: int = 0,
    strict: bool = False,
) -> tuple[LayerRank, Tensor]:
    """The rank of something, and its singular values [k] on the host.

    Args:
        point: what it is.
        shape: [out, in] of the weight, also for an output; (d,) of a feature.
        spectrum: computes the singular values, un-centred.
        n: number of rows; None for a weight.
        centred: computes the singular values less the mean.
        depth: of the layer.
        step: when.
        strict: whether entries that are not finite are an error, and not NaN in all measures.

    Raises:
        NotFiniteError: with ``strict``; names the point.
    """
    attainable = min(shape) if n is None else min(n, shape[0])
    attainable_centred = None if n is None else min(n - 1, shape[0])
    reachable = min(attainable, *shape)
    try:
        sigma = spectrum().cpu()
        found = summarize(sigma, attainable)
        about_mean = None if centred is None else centred().cpu()
        centred_rank = None if about_mean is None else effective_rank_from_singular_values(about_mean)
        centred_ratio = None if about_mean is None else participation_ratio_from_singular_values(about_mean)
    except NotFiniteError as error:
        if strict:
            raise NotFiniteError(f"{point.key}: {error}") from None
        sigma = torch.full((attainable if n is None else shape[0],), math.nan, dtype=torch.float64)
        found = dict.fromkeys(summarize(torch.zeros(1), 1), math.nan)
        centred_rank = centred_ratio = None if centred is None else math.nan
    rank = LayerRank(
        step=step,
        layer=point.name,
        depth=depth,
        kind=point.kind,
        n=n,
        attainable=attainable,
        effective_rank=found["effective_rank"],
        fraction=found["effective_rank"] / reachable if reachable else 0.0,
        rankme=found["rankme"],
        stable_rank=found["stable_rank"],
        participation_ratio=found["participation_ratio"],
        numerical_rank=found["numerical_rank"],
        rtol=found["rtol"],
        effective_rank_centred=centred_rank,
        attainable_centred=attainable_centred,
        participation_ratio_centred=centred_ratio,
        reachable=reachable,
    )
    return rank, sigma


def weight_rank(
    layer: Layer, weight: Tensor | None = None, *, step: int = 0, strict: bool = False
) -> tuple[LayerRank, Tensor]:
    """The rank of a layer's weight, computed here where it is not given; see ``rank_of``."""

    def spectrum() -> Tensor:
        return singular_values(layer.weight() if weight is None else weight)

    point = Point("weight", layer.name)
    return rank_of(point, layer.shape, spectrum, depth=layer.depth, step=step, strict=strict)


def stream_rank(
    point: Point,
    stream: StreamingCovariance,
    shape: tuple[int, ...],
    *,
    centred: bool = True,
    depth: int = 0,
    step: int = 0,
    strict: bool = False,
) -> tuple[LayerRank, Tensor]:
    """The rank of rows that were seen, and with ``centred`` that of the rows less their mean; see ``rank_of``."""
    return rank_of(
        point,
        shape,
        lambda: stream.singular_values(centred=False),
        n=stream.n,
        centred=(lambda: stream.singular_values(centred=True)) if centred else None,
        depth=depth,
        step=step,
        strict=strict,
    )


@torch.no_grad()  # which is for the thread that calls
def layer_ranks(step: int, layer: Layer, stream: StreamingCovariance | None) -> list[tuple[LayerRank, Tensor]]:
    """The row of a layer's weight and, where it has put something out, that of its output; each with its spectrum."""
    rows = [weight_rank(layer, step=step)]
    if stream is not None and stream.n:
        rows.append(stream_rank(Point("output", layer.name), stream, layer.shape, depth=layer.depth, step=step))
    return rows
