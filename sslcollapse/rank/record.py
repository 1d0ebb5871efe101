"""The rank of one thing in a network at one time: of a layer's weight, of its output, or of a feature."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sslcollapse.core.types import Point
from sslcollapse.layers.map import Layer, weights
from sslcollapse.rank.batch import Gram, Make, Route, spectra, usual_route
from sslcollapse.rank.covariance import StreamingCovariance
from sslcollapse.rank.spectrum import (
    NotFiniteError,
    effective_rank_from_singular_values,
    finite,
    participation_ratio_from_singular_values,
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


class RankBatch:
    """Ranks that are asked for one by one and computed together (``batch.spectra``).

    Args:
        device: of the network; says by which route where ``route`` does not.
        step: what the rows are called.
        strict: whether entries that are not finite are an error, and not NaN in all measures.
        route: see ``batch``.
        ordered: see ``batch.spectra``; weights that are sharded are always read in order.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        step: int = 0,
        strict: bool = False,
        route: Route | None = None,
        ordered: bool = False,
    ) -> None:
        self._device, self._step, self._strict = device, step, strict
        self._route: Route = usual_route(device) if route is None else route
        self._makes: list[Make] = []
        self._asked: list[_Asked] = []
        self._ordered = ordered

    def ask_weights(self, layers: Mapping[str, Layer]) -> None:
        """The weights of layers that share a tensor, which is made once for all of them.

        They are read by ``found``, which is to be called where buffers stand still (``recorder.resting``).
        """
        for position, layer in enumerate(layers.values()):
            place = len(self._makes), position
            self._asked.append(_Asked(Point("weight", layer.name), layer.shape, layer.depth, None, place, None))
        self._ordered |= any(hasattr(layer.parameter, "full_tensor") for layer in layers.values())
        self._makes.append(lambda: [Gram.of(matrix) for matrix in weights(layers).values()])

    def ask_rows(
        self,
        point: Point,
        stream: StreamingCovariance,
        shape: tuple[int, ...],
        *,
        centred: bool = True,
        depth: int = 0,
    ) -> None:
        """The rows that were seen, and with ``centred`` the rows less their mean.

        Args:
            point: whose rows.
            stream: of the rows.
            shape: [out, in] of the weight; (d,) of a feature.
            centred: whether their rank less the mean is asked for too.
            depth: of the layer.
        """
        place = len(self._makes)
        self._makes.append(lambda: [stream.gram(centred=False)])
        if centred:
            self._makes.append(lambda: [stream.gram(centred=True)])
        about_mean = (place + 1, 0) if centred else None
        self._asked.append(_Asked(point, shape, depth, stream.n, (place, 0), about_mean))

    def found(self) -> list[tuple[LayerRank, Tensor]]:
        """The rank of everything that was asked for, in that order, each with its singular values on the host.

        Every rank must call where weights are sharded.

        Raises:
            NotFiniteError: if strict; names what is not finite.
        """
        sigma = spectra(self._makes, self._route, device=self._device, ordered=self._ordered)

        def at(place: tuple[int, int]) -> Callable[[], Tensor]:
            return lambda: finite(sigma[place[0]][place[1]])

        return [
            rank_of(
                asked.point,
                asked.shape,
                at(asked.place),
                n=asked.n,
                centred=None if asked.centred is None else at(asked.centred),
                depth=asked.depth,
                step=self._step,
                strict=self._strict,
            )
            for asked in self._asked
        ]


class _Asked(NamedTuple):
    """Of what a rank is asked for, and where its spectra come: number of the maker, and of its Gram."""

    point: Point
    shape: tuple[int, ...]
    depth: int
    n: int | None
    place: tuple[int, int]
    centred: tuple[int, int] | None
