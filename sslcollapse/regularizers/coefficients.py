"""Coefficients: how strongly a regularizer acts on each layer (or kind of feature), as a function of the step.

Six forms: a number; ``{layer name or glob: number}``; ``dict(type="depth", ...)``; ``dict(type="band", ...)``;
``dict(type="schedule", ...)``; ``dict(type="rank_floor", ...)``, which alone has a state (``rank_floor.py``). An exact
name beats a glob; layers that nothing names get 0.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol

from torch import nn

from sslcollapse.core.errors import RecipeError, suggest
from sslcollapse.core.registry import COEFFICIENTS
from sslcollapse.core.schedules import ScheduleName, decay
from sslcollapse.recipe.schema import AtLeast, Coefficient, Probability, Weight, Width


class Placed(Protocol):
    """What a coefficient can be given to: a ``Layer`` of a network, or a ``FeaturePoint``."""

    @property
    def depth(self) -> int:
        """Position among the others, from 0."""
        ...


CoefficientFunction = Callable[[int], dict[str, float]]
"""Step → layer name → coefficient; every layer is present."""


def resolve_coefficient(spec: Any, layers: Mapping[str, Placed], total_steps: int) -> CoefficientFunction:
    """Turn any coefficient form into a function of the step.

    Raises:
        RecipeError: a negative or non-finite number; a name or glob that matches no layer; two globs that
            give one layer different values.
    """
    if isinstance(spec, Mapping) and "type" in spec:
        return COEFFICIENTS.build(spec).resolve(layers, total_steps)
    values = _by_name(spec, layers) if isinstance(spec, Mapping) else dict.fromkeys(layers, _number(spec))
    return lambda step: values


class ByDepth:
    """A coefficient that is a linear function of relative depth.

    Formula: α_l = first + (last − first) · depth_l / max depth; a single layer gets ``first``.

    Args:
        first: at the first layer.
        last: at the deepest layer.
    """

    def __init__(self, *, first: Weight, last: Weight) -> None:
        self.first = _number(first, "first")
        self.last = _number(last, "last")

    def resolve(self, layers: Mapping[str, Placed], total_steps: int) -> CoefficientFunction:
        """Step → layer → coefficient (the same at every step)."""
        values = {
            name: self.first + (self.last - self.first) * depth for name, depth in _relative_depths(layers).items()
        }
        return lambda step: values


class Band:
    """A coefficient on the layers within a band of relative depth: the first, the last, a stage, all.

    Formula: α_l = value where start ≤ depth_l / max depth ≤ stop, else 0; a single layer has relative depth 0.

    Args:
        value: the coefficient within the band.
        start: relative depth in [0, 1] where the band begins; 1 is the deepest layer.
        stop: relative depth in [start, 1] where it ends; 0 is the first layer alone.

    Raises:
        RecipeError: numbers out of range, or a band without any layer.
    """

    def __init__(self, *, value: Weight, start: Probability = 0.0, stop: Probability = 1.0) -> None:
        self.value = _number(value, "value")
        self.start, self.stop = _number(start, "start"), _number(stop, "stop")
        if not self.start <= self.stop <= 1.0:
            raise RecipeError(f"start and stop must be in 0 <= start <= stop <= 1, got start={start}, stop={stop}")

    def resolve(self, layers: Mapping[str, Placed], total_steps: int) -> CoefficientFunction:
        """Step → layer → coefficient (the same at every step)."""
        depths = _relative_depths(layers)
        values = {name: self.value if self.start <= depth <= self.stop else 0.0 for name, depth in depths.items()}
        if not any(self.start <= depth <= self.stop for depth in depths.values()):
            known = ", ".join(f"{name} {depth:.3g}" for name, depth in depths.items())
            raise RecipeError(f"no layer has a relative depth from {self.start:g} to {self.stop:g} ({known})")
        return lambda step: values


class Scheduled:
    """A coefficient that changes over training; it can start late.

    Formula: 0 before ``start``; then base · min(1, (step − start + 1) / (warmup + 1)) · [final + (1 − final) · decay],
    the decay going from 1 at ``start`` to 0 at ``stop``.

    Args:
        base: a number, a mapping of layers, or another coefficient.
        start: first step with a coefficient.
        warmup: steps of linear growth after ``start``.
        schedule: ``"constant"``, ``"linear"`` or ``"cosine"`` decay.
        final: fraction of ``base`` that is left at ``stop``.
        stop: step at which the decay ends; by default the end of training.
    """

    def __init__(
        self,
        *,
        base: Coefficient,
        start: Annotated[int, AtLeast(0)] = 0,
        warmup: Annotated[int, AtLeast(0)] = 0,
        schedule: ScheduleName = "constant",
        final: Weight = 0.0,
        stop: Width | None = None,
    ) -> None:
        if start < 0 or warmup < 0:
            raise RecipeError(f"start and warmup must be >= 0, got start={start}, warmup={warmup}")
        if stop is not None and stop <= start:
            raise RecipeError(f"stop must come after start={start}, got stop={stop}")
        self.base, self.start, self.warmup, self.schedule, self.stop = base, start, warmup, schedule, stop
        self.final = _number(final, "final")

    def resolve(self, layers: Mapping[str, Placed], total_steps: int) -> CoefficientFunction:
        """Step → layer → coefficient."""
        base = resolve_coefficient(self.base, layers, total_steps)
        if isinstance(base, nn.Module):
            raise RecipeError(
                "base: a schedule cannot scale a coefficient that follows what is measured, which would work against "
                "it; use 'rank_floor' without a schedule"
            )
        end = total_steps if self.stop is None else self.stop

        def at(step: int) -> dict[str, float]:
            if step < self.start:
                return dict.fromkeys(layers, 0.0)
            rise = min(1.0, (step - self.start + 1) / (self.warmup + 1))
            factor = rise * (self.final + (1 - self.final) * decay(step - self.start, end - self.start, self.schedule))
            return {name: value * factor for name, value in base(step).items()}

        return at


def _number(value: Any, name: str = "coefficient") -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise RecipeError(f"{name} must be a finite number >= 0, got {value!r}")
    return float(value)


def _relative_depths(layers: Mapping[str, Placed]) -> dict[str, float]:
    """0 at the first layer, 1 at the deepest."""
    deepest = max((layer.depth for layer in layers.values()), default=0)
    return {name: layer.depth / deepest if deepest else 0.0 for name, layer in layers.items()}


def _by_name(values: Mapping[str, Any], layers: Mapping[str, Placed]) -> dict[str, float]:
    if not values:
        raise RecipeError(
            f"coefficient {{}} names no layer (layers: {', '.join(layers) or 'none'}); give a number, or leave the "
            "regularizer out"
        )
    chosen: dict[str, tuple[str, float]] = {}
    for pattern, value in sorted(values.items(), key=lambda item: item[0] in layers):
        number = _number(value, f"coefficient of {pattern!r}")
        matches = [pattern] if pattern in layers else fnmatch.filter(layers, pattern)
        if not matches:
            raise RecipeError(
                f"coefficient {pattern!r} matches no layer{suggest(pattern, list(layers))} "
                f"(layers: {', '.join(layers) or 'none'})"
            )
        for name in matches:
            other, earlier = chosen.get(name, (pattern, number))
            if pattern not in layers and earlier != number:
                raise RecipeError(
                    f"coefficients {other!r} = {earlier:g} and {pattern!r} = {number:g} both match layer {name!r}; "
                    "name the layer exactly to say which it gets"
                )
            chosen[name] = (pattern, number)
    return {name: chosen[name][1] if name in chosen else 0.0 for name in layers}
