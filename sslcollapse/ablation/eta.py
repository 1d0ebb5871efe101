"""How long the rest of an ablation takes, where cells differ in cost."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from sslcollapse.ablation.job import Job


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
