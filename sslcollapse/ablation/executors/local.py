"""Processes of this machine, and one run, wherever an executor makes it."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

from sslcollapse.ablation.job import Job, JobWatch, last_line
from sslcollapse.core.errors import PreemptedError, RunError, SSLCollapseError
from sslcollapse.core.files import PACKAGE, InUseError, run_lock
from sslcollapse.runs.quantities import is_cut_short

PRELOAD = (
    "sslcollapse.training.trainer",
    "sslcollapse.domains.graph.domain",
    "sslcollapse.domains.vision.domain",
    "torch._dynamo",
    "scipy.stats",
)
"""What every run imports sooner or later and what starts no thread (scikit-learn may, through pyarrow)."""

REFUSED = 3
"""Exit code of a run that ended with an error meant for people, which is in its log already."""

STOPPED = (PreemptedError.EXIT_CODE, -signal.SIGTERM, -signal.SIGUSR1, -signal.SIGUSR2)
"""Exit codes of a run that a signal asked to stop: it has not failed. The others are of before it could answer."""

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0
"""How long a run may take for the step in hand and a checkpoint, when the ablation is interrupted."""


def run_locally(jobs: Sequence[Job], watch: JobWatch, *, parallel: int, threads: int | None = None) -> None:
    """Make all runs, at most ``parallel`` at a time; when interrupted, end those that are under way.

    Args:
        jobs: what to run, in this order.
        watch: is told when runs start and end.
        parallel: number of processes.
        threads: threads of each run (default: a fair share of the cores).
    """
    if not jobs:
        return
    threads = share_of_threads(parallel) if threads is None else threads
    waiting, devices = deque(jobs), visible_devices()
    running: dict[int, _Process] = {}
    context, errors = _context(), tempfile.TemporaryDirectory()
    try:
        while waiting or running:
            for slot in range(parallel):
                if waiting and slot not in running:
                    job, stderr = waiting.popleft(), Path(errors.name) / f"{slot}"
                    running[slot] = _Process(context, job, threads, environment(slot, devices), stderr)
                    watch.started(running[slot].job)
            connection.wait([process.sentinel for process in running.values()], POLL_SECONDS)
            for slot, process in list(running.items()):
                if process.done():
                    del running[slot]
                    if process.stopped:
                        watch.stopped(process.job)
                        continue
                    watch.ended(process.job, process.error(), process.seconds)
            watch.tick()
    finally:
        _stop(list(running.values()))
        errors.cleanup()


class _Process:
    """One worker; what it prints is in the run's ``train.log`` already, a traceback is added at the end."""

    def __init__(self, context: Any, job: Job, threads: int, variables: Mapping[str, str], stderr: Path) -> None:
        self.job = job
        self._stderr = stderr
        self._stderr.write_bytes(b"")
        arguments = (job.message(), threads, dict(variables), str(self._stderr))
        self._process = context.Process(target=_serve, args=arguments)
        self._process.start()
        self._began = time.monotonic()  # the first one has also waited for the fork server

    @property
    def sentinel(self) -> int:
        """Ready when the process has ended."""
        return self._process.sentinel

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def done(self) -> bool:
        return self._process.exitcode is not None

    @property
    def stopped(self) -> bool:
        """Whether it was asked to end, by somebody else than this ablation, before it had its result."""
        return self._process.exitcode in STOPPED and not self.job.complete

    def error(self) -> str | None:
        """None if the run has its result, else the last line of its errors, all of which go to its log."""
        text = self._stderr.read_text(encoding="utf-8", errors="replace")
        code = self._process.exitcode
        if code != REFUSED:
            add_to_log(self.job.path, text)
        if self.job.finished:  # however its process ended after that
            return None
        if code == -signal.SIGKILL:
            return "killed by the system, which may have run out of memory; try fewer --jobs"
        return last_line(text) or f"no result and no message, exit code {code}"

    def terminate(self) -> None:
        self._process.terminate()

    def kill_after(self, seconds: float) -> None:
        self._process.join(max(seconds, 0.0))
        if not self.done():
            self._process.kill()
            self._process.join()


