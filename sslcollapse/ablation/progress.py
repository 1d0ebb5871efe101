"""Progress over all runs of an ablation, and how long the rest takes: live on a terminal, a line an event elsewhere."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sslcollapse.ablation.job import Job
from sslcollapse.core.console import PlainConsole, Table, Text

REFRESH_SECONDS = 1.0
SHOWN_RUNS = 12
"""Live lines of runs; of more, the first ones."""


@dataclass
class _Running:
    job: Job
    began: float
    first_step: int

    def left(self, now: float, expected: float | None) -> float | None:
        """Seconds it still takes, by its steps or by what its cell takes with evaluation, whichever is more."""
        elapsed, step = now - self.began, self.job.step()
        known = [] if expected is None else [max(expected - elapsed, 0.0)]
        if step > self.first_step:
            known.append(elapsed / (step - self.first_step) * (self.job.steps - step))
        return max(known, default=None)


class Progress:
    """What is shown of an ablation.

    Args:
        durations: what is known of the runs' cost.
        live: whether the terminal may be drawn on; not while runs print there themselves.
    """

    def __init__(self, durations: Durations, *, live: bool = True) -> None:
        self.console = PlainConsole(soft_wrap=True)
        self._total = self._done = self._failed = 0
        self._durations = durations
        self._waiting: list[Job] = []
        self._parallel = 1
        self._running: dict[str, _Running] = {}
        self._drawn = 0.0
        self._live: Any = None
        if live and self.console.is_terminal:  # rich's, which is there then
            from rich.live import Live

            self._live = Live(console=self.console, auto_refresh=False, transient=True)

    def start(self, total: int, done: int, waiting: Sequence[Job], parallel: int) -> None:
        """Begin to show ``waiting`` runs, ``parallel`` at a time, of ``total`` of which ``done`` have finished."""
        self._total, self._done = total, done
        self._waiting, self._parallel = list(waiting), parallel
        if self._live is not None:
            self._live.start()

    def stop(self) -> None:
        """Take the live lines away."""
        if self._live is not None:
            self._live.stop()

    def print(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text)

    def started(self, job: Job) -> None:
        """A run has begun."""
        self._waiting.remove(job)
        self._running[job.key] = _Running(job, time.monotonic(), job.step())
        if self._live is None:
            self.print(f"start     {job.name}  →  {job.path}")
        self._draw()

    def ended(self, job: Job, error: str | None, seconds: float) -> None:
        """A run has ended."""
        self._running.pop(job.key, None)
        if job in self._waiting:  # it ended before anybody saw it start
            self._waiting.remove(job)
        if error is None:
            self._done += 1
            self._durations.add(job, seconds)
            outcome = f"finished  {job.name}  in {clock(seconds)}"
        else:
            self._failed += 1
            outcome = f"FAILED    {job.name}: {error}  (log: {job.log})"
        left = self._left()
        shown = [f"{self._done}/{self._total}"] + ([f"{self._failed} failed"] if self._failed else [])
        shown += [] if left is None or not (self._running or self._waiting) else [f"{clock(left)} left"]
        self.print(f"{outcome}  [{', '.join(shown)}]")
        self._draw()

    def stopped(self, job: Job) -> None:
        """A run was stopped by a signal."""
        self._running.pop(job.key, None)
        self.print(f"stopped   {job.name} by a signal; the same command goes on with it")
        self._draw()

    def tick(self) -> None:
        """Draw again if the last time is a while ago."""
        if self._live is not None and time.monotonic() - self._drawn > REFRESH_SECONDS:
            self._draw()

    def _left(self) -> float | None:
        """Seconds until all have ended; None while nothing is known of their cost."""
        now = time.monotonic()
        running = [run.left(now, self._durations.expected(run.job)) for run in self._running.values()]
        waiting = [self._durations.expected(job) for job in self._waiting]
        known = [seconds for seconds in (*running, *waiting) if seconds is not None]
        if not known and (running or waiting):
            return None
        guess = sum(known) / len(known) if known else 0.0
        return remaining(
            [guess if seconds is None else seconds for seconds in running],
            [guess if seconds is None else seconds for seconds in waiting],
            max(self._parallel, len(running)),
        )

    def _draw(self) -> None:
        if self._live is None:
            return
        from rich.console import Group
        from rich.progress_bar import ProgressBar

        self._drawn = time.monotonic()
        left = self._left()
        total = f"{self._done}/{self._total} runs" + (f", {self._failed} failed" if self._failed else "")
        rows = Table.grid(padding=(0, 2))
        rows.add_row(
            ProgressBar(total=self._total, completed=self._done, width=30),
            Text(total),
            Text("time left unknown" if left is None else f"{clock(left)} left"),
        )
        shown = list(self._running.values())[:SHOWN_RUNS]
        runs = Table.grid(padding=(0, 2))
        for run in shown:
            step = f"{run.job.step()}/{run.job.steps}"
            runs.add_row(Text(step, justify="right"), Text(run.job.name, overflow="ellipsis", no_wrap=True))
        more = len(self._running) - len(shown)
        self._live.update(Group(runs, *([Text(f"and {more} more")] if more else []), rows), refresh=True)


def clock(seconds: float) -> str:
    """``4:05`` or ``1:04:05``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Durations:
    """Seconds a run, by cell: of runs that ended here, else of recorded ones, else the mean of all that are known.

    Args:
        records: of earlier runs, perhaps of another machine: scaled by the cells that have also ended here.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]]) -> None:
        self._recorded: dict[str, list[float]] = {}
        self._here: dict[str, list[float]] = {}
        for record in records:
            seconds = record.get("seconds", {})
            if seconds.get("steps_trained", record.get("steps")) == record.get("steps"):  # not resumed
                total = seconds.get("training", 0.0) + seconds.get("evaluation", 0.0)
                self._recorded.setdefault(record["hash"], []).append(total)

    def add(self, job: Job, seconds: float) -> None:
        """Count a run that has ended here."""
        self._here.setdefault(job.cell.hash, []).append(seconds)

    def expected(self, job: Job) -> float | None:
        """Seconds of a whole run of this cell; None before anything is known."""
        cell = job.cell.hash
        if cell in self._here:
            return fmean(self._here[cell])
        if cell in self._recorded:
            return fmean(self._recorded[cell]) * self._scale()
        known = self._here or self._recorded
        return fmean(map(fmean, known.values())) if known else None

    def _scale(self) -> float:
        both = self._here.keys() & self._recorded.keys()
        recorded = sum(fmean(self._recorded[cell]) for cell in both)
        return sum(fmean(self._here[cell]) for cell in both) / recorded if recorded else 1.0


def remaining(running: Iterable[float], waiting: Iterable[float], parallel: int) -> float:
    """Seconds until the last run ends, if waiting ones start in order as soon as one of ``parallel`` places is free.

    >>> remaining([1.0, 5.0], [10.0, 2.0], parallel=2)
    11.0
    """
    places = list(running)
    places += [0.0] * (parallel - len(places))
    heapq.heapify(places)
    for seconds in waiting:
        heapq.heapreplace(places, places[0] + seconds)
    return max(places, default=0.0)
