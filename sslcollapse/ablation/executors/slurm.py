"""Runs as jobs of a Slurm cluster, through submitit.

``ablate`` only watches: jobs go on when it ends, however it ends. Their ids are kept in a file, so that the same
command watches them again and submits none twice.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcollapse.ablation.executors.local import attempt, search_path, use_threads, variables
from sslcollapse.ablation.executors.slots import add_to_log
from sslcollapse.ablation.job import Job, JobWatch, last_line
from sslcollapse.core.errors import PreemptedError, RecipeError, RunError, suggest
from sslcollapse.recipe.literals import literal

ARRAY_SIZE = 1000
"""Jobs of one array; Slurm's own limit is 1001 unless a cluster says otherwise."""

POLL_SECONDS = 1.0
RESULT_SECONDS = 60.0
"""How long a result may take to appear here after its job said that it was written (network file systems)."""

USER_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
"""One of them tells submitit of a preemption or of a time limit that is near."""

SUBMITIT_NAMES = {"timeout_min": "time", "mem_gb": "mem"}
OURS = ("job_name", "array_parallelism", "nodes", "ntasks_per_node", "num_gpus")
"""Parameters that the command line does not take: what they say follows from the ablation; a run is one task."""


class SlurmRun:
    """What a node executes; a preempted or timed-out job is queued again as it is and finds its checkpoint."""

    def __init__(self, message: dict[str, Any], threads: int | None) -> None:
        self.message = message
        self.threads = threads

    def __call__(self) -> str | None:
        """None, or an error meant for people.

        Submitit's handler would queue the job again in the middle of a step. It is put aside, so that the run saves
        first, and called then.
        """
        if self.threads is not None:
            use_threads(self.threads)
        import sslcollapse.training.trainer  # noqa: F401 - now, since a signal would only be fatal while it is imported

        handlers = {number: handler for number in USER_SIGNALS if callable(handler := signal.getsignal(number))}
        for number in handlers:
            signal.signal(number, signal.SIG_DFL)
        try:
            return attempt(self.message)
        except PreemptedError as stopped:
            for number, queue_again in handlers.items():
                queue_again(number, None)  # ends this process
            return str(stopped)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def checkpoint(self) -> Any:
        """Called by submitit on preemption and before a time limit."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def make_executor(folder: Path, name: str, jobs: int, settings: Mapping[str, Any]) -> Any:
    """A submitit executor with the parameters of the command line.

    Args:
        folder: of submitit's logs.
        name: of the jobs.
        jobs: runs at a time.
        settings: Slurm parameters by submitit's names.

    Raises:
        RunError: submitit or Slurm is not there.
        RecipeError: a parameter is unknown or refused.
    """
    if importlib.util.find_spec("submitit") is None:
        raise RunError("--executor slurm needs the package submitit: pip install 'sslcollapse[slurm]'")
    import submitit

    known = sorted({*submitit.SlurmExecutor._valid_parameters(), *SUBMITIT_NAMES, "max_num_timeout"} - {*OURS, "mem"})
    for key in settings:
        if key not in known:
            raise RecipeError(f"--slurm {key}: unknown parameter{suggest(key, known)} ({', '.join(known)})")
    for command in ("sbatch", "srun", "sacct"):
        if shutil.which(command) is None:
            raise RunError(
                f"--executor slurm: no {command} on PATH; start this on a machine of the cluster that jobs are "
                "submitted from, or use --executor local"
            )
    parameters = {SUBMITIT_NAMES.get(key, key): value for key, value in settings.items() if key != "max_num_timeout"}
    if "mem" in parameters:
        parameters["mem"] = f"{parameters['mem']}GB"
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=settings.get("max_num_timeout", 3))
        executor.update_parameters(job_name=name, array_parallelism=jobs, **parameters)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"--slurm: submitit refuses these parameters: {error}") from error
    return executor


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """``["partition=gpu", "timeout_min=90"]`` → a mapping; values are Python literals, bare words strings.

    Raises:
        RecipeError: a word is no ``key=value``, or a number of minutes or the like is no number.
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key or not text:
            raise RecipeError(f"--slurm {word!r}: write it as key=value, such as partition=gpu or timeout_min=90")
        try:
            settings[key] = literal(text)
        except (ValueError, SyntaxError):
            settings[key] = text
        if key in ("timeout_min", "time", "mem_gb", "cpus_per_task", "gpus_per_node", "max_num_timeout"):
            value = settings[key]
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise RecipeError(f"--slurm {word}: expected a number, got {text!r}")
    return settings


