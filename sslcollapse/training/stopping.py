"""What makes a run save or stop between two steps: signals, the clock, a collapse, and ranks that do it together."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import torch
from accelerate import Accelerator

from sslcollapse.core.errors import CollapsedError, RunError
from sslcollapse.core.texts import say
from sslcollapse.core.types import Point
from sslcollapse.rank.alarm import COLLAPSE_FILE, Collapse, CollapseAlarm
from sslcollapse.rank.record import LayerRank
from sslcollapse.runs.directory import RunDirectory

SIGNALS = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGUSR1: signal.SIG_DFL,
    signal.SIGUSR2: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}
"""What asks a run to stop, with the handler that each has unless a program has set its own."""

ASK_SECONDS = 1.0
"""About how often several ranks ask each other whether to stop or to save."""


class Stopped(BaseException):
    """A signal ended what this process does; ``train`` raises it on as PreemptedError.

    It is no Exception, so that code which takes an error of a component or of a library for its fault, or goes on
    without what failed, neither renames nor swallows it.

    Attributes:
        number: of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class StopSignals:
    """A context in which a signal ends the run in good order; every handler is put back afterwards.

    While it is held (between ``hold`` and ``release``), a signal is kept until somebody asks for ``caught``; only a
    second SIGINT (Ctrl-C) raises at once. At all other times there is nothing to save, and every signal raises where
    it arrives. Handlers that somebody else has set are left to them. Outside the main thread, where Python allows no
    handlers, nothing is caught.

    Attributes:
        caught: number of the first signal that arrived while it was held, or None.
        place: where the run is, for the message.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self.place = "before the first step"
        self._held = False
        self._replaced: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number, usual in SIGNALS.items():
                if signal.getsignal(number) == usual:
                    self._replaced[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._replaced.items():
            if signal.getsignal(number) == self._receive:
                signal.signal(number, before)
        self._replaced.clear()

    def hold(self) -> None:
        """From here on keep signals until the step in hand is done."""
        self._held = True

    def release(self, place: str) -> None:
        """From here on raise where a signal arrives, which one that has been kept does now."""
        self._held, self.place = False, place
        if self.caught is not None:
            self.stop(self.caught)

    def stop(self, number: int) -> NoReturn:
        """End the run because of a signal.

        Raises:
            KeyboardInterrupt: for SIGINT.
            Stopped: for the others.
        """
        message = f"stopped by {signal.Signals(number).name} {self.place}"
        if number == signal.SIGINT:
            raise KeyboardInterrupt(message)
        raise Stopped(message, number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._held or (number == signal.SIGINT and self.caught is not None):
            self.stop(number)
        if number == signal.SIGINT and os.environ.get("RANK", "0") == "0":
            with suppress(OSError):  # not by print, which the signal may have interrupted
                os.write(2, b"\nsaving after this step; a second Ctrl-C stops at once\n")
        self.caught = self.caught or number


class Due(NamedTuple):
    """What is to be done after a step: stop because of a signal, or write a checkpoint because it is time."""

    stop: int | None
    save: bool


class Pace:
    """Says after each step whether to stop or to save, the same on every rank.

    One process looks at its signals and at its clock after every step. Several have to leave after the same step.
    They ask each other in a collective of three numbers, about once a second: after how many steps the next one is
    follows from rank 0's speed, which this one has told all of them.

    Args:
        accelerator: of the run.
        signals: of this rank.
        minutes: between checkpoints, by the clock of rank 0; 0 for none.
        start: steps that are done.
    """

    def __init__(self, accelerator: Accelerator, signals: StopSignals, minutes: float, start: int) -> None:
        self._accelerator, self._signals = accelerator, signals
        self._seconds = 60.0 * minutes
        self._asked, self._next = start, start + 1
        self._asked_at = self._saved_at = time.monotonic()

    def saved(self) -> None:
        """A checkpoint was written."""
        self._saved_at = time.monotonic()

    def after(self, done: int) -> Due:
        """What is due after ``done`` steps; called by every rank after every step."""
        if self._accelerator.num_processes == 1:
            return Due(self._signals.caught, self._is_time())
        if done < self._next:
            return Due(None, False)
        now, steps = time.monotonic(), done - self._asked
        mine = [float(self._signals.caught or 0), float(self._is_time()), (now - self._asked_at) / steps]
        told = self._accelerator.gather(torch.tensor(mine, device=self._accelerator.device)).view(-1, len(mine))
        stop = int(told[:, 0].max())
        _, save, seconds = told[0].tolist()
        # At most twice as many as before, so that a few fast steps do not put the next one far away.
        self._next = done + max(1, min(2 * steps, int(ASK_SECONDS / max(seconds, 1e-9))))
        self._asked, self._asked_at = done, time.monotonic()
        return Due(stop or None, bool(save))

    def caught(self) -> int | None:
        """A signal that any rank has caught; called by every rank."""
        own = torch.tensor([self._signals.caught or 0], device=self._accelerator.device)
        return int(self._accelerator.gather(own).max()) or None

    def _is_time(self) -> bool:
        return self._seconds > 0 and time.monotonic() - self._saved_at >= self._seconds


SETTINGS = ("on_collapse", "below", "patience")
"""Fields of ``monitor`` that say what is a collapse and what is done about it."""


class RunAlarm:
    """Looks for a collapse in what a run measures, and in what its controllers read.

    The two are of other rows, so that each has an alarm of its own. Measurements are rank 0's, readings are the same
    on every rank.

    Args:
        run: where ``collapse.json`` goes.
        monitor: that part of the recipe.
        steps: of the whole run; a collapse in the last one is written down and ends nothing.
        warn: is told the completed steps and a line.
        main: whether this is rank 0, which alone writes.
        anew: whether low measurements are counted anew after a resumption.
    """

    def __init__(
        self,
        run: RunDirectory,
        monitor: Mapping[str, Any],
        steps: int,
        warn: Callable[[int, str], None],
        *,
        main: bool,
        anew: bool = False,
    ) -> None:
        self._run, self._steps, self._warn, self._main, self._anew = run, steps, warn, main, anew
        self._settings = {name: monitor[name] for name in SETTINGS}
        names = ("measured", "read") if monitor["on_collapse"] else ()
        self._alarms = {name: CollapseAlarm(monitor["below"], monitor["patience"]) for name in names}
        self._read: str | None = None

    def measured(self, done: int, rows: Iterable[LayerRank], spectra: Mapping[str, Any]) -> str | None:
        """Why the run has to stop after a measurement; None where it goes on."""
        return self._observe("measured", done, [row for row in rows if row.point != _EMBEDDING], spectra)

    def read(self, step: int, rows: Iterable[LayerRank]) -> None:
        """Look at what controllers have read in a step (from 0); ``take`` says what follows."""
        self._read = self._observe("read", step, list(rows), {}) or self._read

    def take(self) -> str | None:
        """Why the run has to stop after this step, by what controllers have read, the same on every rank."""
        said, self._read = self._read, None
        return said

    def saved(self, step: int) -> set[int]:
        """Completed steps of the checkpoints that are to be kept, now that one of ``step`` is written."""
        spared = set()
        for alarm in self._alarms.values():
            alarm.saved(_checkpoint(step), step)
            if alarm.checkpoint is not None:
                spared.add(int(Path(alarm.checkpoint).stem.removeprefix("step")))
        return spared

    def state(self) -> dict[str, Any]:
        """What a checkpoint has of it; nothing where no collapse is looked for."""
        return {"alarm": {name: alarm.state_dict() for name, alarm in self._alarms.items()}} if self._alarms else {}

    def load(self, state: Mapping[str, Any], checkpoints: Iterable[int]) -> None:
        """Continue from a checkpoint.

        Args:
            state: of the checkpoint, which may be of a run that looked for no collapse.
            checkpoints: completed steps of those that are there.
        """
        for name, alarm in self._alarms.items():
            if name in state.get("alarm", {}):
                alarm.load_state_dict(state["alarm"][name])
            if self._anew:
                alarm.forget()
            for step in sorted(checkpoints):
                alarm.saved(_checkpoint(step), step)

    def _observe(self, name: str, done: int, rows: list[LayerRank], spectra: Mapping[str, Any]) -> str | None:
        if name not in self._alarms:
            return None
        found = self._alarms[name].observe(done, rows, spectra, untrained=done == 0)
        if found is None:
            return None
        stops = self._settings["on_collapse"] == "stop" and done < self._steps
        if self._main:
            self._write(found, stops)
        if not stops:
            first = found.first
            self._warn(done, f"collapse of {first.title}: {found}; {COLLAPSE_FILE} has ranks and spectra")
        return str(found) if stops else None

    def _write(self, found: Collapse, stops: bool) -> None:
        action = self._settings["on_collapse"]
        found.write(self._run.path, action, text=str(found), settings=self._settings, stopped=stops)


def check_collapse(run: RunDirectory, monitor: Mapping[str, Any], *, anyway: bool) -> None:
    """Before a run is resumed: say how it was stopped by a collapse, if it was, and refuse unless it is to go on.

    Args:
        run: its directory.
        monitor: that part of the recipe.
        anyway: whether it goes on with the same settings.

    Raises:
        CollapsedError: it was stopped under the same settings.
        RunError: ``collapse.json`` is damaged, and a collapse stops this run.
    """
    path = run.path / COLLAPSE_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not found["stopped"]:
            return
        said = f"{run.path}: this run was stopped after step {int(found['step'])}: {found['text']}"
        settings = found["settings"]
    except FileNotFoundError:
        return
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, RecursionError) as error:
        unknown = f"{path}: cannot be read ({error}), so that nobody knows whether a collapse has stopped this run"
        if monitor["on_collapse"] == "stop" and not anyway:
            raise RunError(f"{unknown}. To go on, add --past-collapse to --resume, or move the file away") from None
        say(f"{unknown}; going on")
        return
    if not anyway and settings == {name: monitor[name] for name in SETTINGS}:
        raise CollapsedError(
            f"{said}. To go on from there, add --past-collapse to --resume, or change monitor.on_collapse, "
            "monitor.below or monitor.patience"
        )
    say(f"{said}; going on")
    run.write_json(COLLAPSE_FILE, found | {"stopped": False})


_EMBEDDING = Point("feature", "embedding")


def _checkpoint(step: int) -> str:
    return f"checkpoints/step{step:08d}.pt"
