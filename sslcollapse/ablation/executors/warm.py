"""Warm workers: processes that make run after run, and hold what a run would else begin with anew.

On a GPU that is its context, its kernels and libraries; everywhere it is what was imported, and the data. A run that
crashes, or leaves memory behind, costs the worker that made it, and no other run.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from sslcollapse.ablation.executors import room
from sslcollapse.ablation.executors.local import (
    attempt,
    environment,
    server_context,
    settle,
    share_of_threads,
    use_threads,
    visible_devices,
)
from sslcollapse.ablation.executors.room import LEAST_RUN, Memory, held, memory_of_gpu, runs_that_fit, why_it_ends
from sslcollapse.ablation.executors.slots import REFUSED, Attempt, run_on
from sslcollapse.ablation.job import Job, JobWatch
from sslcollapse.core.errors import PreemptedError, in_units

AUTO = "auto"
"""As a number of jobs: as many as memory and cores allow."""

LEAVING_SECONDS = 10.0


class Answer(NamedTuple):
    """What a worker says of a run that has ended.

    Attributes:
        code: what would be the exit code of a process for this run alone.
        ends: why the worker makes no other run; "" if it can.
        memory: of its GPU; None without one.
    """

    code: int
    ends: str
    memory: Memory | None


def run_warm(
    jobs: Sequence[Job],
    watch: JobWatch,
    *,
    parallel: int | None,
    threads: int | None = None,
    timeout: float | None = None,
) -> None:
    """Make all runs in processes that make one after the other.

    Args:
        jobs: what to run, in this order.
        watch: is told when runs start and end.
        parallel: number of processes; None for as many as the first run shows that there is memory for.
        threads: threads of each run (default: a fair share of the cores; of ``parallel=None`` one).
        timeout: seconds after which a run is ended; it has failed then.
    """
    if jobs:
        run_on(Workers(parallel, threads, watch.note), jobs, watch, timeout)


class Workers:
    """A process a slot, which is replaced when it has died, or is no longer as it should be.

    Args:
        parallel: number of slots, or None.
        threads: of each run, or None.
        note: is told what a user may want to know.
    """

    def __init__(self, parallel: int | None, threads: int | None, note: Callable[[str], None]) -> None:
        self._devices, self._note = visible_devices(), note
        self._threads = threads or (1 if parallel is None else share_of_threads(parallel))
        self._parallel, self._auto = parallel or max(1, len(self._devices)), parallel is None
        if self._auto and not on_gpu():
            self._parallel, self._auto = share_of_threads(self._threads), False
        self._context, self._errors = server_context(), tempfile.TemporaryDirectory()
        self._slots: dict[int, _Worker] = {}
        self._leaving: list[_Worker] = []
        self._alone: Memory | None = None  # of the first run, which had its GPU for itself
        self._peak = LEAST_RUN

    def slots(self) -> int:
        """As many as were asked for; or one a GPU until a run has ended, and then what there is memory for."""
        return self._parallel

    def start(self, slot: int, job: Job) -> Attempt:
        """Give the run to the slot's worker, or to a new one."""
        for beyond in [number for number, each in self._slots.items() if number >= self._parallel and not each.busy]:
            self._dismiss(beyond)
        deterministic = bool(job.cell.recipe["train"]["deterministic"])
        worker = self._slots.get(slot)
        # What cuBLAS was first told about determinism holds for a process.
        if worker is not None and (worker.spent or worker.deterministic != deterministic):
            self._dismiss(slot)
        if slot not in self._slots:
            stderr = Path(self._errors.name) / f"{slot}"
            stderr.write_bytes(b"")
            variables = environment(slot, self._devices)
            self._slots[slot] = _Worker(self._context, self._threads, variables, stderr, deterministic)
        return WarmAttempt(job, self._slots[slot], self._heard)

    def close(self) -> None:
        """Let all workers end."""
        for slot in list(self._slots):
            self._dismiss(slot)
        for worker in self._leaving:
            worker.end()
        self._errors.cleanup()

    def _dismiss(self, slot: int) -> None:
        worker = self._slots.pop(slot)
        worker.channel.close()
        self._leaving = [each for each in self._leaving if each.process.exitcode is None]
        self._leaving.append(worker)

    def _heard(self, answer: Answer) -> None:
        """Take to heart what a worker says of itself."""
        if answer.ends and not answer.code:
            self._note(f"a worker is replaced: {answer.ends}")
        if not self._auto or answer.memory is None:
            return
        before = self._parallel
        if answer.code and self._alone is None:  # it may have ended long before it had what it needs
            return
        self._alone = self._alone or answer.memory
        self._peak = max(self._peak, answer.memory.peak)
        each = runs_that_fit(self._alone, self._peak)
        self._parallel = max(1, min(each * max(1, len(self._devices)), share_of_threads(self._threads)))
        if self._parallel != before:
            self._note(
                f"{self._parallel} runs at a time: one has taken {in_units(self._peak)} of a GPU with "
                f"{in_units(self._alone.total)}"
            )


