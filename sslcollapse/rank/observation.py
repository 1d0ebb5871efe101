"""What controllers look at: ranks of weights, outputs and features in a training step."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.distributed import world_size
from sslcollapse.core.errors import RunError
from sslcollapse.core.types import Point, Reading
from sslcollapse.rank.covariance import StreamingCovariance
from sslcollapse.rank.measure import activation_rows, output_rows
from sslcollapse.rank.modes import EAGER, resting
from sslcollapse.rank.spectrum import NotFiniteError, effective_rank_from_singular_values, singular_values

ROWS = 1024
"""Rows taken from one output, evenly spaced. A rank from fewer rows is smaller, and the first reading's as much."""

_MAKERS = {"representation": ("encoder",), "embedding": ("projector", "encoder"), "prediction": ("predictor",)}
"""Kind of feature → the parts of a module that may make it, the first that there is."""


class Observation:
    """The ranks that controllers ask for in one step: a context around forward passes, then ``readings``.

    Outputs are those of training: of augmented views, in train mode, before the step moves the weights; all forward
    passes within the context together. Where no controller is due it does nothing. Compiled networks run eagerly in it,
    since compiled code skips hooks that are set after it.

    Args:
        module: the module that is trained, with ``layers``, ``controllers`` and the networks that make features.
        step: optimiser step, from 0.
    """

    def __init__(self, module: Any, step: int) -> None:
        self.due = {name: controller for name, controller in module.controllers.items() if controller.is_due(step)}
        points = [point for controller in self.due.values() for part in controller.points.values() for point in part]
        self._points = list(dict.fromkeys(points))
        self._module = module
        self._streams: dict[Point, StreamingCovariance] = {}
        self._hooks = ExitStack()

    def __enter__(self) -> Observation:
        hooked = [point for point in self._points if point.kind != "weight"]
        for point in hooked:
            module, rows = self._source(point)
            self._hooks.callback(module.register_forward_hook(self._recorder(point, rows)).remove)
        if hooked:
            self._hooks.enter_context(EAGER.held())
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.close()

    def readings(self) -> dict[Point, Reading]:
        """Point → reading, the same on every rank; call on all of them, before the optimiser moves the weights.

        Outputs of all ranks are merged, those of replicated batches as well, of which every rank has views of its own.
        Rank 0 has the say on the result, so that no rounding of a linear algebra library can set ranks apart.

        Raises:
            RunError: a layer whose output was not seen.
        """
        if not self._points:
            return {}
        with resting(self._module):  # where a spectral norm stands still
            readings = [self._weight(p) if p.kind == "weight" else self._output(p) for p in self._points]
        if world_size() > 1:
            device = next(self._module.parameters()).device
            packed = torch.tensor(readings, dtype=torch.float64, device=device)
            torch.distributed.broadcast(packed, 0)
            readings = [Reading(*row) for row in packed.tolist()]
        return dict(zip(self._points, readings, strict=True))

    def _source(self, point: Point) -> tuple[nn.Module, Callable[[Any], Tensor | None]]:
        """The module that puts a point's rows out, and how they are taken from its output."""
        if point.kind == "output":
            layer = self._module.layers[point.name]
            return layer.module, lambda output: output_rows(layer, output, ROWS)
        made_by = [getattr(self._module, name) for name in _MAKERS[point.name]]
        return next(m for m in made_by if m is not None), lambda output: activation_rows(output.detach(), ROWS)

    def _recorder(self, point: Point, rows_of: Callable[[Any], Tensor | None]) -> Callable[..., None]:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            if torch._C._current_graph_task_id() >= 0:
                return  # a backward pass runs it again, where activations are not kept
            rows = rows_of(output)
            if rows is not None:
                if point not in self._streams:
                    self._streams[point] = StreamingCovariance(rows.shape[1], rows.device)
                self._streams[point].update(rows)

        return record

    def _weight(self, point: Point) -> Reading:
        layer = self._module.layers[point.name]
        return _reading(lambda: singular_values(layer.weight()), min(layer.shape))

    def _output(self, point: Point) -> Reading:
        if point not in self._streams:
            raise RunError(
                f"a rank floor of the {point.kind} of {point.name!r}: it did not run in this training step; use "
                "of='weight' for it"
            )
        stream = self._streams[point]
        stream.all_reduce()
        shape = self._module.layers[point.name].shape if point.kind == "output" else (stream.dim,)
        return _reading(lambda: stream.singular_values(centred=False), min(stream.n, *shape))


def _reading(spectrum: Callable[[], Tensor], attainable: int) -> Reading:
    try:
        return Reading(effective_rank_from_singular_values(spectrum()), attainable)
    except NotFiniteError:
        return Reading(math.nan, attainable)
