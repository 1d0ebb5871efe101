"""Slots that runs are made in, several at a time, whatever kind of process is behind them."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any, Protocol

from sslcollapse.ablation.job import Job, JobWatch, last_line
from sslcollapse.core.errors import PreemptedError

REFUSED = 3
"""Exit code of a run that ended with an error meant for people, which is in its log already."""

STOPPED = (PreemptedError.EXIT_CODE, -signal.SIGTERM, -signal.SIGUSR1, -signal.SIGUSR2)
"""Exit codes of a run that a signal asked to stop: it has not failed. The others are of before it could answer."""

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0
"""How long a run may take for the step in hand and a checkpoint, when the ablation is interrupted."""


class Crew(Protocol):
    """Processes that runs are given to, in numbered slots."""

    def slots(self) -> int:
        """How many runs there may be at a time, now."""

    def start(self, slot: int, job: Job) -> Attempt:
        """Give a run to a free slot."""

    def close(self) -> None:
        """End what is left, when no run is under way any more."""


def run_on(crew: Crew, jobs: Sequence[Job], watch: JobWatch, timeout: float | None = None) -> None:
    """Give all runs to a crew, in order; when interrupted, end those that are under way.

    A run that fails in a process that had made another one is tried once more, in a new process.
    """
    waiting, running = deque(jobs), dict[int, Attempt]()
    again: set[str] = set()
    try:
        while waiting or running:
            for slot in range(crew.slots()):
                if waiting and slot not in running:
                    job = waiting.popleft()
                    running[slot] = crew.start(slot, job)
                    if job.key not in again:
                        watch.started(job)
            connection.wait([sentinel for attempt in running.values() for sentinel in attempt.sentinels], POLL_SECONDS)
            for slot, attempt in list(running.items()):
                attempt.limit(timeout)
                if not attempt.done():
                    continue
                del running[slot]
                if attempt.stopped:
                    watch.stopped(attempt.job)
                elif (error := attempt.error()) is not None and attempt.used and attempt.job.key not in again:
                    again.add(attempt.job.key)
                    waiting.appendleft(attempt.job)
                else:
                    watch.ended(attempt.job, error, attempt.seconds)
            watch.tick()
    finally:
        _stop(list(running.values()))
        crew.close()


class Attempt:
    """One run in a process; what it prints is in the run's ``train.log`` already, a traceback is added at the end.

    Args:
        job: the run.
        process: where it is made.
        stderr: file of what the process writes to its standard error.

    Attributes:
        used: whether the process had made another run before.
    """

    used = False

    def __init__(self, job: Job, process: Any, stderr: Path) -> None:
        self.job = job
        self._process, self._stderr = process, stderr
        self._began = time.monotonic()  # the first one has also waited for the fork server
        self._late, self._deadline = "", float("inf")

    @property
    def sentinels(self) -> list[Any]:
        """One of them is ready when the run has ended."""
        return [self._process.sentinel]

    @property
    def seconds(self) -> float:
        """Since it was given to the process."""
        return time.monotonic() - self._began

    @property
    def code(self) -> int | None:
        """Exit code of the run; None before it has ended."""
        code: int | None = self._process.exitcode
        return code

    def done(self) -> bool:
        """Whether it has ended."""
        return self.code is not None

    @property
    def stopped(self) -> bool:
        """Whether it was asked to end, by somebody else than this ablation, before it had its result."""
        return self.code in STOPPED and not self._late and not self.job.complete

    def error(self) -> str | None:
        """None if the run has its result, else the last line of its errors, all of which go to its log."""
        text = self._stderr.read_text(encoding="utf-8", errors="replace")
        code = self.code
        if code != REFUSED:
            add_to_log(self.job.path, text)
        if self.job.finished:  # however its process ended after that
            return None
        if self._late:
            add_to_log(self.job.path, self._late)
            return self._late
        if code == -signal.SIGKILL:
            return "killed by the system, which may have run out of memory; try fewer --jobs"
        return last_line(text) or f"no result and no message, exit code {code}"

    def limit(self, seconds: float | None) -> None:
        """Ask it to end once it has taken so long, and kill it if it does not."""
        if seconds is None or self.seconds < seconds or self.done():
            return
        if not self._late:
            self._late = f"took longer than the {seconds / 60:g} minutes of --timeout; --retry-failed goes on with it"
            self._deadline = time.monotonic() + GRACE_SECONDS
            self.terminate()
        elif time.monotonic() > self._deadline:
            self._process.kill()

    def terminate(self) -> None:
        """Ask it to save and to end."""
        self._process.terminate()

    def kill_after(self, seconds: float) -> None:
        """Wait so long for the process to end, then kill it."""
        self._process.join(max(seconds, 0.0))
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()


def _stop(processes: list[Attempt]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.kill_after(deadline - time.monotonic())


def add_to_log(run: Path, text: str) -> None:
    """Append to ``train.log`` what a run left beside it, such as a traceback."""
    if text.strip():
        run.mkdir(parents=True, exist_ok=True)
        with open(run / "train.log", "a", encoding="utf-8") as log:
            log.write(text if text.endswith("\n") else text + "\n")