def on_gpu() -> bool:
    """Whether runs of this machine take place on a GPU."""
    import torch

    return torch.cuda.is_available()


class _Worker:
    """A process that is sent runs and answers.

    Attributes:
        made: runs that it was given.
        busy: whether it has not answered yet.
        spent: whether it can be given no more.
    """

    def __init__(
        self, context: Any, threads: int, variables: dict[str, str], stderr: Path, deterministic: bool
    ) -> None:
        self.stderr, self.deterministic, self.made, self.ends, self.busy = stderr, deterministic, 0, "", False
        self.channel, theirs = context.Pipe()
        growth = room.HOST_GROWTH, room.DEVICE_GROWTH
        self.process = context.Process(target=_serve, args=(theirs, threads, variables, str(stderr), growth))
        self.process.start()
        theirs.close()

    @property
    def spent(self) -> bool:
        return bool(self.ends) or self.process.exitcode is not None

    def give(self, job: Job) -> None:
        self.made, self.busy = self.made + 1, True
        self.stderr.write_bytes(b"")
        with suppress(OSError):  # it may just have ended, which the attempt will see
            self.channel.send(job.message())

    def end(self) -> None:
        self.process.join(LEAVING_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()


class WarmAttempt(Attempt):
    """A run in a worker, which has ended when the worker answers, or dies."""

    def __init__(self, job: Job, worker: _Worker, heard: Callable[[Answer], None]) -> None:
        super().__init__(job, worker.process, worker.stderr)
        self._worker, self._heard = worker, heard
        self._answer: Answer | None = None
        worker.give(job)

    @property
    def sentinels(self) -> list[Any]:
        """The worker's end, and its answer."""
        return [self._process.sentinel, self._worker.channel]

    @property
    def code(self) -> int | None:
        """Of the answer, else of a worker that has died without one."""
        ended: int | None = self._process.exitcode  # before the answer is looked for, which may have come just before
        if self._answer is None:
            try:
                if self._worker.channel.poll():
                    self._answer = self._worker.channel.recv()
                    self._worker.ends, self._worker.busy = self._answer.ends, False
                    self._heard(self._answer)
            except (EOFError, OSError):
                pass
        return ended if self._answer is None else self._answer.code

    @property
    def used(self) -> bool:  # type: ignore[override]
        """Whether the worker has answered, and had made another run before."""
        return self._answer is not None and not self._late and self._worker.made > 1


def _serve(channel: Any, threads: int, variables: dict[str, str], stderr: str, growth: tuple[int, int]) -> None:
    """In the new process: make runs until there are no more, or this process is not to make another one."""
    settle(threads, variables, stderr)
    from sslcollapse.ablation.executors.fresh import Beginning
    from sslcollapse.training.build import Datasets

    beginning, datasets = Beginning(), Datasets()
    first: dict[str, int] = {}
    while True:
        try:
            message = channel.recv()
        except EOFError:
            return
        with beginning:
            use_threads(threads)
            code = _code(message, datasets)
        memory, now = memory_of_gpu(), held()
        first = first or now
        ends = why_it_ends(code, first, now, growth)
        channel.send(Answer(code, ends, memory))
        if ends:
            return


def _code(message: dict[str, Any], datasets: Any) -> int:
    """Make a run; return what would be the exit code of a process for it alone, which errors are written as by."""
    try:
        error = attempt(message, datasets)
    except PreemptedError as stopped:
        return stopped.EXIT_CODE
    except SystemExit as left:
        if isinstance(left.code, int):
            return left.code
        error = left.code
        print(error or "", file=sys.__stderr__, flush=True)
        return 0 if error is None else 1
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        return 1
    if error is None:
        return 0
    print(error, file=sys.__stderr__, flush=True)
    return REFUSED
