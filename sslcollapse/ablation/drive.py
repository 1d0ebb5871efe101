"""From a grid to its tables: skip what is recorded, run the rest, record each run as it ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sslcollapse.ablation.claims.judge import judge
from sslcollapse.ablation.claims.needs import needs_lines
from sslcollapse.ablation.executors.base import check_options, choose_executor
from sslcollapse.ablation.files import RESULTS, command_line, write_files, write_plan
from sslcollapse.ablation.grid import Ablation, plan
from sslcollapse.ablation.job import Job
from sslcollapse.ablation.looks import grown, with_looks
from sslcollapse.ablation.progress import Durations, Progress
from sslcollapse.ablation.records import DamagedRunError, Failures, Records, check_writable, make_record
from sslcollapse.ablation.tables.columns import heads, labels, markdown
from sslcollapse.ablation.tables.page import best_by_validation, columns, results_table
from sslcollapse.ablation.values import Cell
from sslcollapse.core.files import locked


def run_ablation(
    target: Path,
    *,
    grid: Sequence[str] = (),
    seeds: int | None = None,
    baseline: Sequence[str] = (),
    others: Sequence[Path] = (),
    name: str | None = None,
    overrides: Sequence[str] = (),
    jobs: int | str = 1,
    threads: int | None = None,
    executor: str = "local",
    slurm: Sequence[str] = (),
    timeout: float | None = None,
    retry_failed: bool = False,
    dry_run: bool = False,
    tables: bool = False,
    until_decided: int | None = None,
    out: Path = Path("runs"),
    results: Path = RESULTS,
) -> int:
    """Run what is not recorded yet of an ablation, then write its tables; 0 if every run is finished, else 1.

    It may be killed at any moment and started again: finished runs stay, unfinished ones are resumed. A script that
    calls this needs ``if __name__ == "__main__":``, as with everything that starts processes by ``multiprocessing``.

    Args:
        target: an ablation file, or a recipe with ``grid`` and ``seeds``.
        grid: ``path=value,value,...``, one an axis; ``path,path=(value, value),...`` for paths that move together.
        seeds: number of seeds of every cell, from 0.
        baseline: ``path=value`` of the cells that others are compared with.
        others: more base recipes, beside a recipe as target.
        name: of the results folder (default: the recipe's name); an ablation file has its own.
        overrides: ``path=value`` changes of all runs.
        jobs: runs at a time; ``"auto"`` for as many as cores and, on a GPU, its memory allow.
        threads: threads of each run (default: the cores shared out among ``jobs``; on Slurm what the node gives).
        executor: ``local``, which is ``warm`` on a GPU and ``fork`` without one, ``slurm`` or ``debug``.
        slurm: ``key=value`` parameters of Slurm jobs, by submitit's names.
        timeout: minutes after which a run on this machine is ended; it has failed then.
        retry_failed: also try the runs again that failed before.
        dry_run: print what there is to do; run and write nothing.
        tables: write the plan and rebuild the tables from the records that are there; run nothing.
        until_decided: add seeds to the cells of tests that are not decided, up to so many, with the claim judged only
            at looks that the plan has from then on.
        out: folder of run directories.
        results: folder of ``<name>/runs.jsonl``, ``README.md`` and ``table.csv``.

    Raises:
        RecipeError: a cell or option is wrong; nothing has been started then.
        RunError: results cannot be written, or another ``ablate`` writes them; nothing has been started then.
        KeyboardInterrupt: at SIGINT or SIGTERM, after the local runs under way were ended and tables were written.
    """
    out, results = Path(out), Path(results)
    check_options(executor, jobs=jobs, threads=threads, slurm=slurm, timeout=timeout)
    ablation = plan(Path(target), grid, seeds, overrides, baseline=baseline, others=others, name=name)
    execute = choose_executor(
        executor, jobs=jobs, threads=threads, slurm=slurm, out=out, ablation=ablation.name, timeout=timeout
    )
    folder = results / ablation.name
    asked = ablation.seeds
    ablation = with_looks(ablation, Records(folder / "runs.jsonl"), until_decided, seeds)
    targets = [Path(target), *others]
    typed = command_line(targets, grid, seeds, baseline, name, overrides, results, ablation.looks)
    if dry_run:
        print("\n".join(preview(ablation, Records(folder / "runs.jsonl"))))
        return 0
    check_writable(folder, "--results")
    if tables:
        ablation = _as_recorded(ablation, Records(folder / "runs.jsonl"))
    with locked(folder / ".lock", f"{folder}: this results folder"):
        from sslcollapse.core.files import remove_temporaries  # imports torch

        remove_temporaries(folder)
        driver = _Driver(ablation, folder, out, asked, live=executor != "debug")
        write_plan(folder, ablation, typed)
        try:
            with _interruptible():
                parallel = jobs if isinstance(jobs, int) else 1
                for look in [] if tables else ablation.looks if until_decided else [asked]:
                    cells = driver.waiting_for(look) if until_decided else ablation.cells
                    if cells and not driver.run(execute, parallel, cells, look, retry_failed=retry_failed):
                        break
        except KeyboardInterrupt:
            driver.say_how_to_go_on(executor)
            raise
        finally:
            driver.write_tables(typed)
        code = driver.conclude()
        return 0 if tables else code


class _Driver:
    """One ablation's runs, records and failures; ``jobs`` are those of the newest look, all where there is one."""

    def __init__(self, ablation: Ablation, folder: Path, out: Path, seeds: int, *, live: bool) -> None:
        self.ablation = ablation
        self.folder = folder
        self.out = out
        self.records = Records(folder / "runs.jsonl")
        self.failures = Failures(folder / "failures.json")
        self.jobs = list(_jobs(ablation, ablation.cells, seeds, out))
        shown = self.records.of(ablation.cells, ablation.seeds)
        self.progress = Progress(Durations(shown), live=live)

    def waiting_for(self, look: int) -> list[Cell]:
        """The cells of tests that nothing before this look has decided."""
        results = judge(self.ablation, self.records).results
        last = self.ablation.looks[-1]
        tests = [result.test for result in results if not result.ended(last) and (result.look or 0) < look]
        wanted = {cell.hash for test in tests for cell in test.every}
        return [cell for cell in self.ablation.cells if cell.hash in wanted]

    def run(self, execute: Any, parallel: int, cells: Sequence[Cell], seeds: int, *, retry_failed: bool) -> bool:
        """Run what is neither finished nor, unless ``retry_failed``, known to fail; whether all is recorded then."""
        self.jobs = list(_jobs(self.ablation, cells, seeds, self.out))
        waiting = [job for job in self.jobs if not self._is_finished(job)]
        skipped = [job for job in waiting if job in self.failures and (job.finished or not retry_failed)]
        passed = set(skipped)
        waiting = [job for job in waiting if job not in passed]
        failed = f", {len(skipped)} failed before" if skipped else ""
        self.progress.print(
            f"{self.ablation.name}: {len(self.jobs)} runs, {self.done} finished{failed}, {len(waiting)} to do"
        )
        for line in aside_lines(self.ablation, self.records):
            self.progress.print(line)
        for job in skipped:
            self.progress.print(f"skipped   {job.name}: {self.failures.error(job)}")
        if waiting:
            check_writable(self.out, "--out")
        self.progress.start(len(self.jobs), self.done, waiting, parallel)
        try:
            execute(waiting, self)
        finally:
            self.progress.stop()
        return self.done == len(self.jobs)

    @property
    def done(self) -> int:
        """Runs that are recorded."""
        return sum(self.records.find(job.cell, job.seed) is not None for job in self.jobs)

    def started(self, job: Job) -> None:
        """Show that a run has begun."""
        self.progress.started(job)

    def ended(self, job: Job, error: str | None, seconds: float) -> None:
        """Record a run or its failure, then show it."""
        if error is None:
            try:
                self._record(job)
            except DamagedRunError as damage:
                error = str(damage)
        if error is not None:
            self.failures.add(job, error)
        self.progress.ended(job, error, seconds)

    def stopped(self, job: Job) -> None:
        """Show that a run was stopped; it is neither finished nor failed."""
        self.progress.stopped(job)

    def note(self, text: str) -> None:
        """Show it."""
        self.progress.print(text)

    def tick(self) -> None:
        """Let the time left be shown again."""
        self.progress.tick()

    def _is_finished(self, job: Job) -> bool:
        """Whether the run is recorded, or has its result and is recorded now."""
        record = self.records.find(job.cell, job.seed)
        recorded = record is not None
        if record is not None and "baselines" not in record and job.complete:
            with suppress(DamagedRunError):  # ``evaluate`` may have added them to the run since
                made = make_record(job.cell, list(self.ablation.settings), job.path)
                if "baselines" in made:
                    self.records.add(made)
        if not recorded and job.complete:
            try:
                self._record(job)
            except DamagedRunError as damage:  # of this run alone; the others go on
                self.failures.add(job, str(damage))
                return False
            return True
        if recorded:
            self.failures.discard(job)  # it failed here and was made elsewhere
        return recorded

    def _record(self, job: Job) -> None:
        self.records.add(make_record(job.cell, list(self.ablation.settings), job.path))
        self.failures.discard(job)

    def write_tables(self, command: str) -> None:
        """Rebuild the page and the tables from the records."""
        if self.ablation.looks:
            self.ablation = grown(self.ablation, self.records)
            write_plan(self.folder, self.ablation, command)
        if not len(self.records) and not len(self.failures):
            return
        failed = {job.name: self.failures.error(job) for job in self.jobs if job in self.failures}
        write_files(self.folder, self.ablation, self.records, failed, command)

    def say_how_to_go_on(self, executor: str) -> None:
        """What an interrupted user may want to know."""
        done = f"{self.done}/{len(self.jobs)} runs finished"
        if executor == "slurm":
            name = self.ablation.name
            self.progress.print(
                f"{done}; queued jobs go on, and the same command watches them; scancel --name={name} ends them"
            )
        else:
            self.progress.print(f"{done}; the same command goes on from here")

    def conclude(self) -> int:
        """Show the first table, what validation chooses for each base recipe, and where the page is; the exit code."""
        say = self.progress.print
        shown = self.records.of(self.ablation.cells, self.ablation.seeds)
        every = columns(self.ablation, shown)
        first = [column for column in every if column.section == every[0].section]
        say("\n".join(results_table(self.ablation, self.records, first)))
        for base in dict.fromkeys(cell.base for cell in self.ablation.cells):
            cells = {cell.hash: cell for cell in self.ablation.cells if cell.base == base}
            own = [record for record in shown if record["hash"] in cells]
            for probe in {probe: None for record in own for probe in record["evaluation"]}:
                best = best_by_validation(own, probe)
                if best is not None and len(cells) > 1:
                    chosen_cell = f"{cells[best.record['hash']].name} ({100 * best.mean:.2f}, n = {best.n})"
                    say(f"best by validation, {probe}: {chosen_cell}")
        if self.ablation.claim is not None:
            verdict = judge(self.ablation, self.records)
            say("\n".join(needs_lines(self.ablation, self.records, verdict)))
            say(f"claim {verdict.claim.number}: {verdict.claim.statement} {verdict.text.capitalize()}: {verdict.tally}")
            if verdict.looks and verdict.interim:
                reached = max((result.look or 0 for result in verdict.results), default=0)
                ahead = ", ".join(str(look) for look in verdict.looks if look > reached)
                say(f"looks still planned: {ahead} seeds; --until-decided {verdict.looks[-1]} goes on")
        say(f"{self.done}/{len(self.jobs)} runs finished: {self.folder / 'README.md'}")
        failed = [job for job in self.jobs if job in self.failures]
        if failed:
            say(f"{len(failed)} failed ({self.failures.path}); the same command with --retry-failed tries them again")
        return 0 if self.done == len(self.jobs) else 1


def _jobs(ablation: Ablation, cells: Sequence[Cell], seeds: int, out: Path) -> Iterator[Job]:
    """Seed by seed, so that an interrupted ablation has all cells with fewer seeds."""
    from sslcollapse.runs.directory import RunDirectory  # imports torch, so mistakes in a grid are reported before it

    for seed in range(seeds):
        for cell in cells:
            values = [f"{path}={value!r}" for path, value in cell.values.items()]
            command = ["sslcollapse", "train", str(cell.source), *ablation.settings, *values, f"seed={seed}"]
            run = RunDirectory.of(cell.with_seed(seed), out, cell.hash)
            yield Job(cell, seed, run.path, out, [*command, "--out", str(out)])


def _as_recorded(ablation: Ablation, records: Records) -> Ablation:
    """The plan with the version of the random streams that most of its records have: for tables nothing is drawn."""
    from sslcollapse.runs.directory import of_most

    depending = {cell.hash for cell in ablation.cells if cell.streams is not None}
    version = of_most(record for record in records if record["hash"] in depending)
    cells = [replace(cell, streams=version) if cell.hash in depending else cell for cell in ablation.cells]
    return replace(ablation, cells=cells)


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


def preview(ablation: Ablation, records: Records) -> list[str]:
    """Lines: a table of the cells with the seeds that are recorded, the number of runs, and what the claim tests."""
    titles = heads(ablation)
    done = {cell.hash: len(records.of([cell], ablation.seeds)) for cell in ablation.cells}
    rows = [[*labels(cell, titles), f"{done[cell.hash]} of {ablation.seeds}", cell.hash] for cell in ablation.cells]
    total, finished = len(ablation.cells) * ablation.seeds, sum(done.values())
    lines = markdown([*titles.values(), "seeds", "hash"], rows)
    lines.append(f"{ablation.name}: {total} runs, {finished} finished, {total - finished} to do")
    lines += aside_lines(ablation, records)
    if ablation.claim is not None:
        for check in ablation.claim.checks:
            count = sum(test.check is check for test in ablation.tests)
            lines.append(f"claim {ablation.claim.number}, {check.name}: {count} test{'s' if count > 1 else ''}")
        if ablation.looks:
            lines.append(f"looks are planned at {', '.join(map(str, ablation.looks))} seeds")
        lines += needs_lines(ablation, records, judge(ablation, records))
    return lines


def aside_lines(ablation: Ablation, records: Records) -> list[str]:
    """A line for each reason why recorded runs of the cells' hashes do not count."""
    return [
        f"set aside {count} recorded run{'s' if count > 1 else ''} of the same hash: {why}"
        for why, count in records.set_aside(ablation.cells, ablation.seeds).items()
    ]
