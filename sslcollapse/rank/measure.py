"""Ranks of a network: on a probe set, with every layer's; and in a training step, those that controllers ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslcollapse.core.distributed import world_size
from sslcollapse.core.errors import RunError
from sslcollapse.core.memory import onto
from sslcollapse.core.precision import device_of, full_precision
from sslcollapse.core.types import Neighbours, Partwise, Point
from sslcollapse.layers.map import Layer, by_tensor, layer_map
from sslcollapse.rank.batch import Route
from sslcollapse.rank.depth import SmoothnessOfLayers, beside_ranks
from sslcollapse.rank.record import LayerRank, RankBatch
from sslcollapse.rank.recorder import Recorder, evaluating, resting

FEATURES = ("representation", "embedding", "prediction")

ROWS = 1024
"""Rows taken from one output in a training step, evenly spaced. A rank from fewer rows is smaller, and the first
reading's as much."""


@dataclass(frozen=True)
class Measurement:
    """Ranks and spectra of one network on one probe set.

    Attributes:
        rows: of the features that there are, then of each layer's weight and, where it is seen, its output.
        singular: ``representation``, ``weight/convs.0``, ``output/convs.0``, ... → singular values, descending
            (un-centred for features and outputs).
        beside: what else was asked for: of an output or feature ``SMOOTHNESS``, of a weight ``overlap`` with that of
            the layer before, and ``overlap_random``, that of random subspaces.
    """

    rows: Sequence[LayerRank]
    singular: dict[str, np.ndarray]
    beside: Mapping[Point, Mapping[str, float]] = field(default_factory=dict)

    @cached_property
    def ranks(self) -> dict[str, Any]:
        """The same as ``result.json`` has it.

        ``representation``, ``embedding``, ``prediction`` (None without a predictor) and ``layers`` → name → ``weight``
        and ``output``; each with the measures of ``summarize``, and for features and outputs also ``n`` and the centred
        ones.
        """
        found: dict[str, Any] = dict.fromkeys(FEATURES)
        found["layers"] = {}
        for row in self.rows:
            measures = row.measures() | dict(self.beside.get(row.point, {}))
            if row.kind == "feature":
                found[row.layer] = measures
            else:
                found["layers"].setdefault(row.layer, {})[row.kind] = measures
        if found["embedding"] is None:
            found["embedding"] = found["representation"]
        return found

    def row(self, point: Point) -> LayerRank | None:
        """The rank of one thing; None where it was not seen."""
        return next((row for row in self.rows if row.point == point), None)

    def metrics(self) -> dict[str, float]:
        """Flat record: ``rank/representation/effective_rank``, ``rank/layers/convs.0/weight/stable_rank``, ..."""
        flat: dict[str, float] = {}
        for name in FEATURES:
            if self.ranks[name] is not None:
                flat |= {f"rank/{name}/{key}": value for key, value in self.ranks[name].items()}
        for name, parts in self.ranks["layers"].items():
            for part, values in parts.items():
                flat |= {f"rank/layers/{name}/{part}/{key}": value for key, value in values.items()}
        return flat

    def spectra(self) -> dict[str, np.ndarray]:
        """Arrays for ``np.savez``: ``representation``, ``weight/convs.0``, ``output/convs.0``, ..., and ``n``."""
        return {**self.singular, "n": np.array(self.ranks["representation"]["n"])}