def run_on_cluster(
    jobs: Sequence[Job], watch: JobWatch, *, executor: Any, folder: Path, threads: int | None = None
) -> None:
    """Submit all runs that are not queued already as job arrays, and watch them until the last has ended.

    Args:
        jobs: what to run; as many at a time as the executor's ``array_parallelism``.
        watch: is told when runs start and end.
        executor: submitit's.
        folder: where the ids of jobs are kept while they are not known to have ended.
        threads: threads of each run (default: what the node gives).
    """
    ledger = _Ledger(folder / "jobs.json")
    again = {job.key: executor.job_class(executor.folder, ledger.ids[job.key]) for job in jobs if job.key in ledger.ids}
    _watch([(job, again[job.key]) for job in jobs if job.key in again], watch, ledger)
    new = [job for job in jobs if job.key not in again]
    for first in range(0, len(new), ARRAY_SIZE):
        array = new[first : first + ARRAY_SIZE]
        with variables({"PYTHONPATH": search_path()}):
            submitted = executor.submit_array([SlurmRun(job.message(), threads) for job in array])
        ledger.add({job.key: its.job_id for job, its in zip(array, submitted, strict=True)})
        _watch(list(zip(array, submitted, strict=True)), watch, ledger)


def _watch(pairs: list[tuple[Job, Any]], watch: JobWatch, ledger: _Ledger) -> None:
    began: dict[str, float] = {}
    left = pairs
    while left:
        for job, submitted in left:
            if job.key not in began and submitted.paths.stdout.exists():
                began[job.key] = time.monotonic()
                watch.started(job)
        ended = [(job, submitted) for job, submitted in left if submitted.done()]
        for job, submitted in ended:
            error = _error(job, submitted)
            watch.ended(job, error, time.monotonic() - began.get(job.key, time.monotonic()))
            ledger.remove(job.key)
        left = [pair for pair in left if pair not in ended]
        watch.tick()
        if left:
            time.sleep(POLL_SECONDS)


def _error(job: Job, submitted: Any) -> str | None:
    """None if the run has its result, else what submitit or Slurm knows of its end."""
    if (
        not submitted.paths.result_pickle.exists() and submitted.state != "COMPLETED"
    ):  # cancelled or killed from outside
        return f"job {submitted.job_id} ended without a result ({submitted.state}); its log: {submitted.paths.stderr}"
    failure = submitted.exception()
    if failure is not None:
        trace = _trace(str(failure))
        add_to_log(job.path, trace)
        return last_line(trace)
    message = submitted.result()
    if message is not None:
        return message
    deadline = time.monotonic() + RESULT_SECONDS
    while not job.finished and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return None if job.finished else f"job {submitted.job_id} succeeded but {job.path}/result.json is not there"


def _trace(text: str) -> str:
    """The traceback in submitit's message, which stands between two rules."""
    parts = text.split("----------------------\n")
    return parts[1] if len(parts) > 2 else text


class _Ledger:
    """Run → id of the job that was submitted for it, on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def add(self, ids: Mapping[str, str]) -> None:
        self.ids.update(ids)
        self._write()

    def remove(self, key: str) -> None:
        del self.ids[key]
        self._write()

    def _write(self) -> None:
        from sslcollapse.core.files import write_atomic

        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, (json.dumps(self.ids, indent=2) + "\n").encode())
