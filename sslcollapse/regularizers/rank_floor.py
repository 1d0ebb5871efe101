"""Closed-loop coefficients: how strongly a regularizer acts follows from ranks that are measured during training.

A coefficient of this kind resolves to a ``RankFloorController``, a function of the step like every other coefficient,
with a state that is moved by ``update`` and saved with the module. ``rank.measure.Observation`` measures what it asks
for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, Protocol

from torch import nn

from sslcollapse.core.errors import RecipeError, RunError
from sslcollapse.core.types import Point
from sslcollapse.layers.map import Layer
from sslcollapse.recipe.schema import Above, Between, Momentum, Width
from sslcollapse.regularizers.coefficients import Placed

POOLED = "pooled"
"""Name of the one loop of a pooled controller."""


class RankRow(Protocol):
    """The rank of a layer's weight or output at a step, as whoever measures gives it."""

    @property
    def step(self) -> int:
        """When it was measured."""

    @property
    def layer(self) -> str:
        """Name of the layer."""

    @property
    def kind(self) -> Literal["output", "weight", "feature"]:
        """What of the layer."""

    @property
    def effective_rank(self) -> float:
        """Un-centred."""

    @property
    def reachable(self) -> int:
        """The largest that the shape of the weight and the number of rows allow."""


@dataclass(frozen=True)
class Loop:
    """State of one loop; all that is known before the first reading is the coefficient.

    Attributes:
        coefficient: for the steps after the newest reading.
        previous: for the steps up to it.
        initial: the first reading's rank.
        rank: the newest one's.
        attainable: the newest one's.
        smoothed: moving average of the ranks.
    """

    coefficient: float
    previous: float
    initial: float | None = None
    rank: float | None = None
    attainable: float | None = None
    smoothed: float | None = None


class RankFloor:
    """A coefficient that rises while a layer's rank is below a floor and decays otherwise.

    Formula, at every reading r of the effective rank (un-centred) but the first, which only sets r̄ and r₀:
    r̄ ← smoothing · r̄ + (1 − smoothing) · r; then α ← min(up · α, max) where r̄ < target · reference, else
    α ← max(down · α, min). The reference is r₀ or the attainable rank.

    What is read are the outputs of a training step (at most ``rank.measure.ROWS`` rows a view; all views and, with
    several processes, the views of all), in step 0 and in the last of every ``every`` steps. See docs/controller.md.

    Args:
        target: the floor, as a fraction of the reference.
        relative_to: ``"initial"`` is the untrained network's rank, which knows shape, data and number of rows;
            ``"attainable"`` is min(rows, out, in).
        of: ``"output"`` of the layer, or its ``"weight"``.
        per: ``"layer"`` gives each layer a coefficient from its own rank; ``"pooled"`` gives all the same one, from the
            rank of the representation, or from the sum of the weights' ranks.
        start: α before the first move.
        min: least α.
        max: largest α.
        up: factor of a rise.
        down: factor of a decay; 1 only ever raises.
        smoothing: weight of the past in r̄.
        every: steps between readings.

    Raises:
        RecipeError: a value out of range; quotes it.
    """

    def __init__(
        self,
        *,
        target: Annotated[float, Between(0, 1, open="left")] = 0.9,
        relative_to: Literal["initial", "attainable"] = "initial",
        of: Literal["output", "weight"] = "output",
        per: Literal["layer", "pooled"] = "layer",
        start: Annotated[float, Above(0)] = 1e-3,
        min: Annotated[float, Above(0)] = 1e-5,
        max: Annotated[float, Above(0)] = 1e-1,
        up: Annotated[float, Above(1)] = 2.0,
        down: Annotated[float, Between(0, 1, open="left")] = 0.95,
        smoothing: Momentum = 0.5,
        every: Width = 10,
    ) -> None:
        for name, value, holds, range_ in (
            ("target", target, 0 < target <= 1, "in (0, 1]"),
            ("up", up, 1 < up < math.inf, "a finite number > 1"),
            ("down", down, 0 < down <= 1, "in (0, 1]"),
            ("smoothing", smoothing, 0 <= smoothing < 1, "in [0, 1)"),
            ("every", every, every >= 1, ">= 1"),
            ("min", min, 0 < min < math.inf, "a finite number > 0, since factors move nothing away from 0"),
        ):
            if not holds:
                raise RecipeError(f"{name} must be {range_}, got {value}")
        if not min <= start <= max < math.inf:
            raise RecipeError(f"min <= start <= max must hold, got min={min}, start={start}, max={max}")
        for name, word, known in (
            ("relative_to", relative_to, ("initial", "attainable")),
            ("of", of, ("output", "weight")),
            ("per", per, ("layer", "pooled")),
        ):
            if word not in known:
                raise RecipeError(f"{name} must be one of {', '.join(map(repr, known))}, got {word!r}")
        self.target, self.relative_to, self.of, self.per = target, relative_to, of, per
        self.start, self.min, self.max = float(start), float(min), float(max)
        self.up, self.down, self.smoothing, self.every = up, down, smoothing, every

    def resolve(self, layers: Mapping[str, Placed], total_steps: int) -> RankFloorController:
        """The controller of these layers (or kinds of feature), in its first state."""
        return RankFloorController(self, layers)

    def moved(self, loop: Loop, rank: float, attainable: float) -> Loop:
        """The state after a reading; one with NaN or infinite rank changes no coefficient and is not remembered."""
        held = replace(loop, previous=loop.coefficient)
        if not math.isfinite(rank):
            return held
        newest = replace(held, rank=rank, attainable=attainable)
        if loop.smoothed is None:
            return replace(newest, initial=rank, smoothed=rank)
        smoothed = self.smoothing * loop.smoothed + (1 - self.smoothing) * rank
        newest = replace(newest, smoothed=smoothed)
        if smoothed < self.floor(newest):
            return replace(newest, coefficient=min(self.up * loop.coefficient, self.max))
        return replace(newest, coefficient=max(self.down * loop.coefficient, self.min))

    def floor(self, loop: Loop) -> float:
        """The rank below which the coefficient rises; NaN before the first reading."""
        reference = loop.initial if self.relative_to == "initial" else loop.attainable
        return math.nan if reference is None else self.target * reference


