"""Runs as processes of this machine, several at a time, its cores and GPUs shared out among them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from sslcollapse.ablation.grid import Cell

WORKER = (sys.executable, "-m", "sslcollapse.ablation.worker")
POLL_SECONDS = 0.05
GRACE_SECONDS = 5.0


@dataclass(frozen=True)
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

    def message(self) -> bytes:
        """What the worker reads: an unfinished run is continued if it has a checkpoint, else made again."""
        resume = any((self.path / "checkpoints").glob("step*.pt"))
        job = {
            "source": str(self.cell.source),
            "recipe": self.cell.with_seed(self.seed),
            "out": str(self.out),
            "resume": resume,
            "overwrite": not resume and self.path.exists(),
            "command": self.command,
        }
        return (json.dumps(job) + "\n").encode()


def run_locally(
    jobs: Iterable[Job],
    parallel: int,
    started: Callable[[Job], None],
    ended: Callable[[Job, str | None, float], None],
) -> None:
    """Make all runs, at most ``parallel`` at a time; when interrupted, end those that are under way.

    Args:
        jobs: what to run, in this order.
        parallel: number of processes.
        started: called at the start of a run.
        ended: called at its end with the error (None if it went well) and its seconds.
    """
    waiting, devices = list(jobs), _devices()
    running: dict[int, _Process] = {}
    try:
        while waiting or running:
            for slot in range(parallel):
                if waiting and slot not in running:
                    job = waiting.pop(0)
                    started(job)
                    running[slot] = _Process(job, _environment(slot, parallel, devices))
            time.sleep(POLL_SECONDS)
            for slot, process in list(running.items()):
                if process.done():
                    del running[slot]
                    ended(process.job, process.error(), process.seconds)
    finally:
        _stop(list(running.values()))


class _Process:
    """One worker; what it prints is in the run's ``train.log`` already, its errors are added at the end."""

    def __init__(self, job: Job, environment: dict[str, str]) -> None:
        self.job = job
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker has ended
        self._began = time.monotonic()
        message = job.message()
        # Apart from the terminal's process group: Ctrl-C reaches the parent alone, which then ends this one.
        self._process = subprocess.Popen(
            WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            env=environment,
            start_new_session=True,
        )
        self._stdin = cast(IO[bytes], self._process.stdin)
        with suppress(BrokenPipeError):  # it died at once; its error says why
            self._stdin.write(message)
            self._stdin.flush()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def done(self) -> bool:
        return self._process.poll() is not None

    def error(self) -> str | None:
        """None if the run has its result, else the last line of its errors, all of which go to its log."""
        self._stderr.seek(0)
        text = self._stderr.read().decode(errors="replace")
        self._close()
        if text.strip():
            self.job.path.mkdir(parents=True, exist_ok=True)
            with open(self.job.path / "train.log", "a", encoding="utf-8") as log:
                log.write(text)
        code = self._process.returncode
        if code == 0 and (self.job.path / "result.json").exists():
            return None
        if code == -signal.SIGKILL:
            return "killed by the system, which may have run out of memory; try fewer --jobs"
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else f"no result and no message, exit code {code}"

    def terminate(self) -> None:
        self._process.terminate()

    def kill_after(self, seconds: float) -> None:
        try:
            self._process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        with suppress(BrokenPipeError):
            self._stdin.close()
        self._stderr.close()


def _stop(processes: list[_Process]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.kill_after(deadline - time.monotonic())


def _environment(slot: int, parallel: int, devices: list[str]) -> dict[str, str]:
    """This process's, with a fair share of threads, and one of several GPUs in turn."""
    package_parent = str(Path(__file__).resolve().parents[2])
    search = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = str(max(1, _cores() // parallel))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(search),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }
    if len(devices) > 1:
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return environment


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device.strip() for device in visible.split(",") if device.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