def measure(
    encoder: nn.Module,
    views: Iterable[Any],
    *,
    projector: nn.Module | None = None,
    predictor: nn.Module | None = None,
    rows: Tensor | None = None,
    step: int = 0,
    route: Route | None = None,
    neighbours: Callable[[Any], Neighbours | None] | None = None,
    overlap: int = 0,
) -> Measurement:
    """Run the online network in eval mode on un-augmented views and measure every rank.

    The network is left as it was found: training flag, buffers and hooks. Without a projector the embedding is
    the representation. Outputs of convolutions [B, C, H, W] and of token layers [B, T, C] count as rows of C
    channels, at most ``MAX_ROWS`` evenly spaced ones a batch.

    Args:
        encoder: one view in, [N, d] out.
        views: encoder inputs; those that are ``Partwise`` are encoded part by part, and have no smoothness.
        projector: head that makes the embedding.
        predictor: head that makes the prediction.
        rows: numbers of the samples that count, ascending over all views; None for all. Of an output that has not one
            row a sample all count.
        step: what the rows are called.
        route: how eigenvalues are computed (see ``batch``); by default as is usual for the device.
        neighbours: edges of a view, for the smoothness of what layers put out over them (see ``depth``), over all its
            nodes, whatever ``rows`` says.
        overlap: dimension of the subspaces in which consecutive weights are compared (``depth.subspace_overlap``); 0
            for no comparison.

    Raises:
        NotFiniteError: a feature, weight or output has NaN or infinite entries; named.
    """
    heads = {name: head for name, head in (("projector", projector), ("predictor", predictor)) if head is not None}
    networks = _networks(encoder, heads)
    layers = {name: layer for network in networks for name, layer in network.items()}
    parts = dict(zip(FEATURES, (encoder, projector, predictor), strict=True))
    sources: dict[Point, Layer | nn.Module] = {
        Point("feature", name): part for name, part in parts.items() if part is not None
    }
    sources |= {Point("output", name): layer for name, layer in layers.items()}
    smooth = SmoothnessOfLayers(neighbours or (lambda view: None))
    representation = Point("feature", FEATURES[0])
    del sources[representation]  # since an encoder that is applied part by part is not called
    recorder, start = Recorder(sources, held=rows is not None, also=smooth.take), 0

    def pass_on(h: Tensor) -> None:
        recorder.see(representation, h)
        z = h if projector is None else projector(h)
        if predictor is not None:
            predictor(z)

    with full_precision(device_of(encoder), convolutions=True), evaluating(encoder, *heads.values()), recorder:
        for view in views:
            if isinstance(view, Partwise):
                chosen = view if rows is None else view.only(_between(rows, start, len(view)))
                for h in chosen.parts(encoder, None if rows is None else recorder.take):
                    pass_on(h)
                    if rows is not None:
                        recorder.take(torch.arange(len(h), device=h.device), len(h))
                start += len(view)
            else:
                smooth.begin(view)
                h = encoder(view)
                pass_on(h)
                if rows is not None:
                    recorder.take(onto(h.device, _between(rows, start, len(h))), len(h))
                start += len(h)
    asked = RankBatch(device_of(encoder), step=step, strict=True, route=route)
    for depth, name in enumerate(FEATURES):
        stream = recorder.streams.get(point := Point("feature", name))
        if stream is not None:
            asked.ask_rows(point, stream, (stream.dim,), depth=depth)
    for group in by_tensor(layers):
        asked.ask_weights(group)
        for name, layer in group.items():
            stream = recorder.streams.get(point := Point("output", name))
            if stream is not None:
                asked.ask_rows(point, stream, layer.shape, depth=layer.depth)
    with resting(encoder, *heads.values()):
        found = asked.found()
        beside = beside_ranks(smooth, networks, overlap)
    return Measurement([row for row, _ in found], {row.point.key: sigma.numpy() for row, sigma in found}, beside)


def represent(encoder: nn.Module, views: Iterable[Any]) -> Tensor:
    """Representations [N, d] of un-augmented views in eval mode, float32, on their device; the encoder is unchanged.

    Those of a single ``Partwise`` input are as it gives them, be it in a mapped file.
    """
    with full_precision(device_of(encoder), convolutions=True), evaluating(encoder):
        made = [view.encoded(encoder) if isinstance(view, Partwise) else encoder(view).float() for view in views]
    return made[0] if len(made) == 1 else torch.cat(made)


def run_through(network: nn.Module, view: Any) -> None:
    """One forward pass on a view, for what it leaves in the network."""
    if isinstance(view, Partwise):
        for _ in view.parts(network):
            pass
    else:
        network(view)


def low_rank_warnings(measurement: Measurement, threshold: float) -> list[str]:
    """One line for each representation, prediction, weight or output below ``threshold`` × what it can reach."""
    return [
        f"{row.layer if row.kind == 'feature' else f'{row.layer} {row.kind}'}: effective rank {row.effective_rank:.1f} "
        f"is below {threshold:g} of the attainable {row.reachable}; rank is lost here"
        for row in measurement.rows
        if row.point != ("feature", "embedding") and row.effective_rank < threshold * row.reachable
    ]


