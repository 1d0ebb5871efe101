"""What makes a run save or stop between two steps: signals, the clock, and several ranks that do it together."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import torch
from accelerate import Accelerator

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
