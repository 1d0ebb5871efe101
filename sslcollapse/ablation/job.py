"""One run to be made, and who wants to know how it goes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sslcollapse.ablation.values import Cell
from sslcollapse.runs.quantities import is_cut_short

TAIL_BYTES = 1 << 16


@dataclass(frozen=True, eq=False)
class Job:
    """One run to be made.

    Attributes:
        path: its run directory.
        out: the folder of all runs, which ``path`` is in.
        command: what would make the same run by hand, for ``environment.json``.
    """

    cell: Cell
    seed: int
    path: Path
    out: Path
    command: list[str]

    @property
    def key(self) -> str:
        """Its name in files: ``<hash>/seed<k>``."""
        return f"{self.cell.hash}/seed{self.seed}"

    @property
    def name(self) -> str:
        """Its name in messages: ``cora encoder.hidden=[64] seed=3``."""
        return f"{self.cell.name} seed={self.seed}"

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.cell.recipe["train"]["steps"]

    @property
    def finished(self) -> bool:
        """Whether the run has its result, and its folder is not that of another run of the same hash."""
        from sslcollapse.runs.streams import made_otherwise

        return (self.path / "result.json").exists() and not made_otherwise(self.path, self.cell.recipe)

    @property
    def complete(self) -> bool:
        """Whether it is finished and nothing that is optional was cut short."""
        return self.finished and not is_cut_short(self.path)

    @property
    def log(self) -> Path:
        """What the run printed, its errors last."""
        return self.path / "train.log"

    def step(self) -> int:
        """The newest logged step, from the end of ``metrics.jsonl``; 0 if there is none."""
        try:
            with open(self.path / "metrics.jsonl", "rb") as file:
                file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
                found = re.findall(rb'^\{"step": (\d+)[,}]', file.read(), re.MULTILINE)
        except OSError:
            return 0
        return int(found[-1]) if found else 0

    def message(self) -> dict[str, Any]:
        """What the worker is told, as it could be JSON."""
        return {
            "source": str(self.cell.source.absolute()),
            "recipe": self.cell.with_seed(self.seed),
            "path": str(self.path.absolute()),
            "out": str(self.out.absolute()),
            "command": self.command,
        }


class JobWatch(Protocol):
    """What an executor tells while it makes runs."""

    def started(self, job: Job) -> None:
        """A run has begun."""

    def ended(self, job: Job, error: str | None, seconds: float) -> None:
        """A run has ended after ``seconds``, with the error in one line or None if it has its result."""

    def stopped(self, job: Job) -> None:
        """A run was asked by a signal to stop; it has not failed, and the same command goes on with it."""

    def tick(self) -> None:
        """Time has passed; called some times a second."""


def last_line(text: str) -> str:
    """The last line that is not blank, which is where a traceback says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