class Observation:
    """Ranks in one training step: a context around forward passes, then ``readings``.

    Outputs are those of training: of augmented views, in train mode, before the step moves the weights; all forward
    passes within the context together. Without points it does nothing. Compiled networks run eagerly in it, since
    compiled code skips hooks that are set after it.

    Args:
        points: whose ranks; the same on every rank.
        layers: name → layer, of all points that are no features.
        encoder: makes the representation.
        projector: makes the embedding; without it the encoder does.
        predictor: makes the prediction.
    """

    def __init__(
        self,
        points: Iterable[Point],
        layers: Mapping[str, Layer],
        encoder: nn.Module,
        *,
        projector: nn.Module | None = None,
        predictor: nn.Module | None = None,
    ) -> None:
        self._points = list(dict.fromkeys(points))
        self._layers, self._encoder = layers, encoder
        parts = dict(zip(FEATURES, (encoder, encoder if projector is None else projector, predictor), strict=True))
        sources: dict[Point, Layer | nn.Module] = {}
        for point in self._points:
            part = parts[point.name] if point.kind == "feature" else layers[point.name]
            if part is not None and point.kind != "weight":
                sources[point] = part
        self._recorder = Recorder(sources, max_rows=ROWS)

    def __enter__(self) -> Observation:
        self._recorder.attach()
        return self

    def __exit__(self, *error: object) -> None:
        self._recorder.detach()

    def readings(self) -> dict[Point, LayerRank]:
        """Point → its rank, un-centred, the same on every rank; call on all, before the optimiser moves the weights.

        Outputs of all ranks are merged, those of replicated batches as well, of which every rank has views of its own.
        Rank 0 has the say on the result, so that no rounding of a linear algebra library can set ranks apart. What is
        not finite is NaN.

        Raises:
            RunError: a layer whose output was not seen.
        """
        asked = RankBatch(device_of(self._encoder), ordered=True)  # since they move coefficients
        for point in self._points:
            if point.kind == "weight":
                asked.ask_weights({point.name: self._layers[point.name]})
            else:
                self._ask_rows(asked, point)
        with resting(*(self._layers[point.name].module for point in self._points if point.kind == "weight")):
            readings = [row for row, _ in asked.found()]  # a spectral norm stands still
        if readings and world_size() > 1:
            said = torch.tensor([[row.effective_rank, row.fraction] for row in readings], dtype=torch.float64)
            said = said.to(next(self._encoder.parameters()).device)
            torch.distributed.broadcast(said, 0)
            readings = [
                replace(row, effective_rank=rank, fraction=fraction)
                for row, (rank, fraction) in zip(readings, said.tolist(), strict=True)
            ]
        return dict(zip(self._points, readings, strict=True))

    def _ask_rows(self, asked: RankBatch, point: Point) -> None:
        stream = self._recorder.streams.get(point)
        if stream is None:
            raise RunError(
                f"a rank floor of the {point.kind} of {point.name!r}: it did not run in this training step; use "
                "of='weight' for it"
            )
        stream.all_reduce()
        if point.kind == "feature":
            asked.ask_rows(point, stream, (stream.dim,), centred=False, depth=FEATURES.index(point.name))
        else:
            layer = self._layers[point.name]
            asked.ask_rows(point, stream, layer.shape, centred=False, depth=layer.depth)


def _between(rows: Tensor, start: int, count: int) -> Tensor:
    """Those of ascending numbers that are of ``count`` samples from ``start`` on, counted from there."""
    return rows[(rows >= start) & (rows < start + count)] - start


def _networks(encoder: nn.Module, heads: Mapping[str, nn.Module]) -> list[dict[str, Layer]]:
    """The layers of an encoder and of each head; those of a head have its name before theirs."""
    networks = [layer_map(encoder)]
    for head, module in heads.items():
        named = ((f"{head}.{name}", layer) for name, layer in layer_map(module).items())
        networks.append({name: replace(layer, name=name) for name, layer in named})
    return networks
