"""The alarm of collapse: which layers have fallen below a share of the rank that they can reach, and since when.

It is told the rows of every measurement, whoever made them: a monitor, a trainer or the readings of controllers.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sslcollapse.core.distributed import rank, world_size
from sslcollapse.core.errors import CollapsedError
from sslcollapse.core.files import write_atomic
from sslcollapse.core.types import Point
from sslcollapse.nn.wrappers import check_count
from sslcollapse.rank.record import LayerRank

Action = Literal["warn", "stop"]
ACTIONS = ("warn", "stop")
COLLAPSE_FILE = "collapse.json"
BELOW, PATIENCE = 0.1, 3


@dataclass(frozen=True)
class FallenLayer:
    """A weight, an output or a feature that has collapsed.

    Attributes:
        point: what it is.
        depth: of the layer.
        since: step of the first of the low measurements.
        ranks: step and effective rank of the last measurement that was not low, if there was one, and of all since.
        reachable: the largest rank that shape and rows allow.
        spectrum: singular values now, descending; empty where they were not given.
        spectrum_before: those of the last measurement that was not low.
    """

    point: Point
    depth: int
    since: int
    ranks: tuple[tuple[int, float], ...]
    reachable: int
    spectrum: tuple[float, ...] = ()
    spectrum_before: tuple[float, ...] = ()

    @property
    def rank(self) -> float:
        """Effective rank now."""
        return self.ranks[-1][1]

    @property
    def title(self) -> str:
        """As messages call it."""
        return self.point.name if self.point.kind == "feature" else f"the {self.point.kind} of {self.point.name}"

    def record(self) -> dict[str, Any]:
        """As ``collapse.json`` has it."""
        return {
            "layer": self.point.name,
            "kind": self.point.kind,
            "depth": self.depth,
            "since": self.since,
            "effective_rank": self.rank,
            "reachable": self.reachable,
            "fraction": self.rank / self.reachable if self.reachable else 0.0,
            "ranks": [{"step": step, "effective_rank": rank} for step, rank in self.ranks],
            "spectrum": list(self.spectrum),
            "spectrum_before": list(self.spectrum_before),
        }


@dataclass(frozen=True)
class Collapse:
    """What an alarm says: which layers have collapsed, the first one first.

    Attributes:
        step: of the measurement that raised the alarm.
        layers: all that are collapsed now, by when they fell and by depth.
        below: share of the reachable rank that they are below.
        patience: measurements in a row that were low.
        healthy_step: of the last measurement in which nothing was low; None where there was none.
        healthy_checkpoint: the newest one from then or before; None where there is none.
    """

    step: int
    layers: tuple[FallenLayer, ...]
    below: float
    patience: int
    healthy_step: int | None = None
    healthy_checkpoint: str | None = None

    @property
    def first(self) -> FallenLayer:
        """The layer that fell first; of several the shallowest."""
        return self.layers[0]

    def __str__(self) -> str:
        first, others = self.first, len(self.layers) - 1
        (step, rank), before = first.ranks[0], ""
        if step < first.since:
            before = f", {rank:.1f} at step {step}"
            if rank < self.below * first.reachable:
                before += ", where it was low already, so that `below` may be too high for this network"
        more = f", and {others} more with it" if others else ""
        if self.healthy_step is None:
            healthy = "no measurement was healthy"
        elif self.healthy_checkpoint is None:
            healthy = f"the last healthy measurement was at step {self.healthy_step}, and no checkpoint is as old"
        else:
            healthy = f"the last healthy checkpoint is {self.healthy_checkpoint}"
        return (
            f"{first.title} has collapsed{more}: its effective rank is {first.rank:.1f} of {first.reachable}, below "
            f"{self.below:g} of that since step {first.since}{before}; {healthy}"
        )

    def record(self, action: str) -> dict[str, Any]:
        """As ``collapse.json`` has it; the first layer stands at the top."""
        first = self.first
        return {
            "step": self.step,
            "layer": first.point.name,
            "kind": first.point.kind,
            "since": first.since,
            "action": action,
            "below": self.below,
            "patience": self.patience,
            "last_healthy": {"step": self.healthy_step, "checkpoint": self.healthy_checkpoint},
            "layers": [layer.record() for layer in self.layers],
        }

    def write(self, folder: Path, action: str, **more: Any) -> Path:
        """Write ``collapse.json`` into a folder, which is made; return its path.

        Raises:
            WriteError: it cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / COLLAPSE_FILE
        write_atomic(path, (json.dumps(self.record(action) | more, indent=2) + "\n").encode())
        return path


@dataclass
class _Course:
    """What is remembered of one point: low measurements in a row, and the ranks since the last that was not."""

    low: int = 0
    ranks: list[tuple[int, float]] = field(default_factory=list)
    before: tuple[float, ...] = ()
    told: bool = False