class RankFloorController(nn.Module):
    """A rank floor at work: step → layer → coefficient, with one loop a layer, or one for all.

    It has no parameters and no buffers: its state is a few numbers on the host, so that asking for a coefficient never
    waits for a device, and travels in the extra state of a module's state dict. Only ``update`` changes it.

    Args:
        rule: how coefficients move.
        places: the layers or kinds of feature that have a coefficient.

    Attributes:
        points: loop → what its rank is the sum of.
        loops: loop → its state; loops are called as their place, or ``"pooled"``.
        step: of the newest reading, −1 before the first.

    Raises:
        RecipeError: a place whose rank cannot be measured in that way.
    """

    def __init__(self, rule: RankFloor, places: Mapping[str, Placed]) -> None:
        super().__init__()
        self.rule = rule
        points = {name: _point(rule, name, place) for name, place in places.items()}
        self.points: dict[str, tuple[Point, ...]] = {name: (point,) for name, point in points.items()}
        if rule.per == "pooled":
            pooled = tuple(points.values()) if rule.of == "weight" else (Point("feature", "representation"),)
            self.points = {POOLED: pooled}
        self.loop_of = {name: name if rule.per == "layer" else POOLED for name in places}
        self.loops = dict.fromkeys(self.points, Loop(rule.start, rule.start))
        self.step = -1

    def forward(self, step: int) -> dict[str, float]:
        """Layer → coefficient of a step; of past steps, that of the last one before the newest reading."""
        past = step <= self.step
        return {
            name: self.loops[loop].previous if past else self.loops[loop].coefficient
            for name, loop in self.loop_of.items()
        }

    def is_due(self, step: int) -> bool:
        """Whether step ``step`` (from 0) is read: the first, and the last of every ``every``."""
        return step == 0 or (step + 1) % self.rule.every == 0

    def update(self, step: int, readings: Mapping[Point, RankRow]) -> None:
        """Move every coefficient by what was read in step ``step``; once a step, in order.

        Raises:
            RunError: for a step that is not after the newest one.
        """
        if step <= self.step:
            raise RunError(f"a rank floor that was moved by step {self.step} cannot be moved by step {step} after it")
        for name, points in self.points.items():
            parts = [readings[point] for point in points]
            rank, attainable = sum(part.effective_rank for part in parts), sum(part.reachable for part in parts)
            self.loops[name] = self.rule.moved(self.loops[name], rank, attainable)
        self.step = step

    def metrics(self) -> dict[str, float]:
        """``<loop>/coefficient``, ``rank``, ``smoothed`` and ``target`` (the floor as a rank), as they now are."""
        flat: dict[str, float] = {}
        for name, loop in self.loops.items():
            if loop.rank is not None and loop.smoothed is not None:
                flat |= {
                    f"{name}/coefficient": loop.coefficient,
                    f"{name}/rank": loop.rank,
                    f"{name}/smoothed": loop.smoothed,
                    f"{name}/target": self.rule.floor(loop),
                }
        return flat

    def warnings(self) -> list[str]:
        """One line for each loop that has reached its largest coefficient and is still below its floor."""
        return [
            f"{name}: the rank floor is out of reach: effective rank {loop.smoothed:.1f} is below "
            f"{self.rule.floor(loop):.1f} with the largest coefficient, {self.rule.max:g}; lower target or raise max"
            for name, loop in self.loops.items()
            if loop.smoothed is not None
            and loop.previous == self.rule.max == loop.coefficient
            and loop.smoothed < self.rule.floor(loop)
        ]

    def get_extra_state(self) -> dict[str, Any]:
        """The state as plain numbers."""
        return {"step": self.step, "loops": {name: asdict(loop) for name, loop in self.loops.items()}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            RunError: one of other layers.
        """
        if list(state["loops"]) != list(self.loops):
            raise RunError(
                f"the saved rank floor has the loops {', '.join(state['loops'])} and this one {', '.join(self.loops)}; "
                "load it into the network that it was saved from"
            )
        self.step = state["step"]
        self.loops = {name: Loop(**loop) for name, loop in state["loops"].items()}


def due(controllers: Mapping[str, RankFloorController], step: int) -> dict[str, RankFloorController]:
    """Those controllers that read a step (from 0)."""
    return {name: controller for name, controller in controllers.items() if controller.is_due(step)}


def asked(controllers: Mapping[str, RankFloorController]) -> list[Point]:
    """What some controllers want to know the rank of."""
    return [point for controller in controllers.values() for part in controller.points.values() for point in part]


def _point(rule: RankFloor, name: str, place: Placed) -> Point:
    if not isinstance(place, Layer):
        if rule.of == "weight":
            raise RecipeError(f"of='weight': {name!r} is a feature and has no weight; use of='output'")
        return Point("feature", name)
    if rule.of == "output" and rule.per == "layer" and place.tensor != "weight":
        raise RecipeError(
            f"of='output': {type(place.module).__name__} does not show the product of the weight {name!r}; "
            "use of='weight' or per='pooled'"
        )
    return Point(rule.of, name)
