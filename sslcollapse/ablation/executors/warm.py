"""Warm workers: processes that make run after run, and hold what a run would else begin with anew.

On a GPU that is its context, its kernels and libraries; everywhere it is what was imported, and the data. A run that
crashes, or leaves memory behind, costs the worker that made it, and no other run.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path
from typing import Any, NamedTuple

from sslcollapse.ablation.executors.local import (
    attempt,
    environment,
    server_context,
    settle,
    share_of_threads,
    use_threads,
    visible_devices,
)
from sslcollapse.ablation.executors.slots import REFUSED, Attempt, run_on
from sslcollapse.ablation.job import Job, JobWatch
from sslcollapse.core.errors import PreemptedError, in_units

AUTO = "auto"
"""As a number of jobs: as many as memory and cores allow."""

HOST_GROWTH, DEVICE_GROWTH = 1 << 30, 256 << 20
"""Bytes that a worker may hold more than after its first run; with more it is replaced."""
MORE_FILES, MORE_THREADS = 64, 16
"""Likewise open files and threads."""

CONTEXT = (512 << 20, 1536 << 20)
"""Least and most that a process is taken to need on a GPU beside its tensors: its context and kernels."""
LEAST_RUN = 64 << 20
USED = 0.9
"""Share of a GPU's memory that is given out to runs."""
LEAVING_SECONDS = 10.0


class Memory(NamedTuple):
    """Bytes of the GPU that a worker has, after a run.

    Attributes:
        free: of the whole device.
        total: likewise.
        reserved: by the worker's allocator, now.
        peak: the most that it had reserved during the run.
    """

    free: int
    total: int
    reserved: int
    peak: int


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
        for beyond in [number for number in self._slots if number >= self._parallel]:
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
        self._alone = self._alone or answer.memory
        self._peak = max(self._peak, answer.memory.peak)
        each = runs_that_fit(self._alone, self._peak)
        self._parallel = max(1, min(each * max(1, len(self._devices)), share_of_threads(self._threads)))
        if self._parallel != before:
            self._note(
                f"{self._parallel} runs at a time: one has taken {in_units(self._peak)} of a GPU with "
                f"{in_units(self._alone.total)}"
            )


def runs_that_fit(alone: Memory, peak: int) -> int:
    """How many runs a GPU has memory for, each with a context of its own; at least 1.

    Args:
        alone: measured after a run that had the device for itself.
        peak: the most that a run has reserved.
    """
    least, most = CONTEXT
    context = min(max(alone.total - alone.free - alone.reserved, least), most)
    room = int(USED * (alone.free + alone.reserved)) - peak  # the first run and its context have theirs
    return 1 + max(0, room // (peak + context))


def on_gpu() -> bool:
    """Whether runs of this machine take place on a GPU."""
    import torch

    return torch.cuda.is_available()


class _Worker:
    """A process that is sent runs and answers.

    Attributes:
        made: runs that it was given.
        spent: whether it can be given no more.
    """

    def __init__(
        self, context: Any, threads: int, variables: dict[str, str], stderr: Path, deterministic: bool
    ) -> None:
        self.stderr, self.deterministic, self.made, self.ends = stderr, deterministic, 0, ""
        self.channel, theirs = context.Pipe()
        growth = HOST_GROWTH, DEVICE_GROWTH
        self.process = context.Process(target=_serve, args=(theirs, threads, variables, str(stderr), growth))
        self.process.start()
        theirs.close()

    @property
    def spent(self) -> bool:
        return bool(self.ends) or self.process.exitcode is not None

    def give(self, job: Job) -> None:
        self.made += 1
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
                    self._worker.ends = self._answer.ends
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
        memory, held = _memory(), _held()
        first = first or held
        ends = _why_it_ends(code, first, held, growth)
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


def _memory() -> Memory | None:
    """Of the GPU, before its cache is given back and the next run's peak is counted; None without one."""
    import torch

    if not torch.cuda.is_initialized():
        return None
    try:
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        memory = Memory(free, total, torch.cuda.memory_reserved(), torch.cuda.max_memory_reserved())
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    except RuntimeError:  # the context is broken; the run has failed then, and this process ends
        return None
    return memory


def _held() -> dict[str, int]:
    """What this process has, as far as the system says it."""
    import torch

    held = {"host": _resident(), "files": 0, "threads": threading.active_count(), "device": 0}
    if torch.cuda.is_initialized():
        held["device"] = torch.cuda.memory_allocated()
    with suppress(OSError):
        held["files"] = len(os.listdir("/proc/self/fd"))
    return held


def _resident() -> int:
    """Bytes of memory that this process has, 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _why_it_ends(code: int, first: dict[str, int], held: dict[str, int], growth: tuple[int, int]) -> str:
    """Why this process is not to make another run; "" if it can."""
    if code:
        return f"its run ended with code {code}"
    more = {name: held[name] - first[name] for name in held}
    if more["host"] > growth[0]:
        return f"it holds {in_units(more['host'])} more memory than after its first run"
    if more["device"] > growth[1]:
        return f"it holds {in_units(more['device'])} more memory of the GPU than after its first run"
    if more["files"] > MORE_FILES:
        return f"{more['files']} more files are open than after its first run"
    if more["threads"] > MORE_THREADS:
        return f"{more['threads']} more threads are running than after its first run"
    return "a run has left a process behind" if active_children() else ""
