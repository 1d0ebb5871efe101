"""One run, wherever an executor makes it."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcollapse.core.errors import PreemptedError, SSLCollapseError
from sslcollapse.core.files import InUseError, run_lock
from sslcollapse.runs.quantities import is_cut_short

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
            from sslcollapse.runs.streams import made_otherwise

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
