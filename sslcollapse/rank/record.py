"""The rank of one layer's weight and output at one time: a row of a monitor's record."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sslcollapse.layers.map import Layer
from sslcollapse.rank.covariance import StreamingCovariance
from sslcollapse.rank.spectrum import (
    NotFiniteError,
    effective_rank_from_singular_values,
    singular_values,
    summarize,
)


@dataclass(frozen=True)
class LayerRank:
    """Rank of one layer's weight or output at one time: a row of a monitor's record.

    Attributes:
        step: when; by default the number of training forwards seen.
        layer: name.
        depth: of the layer.
        kind: ``"weight"`` or ``"output"``.
        n: rows that the output's covariance is of; None for a weight.
        attainable: the largest rank that the shape allows: min(out, in) of a weight, min(n, out) of an output.
        effective_rank: un-centred for an output, as the other measures here.
        fraction: effective rank over what is attainable; an output is held against its weight's where that is less. A
            bias, or weights that move between measured forwards, can take it a little above 1.
        rankme: see ``sslcollapse.rankme``.
        stable_rank: see ``sslcollapse.stable_rank``.
        participation_ratio: of σ², un-centred.
        numerical_rank: number of singular values above ``rtol`` times the largest.
        rtol: that tolerance.
        effective_rank_centred: of an output less its mean; None for a weight.
        attainable_centred: min(n − 1, out); None for a weight.

    All measures are NaN where the weight or an output had NaN or infinite entries.
    """

    step: int
    layer: str
    depth: int
    kind: Literal["weight", "output"]
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


@torch.no_grad()  # which is for the thread that calls
def layer_ranks(step: int, layer: Layer, stream: StreamingCovariance | None) -> list[tuple[LayerRank, Tensor]]:
    """The row of a layer's weight and, where it has put something out, that of its output; each with its spectrum."""
    rows = [_row(step, layer, "weight", min(layer.shape), lambda: singular_values(layer.weight()))]
    if stream is not None and stream.n:
        rows.append(
            _row(
                step,
                layer,
                "output",
                min(stream.n, stream.dim),
                lambda: stream.singular_values(centred=False),
                n=stream.n,
                centred=lambda: stream.singular_values(centred=True),
            )
        )
    return rows


def _row(
    step: int,
    layer: Layer,
    kind: Literal["weight", "output"],
    attainable: int,
    spectrum: Callable[[], Tensor],
    n: int | None = None,
    centred: Callable[[], Tensor] | None = None,
) -> tuple[LayerRank, Tensor]:
    try:
        sigma = spectrum().cpu()
        measures = summarize(sigma, attainable)
        about_mean = None if centred is None else effective_rank_from_singular_values(centred())
    except NotFiniteError:
        sigma = torch.full((layer.shape[0] if kind == "output" else attainable,), math.nan, dtype=torch.float64)
        measures = dict.fromkeys(summarize(torch.zeros(1), 1), math.nan)
        about_mean = None if centred is None else math.nan
    reachable = min(attainable, *layer.shape)
    row = LayerRank(
        step=step,
        layer=layer.name,
        depth=layer.depth,
        kind=kind,
        n=n,
        attainable=attainable,
        effective_rank=measures["effective_rank"],
        fraction=measures["effective_rank"] / reachable if reachable else 0.0,
        rankme=measures["rankme"],
        stable_rank=measures["stable_rank"],
        participation_ratio=measures["participation_ratio"],
        numerical_rank=measures["numerical_rank"],
        rtol=measures["rtol"],
        effective_rank_centred=about_mean,
        attainable_centred=None if n is None else min(n - 1, layer.shape[0]),
    )
    return row, sigma
