"""What watches a training step, or acts between steps: a list of hooks, each with three moments of a step.

The step itself is forward, backward, optimiser step, target; see ``Trainer._step``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from accelerate import Accelerator

from sslcollapse.core.types import Point
from sslcollapse.rank.gradients import penalty_gradients
from sslcollapse.rank.measure import Observation
from sslcollapse.rank.record import LayerRank
from sslcollapse.regularizers.rank_floor import RankFloorController, asked, due
from sslcollapse.training.journal import Journal
from sslcollapse.training.module import SSLModule
from sslcollapse.training.stopping import RunAlarm


class Hook:
    """Three moments of an optimiser step; every rank calls them, in the order of the list. By default nothing happens.

    A step in which no hook ``acts`` may be one program, in which there are no moments.

    A hook changes neither loss nor gradient of the step in hand. What it changes (a coefficient) holds from the next
    step on.
    """

    def acts(self, step: int) -> bool:
        """Whether it has something to do in a step, which then is not replayed as a CUDA graph; to be safe, always."""
        return True

    def before_forward(self, step: int) -> None:
        """Once a step, before its first forward pass."""

    def after_backward(self, step: int) -> None:
        """Gradients are complete and averaged over ranks; weights are still those of the forward pass."""

    def after_step(self, step: int) -> None:
        """Weights and target have moved, gradients are gone."""

    def close(self) -> None:
        """Let go of what a step has begun; called when training ends, also where it ends in the middle of a step."""


class PenaltyGradients(Hook):
    """The gradients of weight penalties against the objective's, in the steps after which ranks are measured.

    Args:
        module: with penalties.
        accelerator: whose scaler, if it has one, has scaled the gradients.
        optimizer: as the accelerator prepared it.
        due: number of completed steps → whether to compare.

    Attributes:
        newest: layer → ``norm_ratio`` and ``cosine`` in the last step, empty where it was not due.
    """

    def __init__(self, module: SSLModule, accelerator: Accelerator, optimizer: Any, due: Callable[[int], bool]) -> None:
        self._module, self._accelerator, self._optimizer, self._due = module, accelerator, optimizer, due
        self.newest: dict[str, dict[str, float]] = {}

    def acts(self, step: int) -> bool:
        """Where ranks are measured after it."""
        return self._due(step + 1)

    def after_backward(self, step: int) -> None:
        """Compare."""
        self.newest = {}
        if self._due(step + 1):
            if self._accelerator.scaler is not None:
                self._accelerator.unscale_gradients(self._optimizer)
            self.newest = penalty_gradients(self._module, step)


class Controllers(Hook):
    """Coefficients that follow measured ranks: what the step puts out is read, and moves them for the next one.

    Args:
        module: with controllers.
        journal: takes their state and their warnings.
        alarm: looks for a collapse in what is read.
    """

    def __init__(self, module: SSLModule, journal: Journal, alarm: RunAlarm) -> None:
        self._module, self._journal, self._alarm = module, journal, alarm
        self._observation: Observation | None = None
        self._readings: Mapping[Point, LayerRank] = {}
        self._due: Mapping[str, RankFloorController] = {}

    def acts(self, step: int) -> bool:
        """Where some controller is due."""
        return bool(due(self._module.controllers, step))

    def before_forward(self, step: int) -> None:
        """Begin to watch, where some controller is due."""
        module = self._module
        self._due = due(module.controllers, step)
        self._observation = Observation(
            asked(self._due), module.layers, module.encoder, projector=module.projector, predictor=module.predictor
        )
        self._observation.__enter__()

    def after_backward(self, step: int) -> None:
        """Read what was seen, before the weights move."""
        if self._observation is not None:
            self._observation.__exit__()
            self._readings = self._observation.readings()

    def after_step(self, step: int) -> None:
        """Move the coefficients."""
        for name, controller in self._due.items():
            controller.update(step, self._readings)
            metrics = {f"control/{name}/{key}": value for key, value in controller.metrics().items()}
            self._journal.log(step + 1, metrics)
            for line in controller.warnings():
                self._journal.warn(step + 1, f"{name} on {line}")
        if self._due:
            self._alarm.read(step, self._readings.values())
        self._observation = None

    def close(self) -> None:
        """Take the hooks off the network."""
        if self._observation is not None:
            self._observation.__exit__()
            self._observation = None
