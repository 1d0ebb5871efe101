"""A run in a process of its own, from a fork server, since importing torch again would take ten times as long.

It is not forked from the test's process, whose autograd may have threads, which a fork does not survive.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sslcollapse import cli
from sslcollapse.recipe import resolve
from sslcollapse.runs.directory import RunDirectory

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(
    ["sslcollapse.training.trainer", "sslcollapse.domains.graph.domain", "sslcollapse.probes.logistic"]
)


class Process:
    """``sslcollapse train`` of a recipe below ``out``, with more words of the command line.

    ``first``, which can be pickled, is called in the new process before anything else. What it shows goes to a file in
    ``shown``, by default the folder ``out``.
    """

    def __init__(
        self,
        recipe: dict[str, Any],
        out: Path,
        *words: str,
        first: Callable[[], None] = int,  # does nothing
        shown: Path | None = None,
    ) -> None:
        self.run = RunDirectory.of(resolve(recipe), out).path
        folder = shown or out
        self._shown, file = folder / "shown", folder / "recipe.json"
        file.write_text(json.dumps(recipe))
        self.code: int | None = None
        command = ["train", str(file), "--out", str(out), *words]
        self._process = _FORKED.Process(target=_run, args=(command, self._shown, first))
        self._process.start()
        self.pid: Any = self._process.pid

    def said(self) -> str:
        """What it has shown."""
        return self._shown.read_text()

    def steps(self) -> int:
        """How many are logged."""
        path = self.run / "metrics.jsonl"
        return path.read_text().count('"loss"') if path.exists() else 0

    def wait_for_steps(self, steps: int) -> None:
        """Return when so many are logged."""
        deadline = time.monotonic() + 60
        while self.steps() < steps:
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.002)

    def send(self, number: int) -> int:
        """Its exit code after a signal."""
        os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> int:
        """Its exit code."""
        if self.code is None:
            self._process.join()
            self.code = self._process.exitcode
        return self.code


def _run(command: list[str], shown: Path, first: Callable[[], None]) -> None:
    code = 1
    try:
        descriptor = os.open(shown, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 2)
        sys.stdout = sys.stderr = os.fdopen(descriptor, "w")
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background of a script
        first()
        code = cli.main(command)
    finally:
        sys.stdout.flush()
        os._exit(code)
