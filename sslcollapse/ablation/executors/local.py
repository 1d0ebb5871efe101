"""Processes of this machine, and one run, wherever an executor makes it."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcollapse.ablation.executors.slots import REFUSED, Attempt, add_to_log, run_on
from sslcollapse.ablation.job import Job, JobWatch
from sslcollapse.core.errors import PreemptedError, RunError, SSLCollapseError
from sslcollapse.core.files import PACKAGE, InUseError, run_lock
from sslcollapse.runs.quantities import is_cut_short

if TYPE_CHECKING:
    from sslcollapse.training.build import Datasets

PRELOAD = (
    "sslcollapse.training.trainer",
    "sslcollapse.domains.graph.domain",
    "sslcollapse.domains.vision.domain",
    "torch._dynamo",
    "scipy.stats",
)
"""What every run imports sooner or later and what starts no thread (scikit-learn may, through pyarrow)."""


def run_locally(
    jobs: Sequence[Job], watch: JobWatch, *, parallel: int, threads: int | None = None, timeout: float | None = None
) -> None:
    """Make all runs, each in a process that is forked for it, at most ``parallel`` at a time.

    Args:
        jobs: what to run, in this order.
        watch: is told when runs start and end.
        parallel: number of processes.
        threads: threads of each run (default: a fair share of the cores).
        timeout: seconds after which a run is ended; it has failed then.
    """
    if jobs:
        run_on(Forks(parallel, share_of_threads(parallel) if threads is None else threads), jobs, watch, timeout)


class Forks:
    """A process a run, forked from one that has imported what runs need.

    Args:
        parallel: number of slots.
        threads: of each run.
    """

    def __init__(self, parallel: int, threads: int) -> None:
        self._parallel, self._threads, self._devices = parallel, threads, visible_devices()
        self._context, self._errors = server_context(), tempfile.TemporaryDirectory()

    def slots(self) -> int:
        """As many as were asked for."""
        return self._parallel

    def start(self, slot: int, job: Job) -> Attempt:
        """Fork a process for the run."""
        stderr = Path(self._errors.name) / f"{slot}"
        stderr.write_bytes(b"")
        arguments = (job.message(), self._threads, environment(slot, self._devices), str(stderr))
        process = self._context.Process(target=_serve, args=arguments)
        process.start()
        return Attempt(job, process, stderr)

    def close(self) -> None:
        """Remove the files of what was said."""
        self._errors.cleanup()


def _serve(message: dict[str, Any], threads: int, variables: dict[str, str], stderr: str) -> None:
    """In the new process: make one run."""
    settle(threads, variables, stderr)
    try:
        error = attempt(message)
    except PreemptedError as stopped:
        sys.exit(stopped.EXIT_CODE)
    if error is not None:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)


def settle(threads: int, variables: Mapping[str, str], stderr: str) -> None:
    """In a new process: take the parent's environment, leave its terminal, and end with it."""
    os.setsid()  # apart from the terminal's process group: Ctrl-C reaches the parent alone, which then ends this one
    os.environ.clear()
    os.environ.update(variables)
    use_threads(threads)
    for target, place in ((1, os.devnull), (2, stderr)):
        descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(descriptor, target)
        os.close(descriptor)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """No run outlives an ablation that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def server_context() -> Any:
    """The fork server, started if it is not running, with one thread and this package on its path."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        raise RunError("this machine's processes are forked, which this system cannot; use --executor debug")
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


def work(message: Mapping[str, Any], datasets: Datasets | None = None) -> None:
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
            datasets=datasets,
        )


def _move_aside(run: Path) -> None:
    """Give another run of the same hash a folder of its own: this one is wanted, and that run is not to be lost."""
    from sslcollapse.recipe import digest, from_json, learnt

    made = digest(learnt(from_json((run / "recipe.json").read_text(encoding="utf-8"))))
    names = itertools.chain([f"{run.name}-{made}"], (f"{run.name}-{made}-{k}" for k in itertools.count(2)))
    run.rename(next(path for path in map(run.with_name, names) if not path.exists()))


def attempt(message: Mapping[str, Any], datasets: Datasets | None = None) -> str | None:
    """``work``, with an error meant for people returned as one line and kept in the run's log; others are raised.

    So is PreemptedError, since a run that was stopped has not failed.
    """
    try:
        work(message, datasets)
    except PreemptedError:
        raise
    except SSLCollapseError as error:
        text = " ".join(str(error).split())
        if not isinstance(error, InUseError):  # the log is somebody else's then
            add_to_log(Path(message["path"]), text)
        return text
    return None


def use_threads(threads: int) -> None:
    """Let this process compute with so many threads, whether libraries are loaded already or later."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    torch = sys.modules.get("torch")
    if torch is not None:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
        torch.set_num_threads(threads)
