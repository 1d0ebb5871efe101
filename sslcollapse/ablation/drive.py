"""From a grid to its tables: skip what is recorded, run the rest, record each run as it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from sslcollapse.ablation.files import write_files
from sslcollapse.ablation.grid import Ablation, Cell, plan
from sslcollapse.ablation.local import Job, run_locally
from sslcollapse.ablation.records import Records, make_record
from sslcollapse.ablation.table import best_by_validation, columns, results_table
from sslcollapse.errors import RecipeError

EXECUTORS = {"local": run_locally}


def run_ablation(
    target: Path,
    *,
    grid: Sequence[str] = (),
    seeds: int | None = None,
    overrides: Sequence[str] = (),
    jobs: int = 1,
    executor: str = "local",
    out: Path = Path("runs"),
    results: Path = Path("docs/results"),
) -> int:
    """Run what is not recorded yet of an ablation, then write its tables; 0 if every run is finished, else 1.

    It may be killed at any moment and started again: finished runs stay, unfinished ones are resumed.

    Args:
        target: an ablation file, or a recipe with ``grid`` and ``seeds``.
        grid: ``path=value,value,...``, one an axis.
        seeds: number of seeds of every cell, from 0.
        overrides: ``path=value`` changes of all runs.
        jobs: runs at a time.
        executor: where runs take place.
        out: folder of run directories.
        results: folder of ``<name>/runs.jsonl``, ``README.md`` and ``table.csv``.

    Raises:
        RecipeError: a cell or option is wrong; nothing has been started then.
        RunError: results cannot be written; nothing has been started then.
        KeyboardInterrupt: at SIGINT or SIGTERM, after the runs under way were ended and tables were written.
    """
    if executor not in EXECUTORS:
        raise RecipeError(f"executor {executor!r}: there is only {', '.join(EXECUTORS)}")
    if jobs < 1:
        raise RecipeError(f"jobs must be at least 1, got {jobs}")
    ablation = plan(Path(target), grid, seeds, overrides)
    progress = _Progress(ablation, Path(results) / ablation.name)
    progress.records.check_writable()
    try:
        with _interruptible():
            waiting = [job for job in _jobs(ablation, Path(out)) if not progress.is_finished(job)]
            progress.begin(len(waiting))
            EXECUTORS[executor](waiting, jobs, progress.started, progress.ended)
    finally:
        progress.write_tables(_command(Path(target), grid, seeds, overrides))
    progress.conclude()
    return 0 if progress.complete else 1


class _Progress:
    """The records of one ablation, kept and shown as its runs start and end."""

    def __init__(self, ablation: Ablation, folder: Path) -> None:
        self.ablation = ablation
        self.folder = folder
        self.records = Records(folder / "runs.jsonl")
        self.total = len(ablation.cells) * ablation.seeds
        self.console = Console(highlight=False, markup=False, soft_wrap=True)
        self._names = {_key(c, seed): f"{c.name} seed={seed}" for c in ablation.cells for seed in range(ablation.seeds)}
        self._failures: dict[str, str] = _read(folder / "failures.json")

    @property
    def done(self) -> int:
        return sum((cell.hash, seed) in self.records for cell, seed in _runs(self.ablation))

    @property
    def complete(self) -> bool:
        return self.done == self.total

    def is_finished(self, job: Job) -> bool:
        """Whether the run is recorded, or has its result and is recorded now."""
        if (job.cell.hash, job.seed) not in self.records and (job.path / "result.json").exists():
            self._record(job)
        return (job.cell.hash, job.seed) in self.records

    def begin(self, waiting: int) -> None:
        self._to_do, self._ended, self._began = waiting, 0, time.monotonic()
        self.console.print(f"{self.ablation.name}: {self.total} runs, {self.done} finished, {waiting} to do")

    def started(self, job: Job) -> None:
        self.console.print(f"start     {self._names[_key(job.cell, job.seed)]}  →  {job.path}")

    def ended(self, job: Job, error: str | None, seconds: float) -> None:
        key = _key(job.cell, job.seed)
        self._ended += 1
        if error is None:
            self._record(job)
            outcome = f"finished  {self._names[key]}  in {_clock(seconds)}"
        else:
            self._failures[key] = error
            self._write_failures()
            outcome = f"FAILED    {self._names[key]}: {error}"
        left = (time.monotonic() - self._began) / self._ended * (self._to_do - self._ended)
        self.console.print(f"{outcome}  [{self.done}/{self.total}, {_clock(left)} left]")

    def write_tables(self, command: str) -> None:
        """Rebuild the page and the tables from the records."""
        if not len(self.records) and not self._failures:
            return
        failures = {self._names[key]: error for key, error in sorted(self._failures.items()) if key in self._names}
        write_files(self.folder, self.ablation, self.records, failures, command)

    def conclude(self) -> None:
        """Show the first table, what validation chooses for each base recipe, and where the page is."""
        shown = self.records.of(self.ablation.cells, self.ablation.seeds)
        every = columns(self.ablation, shown)
        chosen = [column for column in every if column.section == every[0].section]
        self.console.print("\n".join(results_table(self.ablation, self.records, chosen)))
        for base in dict.fromkeys(cell.base for cell in self.ablation.cells):
            cells = {cell.hash: cell for cell in self.ablation.cells if cell.base == base}
            own = [record for record in shown if record["hash"] in cells]
            for probe in {probe: None for record in own for probe in record["evaluation"]}:
                best = best_by_validation(own, probe)
                if best is not None and len(cells) > 1:
                    chosen_cell = f"{cells[best.record['hash']].name} ({100 * best.mean:.2f}, n = {best.n})"
                    self.console.print(f"best by validation, {probe}: {chosen_cell}")
        self.console.print(f"{self.done}/{self.total} runs finished: {self.folder / 'README.md'}")
        if not self.complete:
            self.console.print(f"{self.total - self.done} failed; the same command tries them again")

    def _record(self, job: Job) -> None:
        self.records.add(make_record(job.cell, list(self.ablation.settings), job.path))
        if self._failures.pop(_key(job.cell, job.seed), None) is not None:
            self._write_failures()

    def _write_failures(self) -> None:
        from sslcollapse.checkpoint import write_atomic

        path = self.folder / "failures.json"
        if self._failures:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, (json.dumps(self._failures, indent=2, sort_keys=True) + "\n").encode())
        else:
            path.unlink(missing_ok=True)


def _runs(ablation: Ablation) -> Iterator[tuple[Cell, int]]:
    """Seed by seed, so that an interrupted ablation has all cells with fewer seeds."""
    return ((cell, seed) for seed in range(ablation.seeds) for cell in ablation.cells)


def _jobs(ablation: Ablation, out: Path) -> Iterator[Job]:
    from sslcollapse.run import RunDirectory  # imports torch, so mistakes in a grid are reported before it

    for cell, seed in _runs(ablation):
        values = [f"{path}={value!r}" for path, value in cell.values.items()]
        command = ["sslcollapse", "train", str(cell.source), *ablation.settings, *values, f"seed={seed}"]
        yield Job(cell, seed, RunDirectory.of(cell.with_seed(seed), out).path, out, [*command, "--out", str(out)])


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM as SIGINT, so that both end the runs under way."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _command(target: Path, grid: Sequence[str], seeds: int | None, overrides: Sequence[str]) -> str:
    """What rebuilds the page, as it is typed in the current folder."""
    shown = os.path.relpath(target) if target.resolve().is_relative_to(Path.cwd()) else target.name
    words = ["sslcollapse", "ablate", shown, *(word for axis in grid for word in ("--grid", axis))]
    words += [] if seeds is None else ["--seeds", str(seeds)]
    return shlex.join([*words, *overrides])


def _key(cell: Cell, seed: int) -> str:
    return f"{cell.hash}/seed{seed}"


def _read(path: Path) -> dict[str, str]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
