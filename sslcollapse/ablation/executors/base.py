"""Where runs take place: processes of this machine, jobs of a Slurm cluster, or this very process, for breakpoints."""

from __future__ import annotations

import pdb
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sslcollapse.ablation.executors.local import attempt, run_locally, share_of_threads, use_threads
from sslcollapse.ablation.executors.slots import add_to_log
from sslcollapse.ablation.executors.slurm import make_executor, parse_settings, run_on_cluster
from sslcollapse.ablation.executors.warm import AUTO, on_gpu, run_warm
from sslcollapse.ablation.job import Job, JobWatch, last_line
from sslcollapse.core.errors import PreemptedError, RecipeError, suggest

EXECUTORS = ("local", "fork", "warm", "slurm", "debug")

Execute = Callable[[Sequence[Job], JobWatch], None]


def check_options(
    name: str, *, jobs: int | str, threads: int | None, slurm: Sequence[str], timeout: float | None = None
) -> None:
    """Refuse what is wrong whatever the ablation is.

    Raises:
        RecipeError: an option is wrong.
    """
    if name not in EXECUTORS:
        known = list(EXECUTORS)
        raise RecipeError(f"executor {name!r}: there is only {', '.join(known)}{suggest(name, known)}")
    ours = name not in ("slurm", "debug")
    if isinstance(jobs, str) and (jobs != AUTO or not ours):
        raise RecipeError(f"--jobs {jobs}: a number is needed, or auto with --executor local, fork or warm")
    if timeout is not None and (timeout <= 0 or not ours):
        raise RecipeError(f"--timeout {timeout:g}: minutes above 0 are needed, and --executor local, fork or warm")
    if (isinstance(jobs, int) and jobs < 1) or (threads is not None and threads < 1):
        raise RecipeError(f"jobs and threads must be at least 1, got {jobs} and {threads}")
    if slurm and name != "slurm":
        raise RecipeError(f"--slurm {slurm[0]}: only --executor slurm takes parameters of Slurm")
    if name == "debug" and jobs != 1:
        raise RecipeError(f"--executor debug makes one run at a time, got --jobs {jobs}")


def choose_executor(
    name: str,
    *,
    jobs: int | str,
    threads: int | None,
    slurm: Sequence[str],
    out: Path,
    ablation: str,
    timeout: float | None = None,
) -> Execute:
    """The function that makes runs.

    Args:
        name: one of ``EXECUTORS``.
        jobs: runs at a time, or ``"auto"``.
        threads: threads of each run, or None for what the executor gives.
        slurm: ``key=value`` parameters of Slurm jobs.
        out: folder of all runs.
        ablation: its name.
        timeout: minutes of a run on this machine.

    Raises:
        RecipeError: a parameter of Slurm is wrong.
        RunError: what the executor needs is not there.
    """
    if name == "slurm":
        folder = out / "submitit" / ablation
        executor = make_executor(folder, ablation, int(jobs), parse_settings(slurm))
        return partial(run_on_cluster, executor=executor, folder=folder, threads=threads)
    if name == "debug":
        return partial(run_here, threads=threads)
    seconds = None if timeout is None else 60 * timeout
    return partial(_run_on_this_machine, name=name, jobs=jobs, threads=threads, timeout=seconds)


def _run_on_this_machine(
    jobs_: Sequence[Job],
    watch: JobWatch,
    *,
    name: str,
    jobs: int | str,
    threads: int | None,
    timeout: float | None,
) -> None:
    """In processes that make run after run where there is a GPU, or that is asked for; else in one a run."""
    if name == "warm" or (name == "local" and jobs_ and on_gpu()):
        run_warm(jobs_, watch, parallel=None if jobs == AUTO else int(jobs), threads=threads, timeout=timeout)
        return
    parallel = share_of_threads(threads or 1) if jobs == AUTO else int(jobs)
    run_locally(jobs_, watch, parallel=parallel, threads=threads, timeout=timeout)


def run_here(jobs: Sequence[Job], watch: JobWatch, *, threads: int | None = None) -> None:
    """Make all runs; where one raises and somebody is at the terminal, the debugger opens at that place."""
    if jobs and threads is not None:
        use_threads(threads)
    for job in jobs:
        watch.started(job)
        began = time.monotonic()
        try:
            error = attempt(job.message())
        except PreemptedError as stopped:
            watch.stopped(job)
            raise KeyboardInterrupt(str(stopped)) from stopped  # this process was asked to stop, so nothing more starts
        except Exception as exception:
            trace = traceback.format_exc()
            print(trace, file=sys.stderr)
            add_to_log(job.path, trace)
            if sys.stdin.isatty() and sys.stdout.isatty():
                pdb.post_mortem(exception.__traceback__)
            error = last_line(trace)
        watch.ended(job, error, time.monotonic() - began)