class CollapseAlarm:
    """Says of each measurement whether layers have collapsed by it.

        alarm = CollapseAlarm(below=0.1, patience=3)
        collapse = alarm.observe(step, monitor.summary(step))

    A row is low where its effective rank is less than ``below`` of what it can reach. A layer has collapsed when it was
    low in ``patience`` measurements in a row, and is told once; when its rank is back, it may be told again. A row that
    is not finite says nothing, and no measurement with one counts as healthy.

    Args:
        below: share of the reachable rank, in (0, 1].
        patience: low measurements in a row that make a collapse.

    Attributes:
        healthy: step of the last measurement in which nothing was low.
        checkpoint: the newest checkpoint of then or before; it is not to be deleted.

    Raises:
        ValueError: for a ``below`` outside of (0, 1], or a ``patience`` that is no whole number of at least 1.
    """

    def __init__(self, below: float = BELOW, patience: int = PATIENCE) -> None:
        if isinstance(below, bool) or not isinstance(below, (int, float)) or not 0 < below <= 1:
            raise ValueError(f"below must be a number in (0, 1], got {below!r}")
        check_count("patience", patience)
        self.below, self.patience = float(below), patience
        self.healthy: int | None = None
        self.checkpoint: str | None = None
        self._healthy_at = -1
        self._saved: list[tuple[int, str]] = []
        self._courses: dict[Point, _Course] = {}

    def observe(
        self,
        step: int,
        rows: Iterable[LayerRank],
        spectra: Mapping[str, Tensor] | None = None,
        *,
        at: int | None = None,
        untrained: bool = False,
    ) -> Collapse | None:
        """The collapse that a measurement shows; None where no layer has collapsed by it that had not before.

        Args:
            step: what the measurement is called.
            rows: of it.
            spectra: key of a point → singular values, descending.
            at: how far training is, as ``saved`` counts it; by default the step.
            untrained: whether nothing was trained yet, so that nothing can have fallen.
        """
        rows = list(rows)
        new = False
        for row in rows:
            course = self._courses.setdefault(row.point, _Course())
            if row.finite:
                new |= self._take(course, step, row, (spectra or {}).get(row.point.key), untrained)
        if rows and all(row.finite and row.effective_rank >= self.below * row.reachable for row in rows):
            self.healthy, self._healthy_at = step, step if at is None else at
            self._settle()
        if not new:
            return None
        fallen = [
            FallenLayer(
                row.point,
                row.depth,
                course.ranks[-course.low][0],
                tuple(course.ranks),
                row.reachable,
                _values((spectra or {}).get(row.point.key)),
                course.before,
            )
            for row in rows
            if (course := self._courses[row.point]).low >= self.patience
        ]
        fallen.sort(key=lambda layer: (layer.since, layer.point.kind == "feature", layer.depth))
        return Collapse(step, tuple(fallen), self.below, self.patience, self.healthy, self.checkpoint)

    def saved(self, checkpoint: str, at: int) -> None:
        """A checkpoint was written when training was so far."""
        self._saved.append((at, checkpoint))
        self._settle()

    def state_dict(self) -> dict[str, Any]:
        """The state as plain numbers, without spectra."""
        return {
            "below": self.below,
            "patience": self.patience,
            "healthy": self.healthy,
            "courses": [
                {
                    "kind": point.kind,
                    "name": point.name,
                    "low": c.low,
                    "ranks": [list(r) for r in c.ranks],
                    "told": c.told,
                }
                for point, c in self._courses.items()
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue; with other settings than the saved ones low measurements are counted anew."""
        self.healthy = state["healthy"]
        self._healthy_at = -1 if self.healthy is None else self.healthy
        if (state["below"], state["patience"]) == (self.below, self.patience):
            self._courses = {
                Point(c["kind"], c["name"]): _Course(c["low"], [(s, r) for s, r in c["ranks"]], (), c["told"])
                for c in state["courses"]
            }

    def forget(self) -> None:
        """Count low measurements anew."""
        self._courses.clear()

    def _take(self, course: _Course, step: int, row: LayerRank, spectrum: Tensor | None, untrained: bool) -> bool:
        """Remember a row; whether its layer has collapsed by it."""
        if untrained or row.effective_rank >= self.below * row.reachable:
            course.low, course.told = 0, False
            course.ranks, course.before = [(step, row.effective_rank)], _values(spectrum)
            return False
        course.low += 1
        course.ranks.append((step, row.effective_rank))
        if course.told or course.low < self.patience:
            return False
        course.told = True
        return True

    def _settle(self) -> None:
        """Which checkpoint is the last healthy one; those that cannot become it are forgotten."""
        past = [entry for entry in self._saved if entry[0] <= self._healthy_at]
        if past:
            self.checkpoint = past[-1][1]
            self._saved = [past[-1], *(entry for entry in self._saved if entry[0] > self._healthy_at)]


def check_action(action: object) -> None:
    """Refuse what is no answer to a collapse.

    Raises:
        ValueError: quotes it.
    """
    if action is not None and action not in ACTIONS and not callable(action):
        raise ValueError(f"on_collapse must be 'warn', 'stop', a function or None, got {action!r}")


def said_by_rank_0(found: Collapse | None) -> Collapse | None:
    """What rank 0 has found, on every rank, which must all call."""
    if world_size() == 1:
        return found
    told = [found]
    torch.distributed.broadcast_object_list(told, src=0)
    return told[0]


def answer(collapse: Collapse, action: OnCollapse, folder: Path) -> None:
    """Write ``collapse.json`` on rank 0, then warn there, or raise or call on every rank.

    Raises:
        CollapsedError: where the action is to stop.
    """
    said = f"step {collapse.step}: {collapse}"
    if not rank():
        try:
            path = collapse.write(folder, action if isinstance(action, str) else "call")
            said += f"; {path} has ranks and spectra"
        except OSError as error:  # a full disk is no reason to end a training
            said += f"; {COLLAPSE_FILE} could not be written ({error})"
    if action == "stop":
        raise CollapsedError(said, collapse)
    if callable(action):
        action(collapse)
    elif action == "warn" and not rank():
        warnings.warn(said, stacklevel=4)


OnCollapse = Action | Callable[[Collapse], None] | None
"""What is done about a collapse: a warning, an error that ends the loop, a call, or nothing."""


def _values(spectrum: Tensor | None) -> tuple[float, ...]:
    return () if spectrum is None else tuple(float(f"{value:.6g}") for value in spectrum.tolist())
