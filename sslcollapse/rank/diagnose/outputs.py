"""Outputs of a network beside its weights: on the probe set of a recipe, or on whatever inputs are at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslcollapse.core.precision import device_of, full_precision
from sslcollapse.core.types import Point
from sslcollapse.rank.diagnose.diagnosis import Diagnosis
from sslcollapse.rank.diagnose.networks import Target
from sslcollapse.rank.diagnose.state_dict import TargetError
from sslcollapse.rank.diagnose.targets import with_data
from sslcollapse.rank.diagnose.verdicts import Judged, output_verdict
from sslcollapse.rank.measure import measure, run_through
from sslcollapse.rank.record import LayerRank
from sslcollapse.rank.spectrum import NotFiniteError

MOST_BATCHES = 1000
"""Of endless inputs no more are taken."""


def add_outputs(diagnosis: Diagnosis, target: Target, data: Any, samples: int | None) -> Diagnosis:
    """The same diagnosis with the outputs of every layer and the representation.

    Args:
        diagnosis: of the weights of ``target``.
        target: with a known architecture.
        data: recipe whose domain supplies the inputs, as ``load_data`` has read it; or inputs: a tensor, or batches of
            them, such as a loader's. Of a batch (inputs, labels) the first counts; one that is a dict is given by name.
        samples: at most this many; None is all nodes of graphs, ``DIAGNOSED`` images, and all inputs that are given.

    Raises:
        TargetError: a target that is tensors only, or that reads other inputs than the recipe's.
        RecipeError, MissingDataError, DataError: see the recipe's domain.
    """
    rows: Tensor | None = None
    if isinstance(data, Mapping) and "domain" in data:
        trained, untrained, views, rows, described = with_data(target, data, samples)
    else:
        trained, untrained, views, described = _with_inputs(target, data, samples)
    if not target.trained:
        with_statistics(trained, views)
    try:
        measured = measure(trained, views, rows=rows)
    except NotFiniteError as error:
        return replace(diagnosis, data=described, unmeasured=str(error))
    untrained.to(device_of(trained))
    reference = {row.point: row for row in measure(with_statistics(untrained, views), views, rows=rows).rows}
    judged = {
        _plain_point(row.point): _output(row, reference.get(row.point), measured.singular[row.point.key])
        for row in measured.rows
        if row.kind == "output" or row.layer == "representation"
    }
    layers = [replace(layer, output=judged.get(Point("output", layer.name))) for layer in diagnosis.layers]
    return replace(
        diagnosis, layers=layers, representation=judged.get(Point("feature", "representation")), data=described
    )


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


class _ByName(nn.Module):
    """A network that is given its inputs by name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inside = network

    def forward(self, batch: Mapping[str, Any]) -> Any:
        return self.inside(**batch)


def _with_inputs(target: Target, data: Any, samples: int | None) -> tuple[nn.Module, nn.Module, list[Any], str]:
    """The network of a target, an untrained one, batches on its device, and what they are."""
    if target.networks is None:
        raise TargetError(
            f"data: {target.title} is tensors without an architecture, so it cannot be run; give the network itself"
        )
    batches = [data] if isinstance(data, (Tensor, Mapping)) else data
    if not isinstance(batches, Iterable) or isinstance(batches, (str, bytes)):
        raise TargetError(f"data: expected a tensor, batches of them or a recipe, got a {type(data).__name__}")
    views: list[Any] = []
    count = 0
    for batch in batches:
        view = batch[0] if isinstance(batch, (tuple, list)) and len(batch) else batch
        sizes = [len(value) for value in (view.values() if isinstance(view, Mapping) else [view]) if _is_rows(value)]
        if not sizes:
            raise TargetError(f"data: batch {len(views)} is a {type(view).__name__} without a tensor in it")
        if samples is not None and count + sizes[0] > samples:
            view = _cut(view, samples - count)
            sizes = [samples - count]
        views.append(view)
        count += sizes[0]
        if (samples is not None and count >= samples) or len(views) >= MOST_BATCHES:
            break
    if not views:
        raise TargetError("data: there is no batch in it")
    if not count:
        raise TargetError("data: its batches have no rows, of which there would be no rank")
    first = views[0]
    shape = tuple(first.shape[1:]) if isinstance(first, Tensor) else ()
    trained, untrained = target.networks(shape)
    views = [_cut(view, None, device_of(trained)) for view in views]
    if isinstance(first, Mapping):
        trained, untrained = _ByName(trained), _ByName(untrained)
    return trained, untrained, views, f"{count:,} inputs that were given"


def _is_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _cut(view: Any, most: int | None, device: torch.device | None = None) -> Any:
    if isinstance(view, Mapping):
        return {name: _cut(value, most, device) for name, value in view.items()}
    if not _is_rows(view):
        return view
    return view[:most] if device is None else view.to(device)


def _plain_point(point: Point) -> Point:
    """Without the names of wrappers, as weights have none of them."""
    return Point(point.kind, point.name.removeprefix("inside.").replace("_orig_mod.", ""))


def _output(rank: LayerRank, untrained: LayerRank | None, sigma: np.ndarray) -> Judged:
    value, reference = rank.effective_rank, 0.0 if untrained is None else untrained.effective_rank
    share = f", {value / reference:.2f} of the untrained network's" if reference else ""
    verdict = output_verdict(value, reference, rank.reachable)
    return Judged(rank, reference, verdict, f"effective rank {value:.1f} of {rank.reachable}{share}", sigma)