def _serve(message: dict[str, Any], threads: int, variables: dict[str, str], stderr: str) -> None:
    """In the new process: take the parent's environment, leave its terminal, then work."""
    os.setsid()  # apart from the terminal's process group: Ctrl-C reaches the parent alone, which then ends this one
    os.environ.clear()
    os.environ.update(variables)
    use_threads(threads)
    for target, place in ((1, os.devnull), (2, stderr)):
        descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(descriptor, target)
        os.close(descriptor)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        error = attempt(message)
    except PreemptedError as stopped:
        sys.exit(stopped.EXIT_CODE)
    if error is not None:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)


def _end_with_parent() -> None:
    """No run outlives an ablation that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _context() -> Any:
    """The fork server, started if it is not running, with one thread and this package on its path."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        raise RunError("--executor local forks processes, which this system cannot; use --executor debug")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    with variables({**dict.fromkeys(THREAD_VARIABLES, "1"), "PYTHONPATH": search_path()}):
        forkserver.ensure_running()
    return context


@contextmanager
def variables(changes: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that what is started inside inherits."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _stop(processes: list[_Process]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.kill_after(deadline - time.monotonic())


def environment(slot: int, devices: Sequence[str]) -> dict[str, str]:
    """This process's environment, with one of several GPUs in turn."""
    variables = {**os.environ, "PYTHONPATH": search_path()}
    if len(devices) > 1:
        variables["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return variables


def search_path() -> str:
    """``PYTHONPATH`` with this package, so that a clone needs no installation."""
    here = str(PACKAGE.parent)
    rest = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != here]
    return os.pathsep.join([here, *rest])


def share_of_threads(parallel: int) -> int:
    """Cores this process may use, divided by the number of runs at a time; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // parallel)


def visible_devices() -> list[str]:
    """The GPUs this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device.strip() for device in visible.split(",") if device.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LOCK_SECONDS = 5.0
"""How long the worker of an ablation that was killed may take to end after it."""


def work(message: Mapping[str, Any]) -> None:
    """Make the run that a ``Job.message`` describes: go on from its checkpoint if it has one, else from its beginning.

    What to do is decided here and not when the run was queued, because a queued run may start late, be preempted,
    or be finished by somebody else meanwhile. A finished run is left as it is;
    one of the same hash that was made with other defaults or other random streams is moved aside.

    Raises:
        InUseError: another process is making the same run.
        PreemptedError: a signal stopped it; it can be gone on with.
    """
    run = Path(message["path"])
    with run_lock(run, LOCK_SECONDS):
        if (run / "recipe.json").exists():
            from sslcollapse.runs.directory import made_otherwise

            if made_otherwise(run, message["recipe"]):
                _move_aside(run)
        if (run / "result.json").exists() and not is_cut_short(run):
            return
        from sslcollapse.recipe import load
        from sslcollapse.training.trainer import train

        load(message["source"])  # may register components; the recipe itself is the one resolved by the parent
        train(
            message["recipe"],
            out=Path(message["out"]),
            resume=run.exists(),
            command=message["command"],
            lock=False,
        )


def _move_aside(run: Path) -> None:
    """Give another run of the same hash a folder of its own: this one is wanted, and that run is not to be lost."""
    from sslcollapse.recipe import digest, from_json, learnt

    made = digest(learnt(from_json((run / "recipe.json").read_text(encoding="utf-8"))))
    names = itertools.chain([f"{run.name}-{made}"], (f"{run.name}-{made}-{k}" for k in itertools.count(2)))
    run.rename(next(path for path in map(run.with_name, names) if not path.exists()))


def attempt(message: Mapping[str, Any]) -> str | None:
    """``work``, with an error meant for people returned as one line and kept in the run's log; others are raised.

    So is PreemptedError, since a run that was stopped has not failed.
    """
    try:
        work(message)
    except PreemptedError:
        raise
    except SSLCollapseError as error:
        text = " ".join(str(error).split())
        if not isinstance(error, InUseError):  # the log is somebody else's then
            add_to_log(Path(message["path"]), text)
        return text
    return None


def add_to_log(run: Path, text: str) -> None:
    """Append to ``train.log`` what a run left beside it, such as a traceback."""
    if text.strip():
        run.mkdir(parents=True, exist_ok=True)
        with open(run / "train.log", "a", encoding="utf-8") as log:
            log.write(text if text.endswith("\n") else text + "\n")


def use_threads(threads: int) -> None:
    """Let this process compute with so many threads, whether libraries are loaded already or later."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    torch = sys.modules.get("torch")
    if torch is not None:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
        torch.set_num_threads(threads)
