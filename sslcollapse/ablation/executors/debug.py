"""Runs in this process, one after the other, where breakpoints work."""

from __future__ import annotations

import pdb
import sys
import time
import traceback
from collections.abc import Sequence

from sslcollapse.ablation.executors.worker import add_to_log, attempt, use_threads
from sslcollapse.ablation.job import Job, JobWatch, last_line
from sslcollapse.core.errors import PreemptedError


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
