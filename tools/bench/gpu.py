"""``bench gpu``: everything that is worth knowing of a GPU in a few minutes, most valuable first.

Each part is a process of its own with a time limit of its own. It writes ``OUT/NAME.json`` when it ends, and what it
said is in ``OUT/NAME.log``. A part that fails or is stopped does not stop the others: its JSON has the traceback.
``OUT/summary.json`` and ``OUT/summary.txt`` are written anew after each part. docs/gpu.md says what is in them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcollapse.core.files import write_atomic

REPOSITORY = Path(__file__).resolve().parents[2]
TAIL = 4000
"""Most characters of a log that a record keeps."""
GRACE = 10.0
"""Seconds that a part has to end after it was asked to."""


@dataclass(frozen=True)
class Part:
    """One thing that is measured.

    Attributes:
        name: of its files.
        seconds: the most that it gets.
        command: words of a process to which the file for its record and its seconds are added.
        least: with fewer seconds left it is not started.
    """

    name: str
    seconds: float
    command: Sequence[str]
    least: float = 20.0


def plan(*, smoke: bool) -> list[Part]:
    """All parts by value; a smoke test has each kind once."""
    from tools.bench.gpu_parts import GRAPHS
    from tools.bench.gpu_runs import RUNS

    every = [("environment", 40.0), ("tests", 150.0), *((f"graph-step-{name}", 80.0) for name in GRAPHS)]
    every += [("vision-step", 90.0), ("views", 45.0), ("monitor", 60.0), ("probes", 40.0)]
    every += [(f"compiled-{name}", 75.0) for name in ("Cora", "Physics")]
    every += [(name, 300.0) for name in RUNS]
    chosen = every
    if smoke:
        once = ("environment", "tests", "graph-step-Cora", "vision-step", "views", "monitor", "probes", "compiled-Cora")
        kinds = {RUNS[name].command: name for name in reversed(RUNS)}  # the first of each command
        chosen = [(name, seconds) for name, seconds in every if name in {*once, *kinds.values()}]
    words = [sys.executable, "-W", "ignore", "-m", "tools.bench.gpu", *(["--smoke"] if smoke else [])]
    return [Part(name, seconds, [*words, name], 60.0 if name in RUNS else 20.0) for name, seconds in chosen]


def main(minutes: float = 9.0, out: Path = Path("gpu"), *, smoke: bool = False) -> dict[str, Any]:
    """Run the parts until the minutes are over, print a table, return the summary."""
    return drive(plan(smoke=smoke), 60 * minutes, out, smoke=smoke)


def drive(parts: Sequence[Part], seconds: float, out: Path, *, smoke: bool = False) -> dict[str, Any]:
    """Run parts one after the other, each in the seconds that are left; write and return the summary.

    Args:
        parts: in this order.
        seconds: for all of them.
        out: folder of what they write; made where it is not there.
        smoke: what the summary says of its figures.
    """
    out.mkdir(parents=True, exist_ok=True)
    began, done = time.monotonic(), []
    summary: dict[str, Any] = {}
    try:
        for part in parts:
            left = seconds - (time.monotonic() - began)
            if left < part.least:
                record: dict[str, Any] = {"status": "left out", "headline": f"{max(left, 0):.0f} s were left"}
            else:
                record = run_part(part, min(part.seconds, left), out)
            done.append({"part": part.name, **record})
            summary = {"benchmark": "gpu", "smoke": smoke, "seconds": time.monotonic() - began, "parts": done}
            write_atomic(out / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
            write_atomic(out / "summary.txt", table(summary).encode())
            print(line(done[-1]), flush=True)
    finally:
        print(f"\n{table(summary)}\nwritten to {out}", flush=True)
    return summary


def run_part(part: Part, seconds: float, out: Path) -> dict[str, Any]:
    """Run one part and return its record, which its file has too, whatever became of it."""
    file, log = out / f"{part.name}.json", out / f"{part.name}.log"
    file.unlink(missing_ok=True)  # of an earlier time
    path = os.pathsep.join(word for word in (str(REPOSITORY), os.environ.get("PYTHONPATH")) if word)
    began, stopped = time.monotonic(), False
    with log.open("w") as said:
        process = subprocess.Popen(
            [*part.command, str(file.resolve()), f"{seconds:.1f}"],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # so that what it has started can be ended with it
        )
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            stopped = True
        finally:
            _end(process)
    record: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        record = json.loads(file.read_text())
    if not record:
        why = f"stopped after {seconds:.0f} s" if stopped else f"ended with exit code {process.returncode}"
        tail = log.read_text(errors="replace")[-TAIL:]
        record = {"status": "stopped" if stopped else "failed", "headline": why, "traceback": tail}
    record = {**record, "seconds": round(time.monotonic() - began, 1)}
    write_atomic(file, (json.dumps(record, indent=2) + "\n").encode())
    return record


def _end(process: subprocess.Popen[Any]) -> None:
    """End a part and all that it has started, at first so that it can say what it has."""
    for number, patience in ((signal.SIGTERM, GRACE if process.poll() is None else 0.0), (signal.SIGKILL, GRACE)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)


def table(summary: dict[str, Any]) -> str:
    """What the summary says, a line a part."""
    title = "tried on a small scale; the figures mean nothing\n" if summary.get("smoke") else ""
    return title + "".join(line(part) + "\n" for part in summary.get("parts", []))


def line(part: dict[str, Any]) -> str:
    """One part in one line."""
    return f"{part['part']:22} {part['status']:9} {part.get('seconds', 0):6.1f} s  {part.get('headline', '')}"


def work(name: str, file: Path, seconds: float, *, smoke: bool) -> int:
    """Do one part in this process and write its record; returns an exit code."""
    record: dict[str, Any]
    try:
        from tools.bench.gpu_parts import function_of

        measure: Callable[..., dict[str, Any]] = function_of(name)
        record = {"status": "done", **measure(smoke=smoke, seconds=seconds, folder=file.parent)}
    except BaseException as error:
        text = traceback.format_exc()
        record = {"status": "failed", "headline": f"{type(error).__name__}: {error}"[:300], "traceback": text[-TAIL:]}
        print(text, flush=True)
    write_atomic(file, (json.dumps(record, indent=2) + "\n").encode())
    return 0 if record["status"] == "done" else 1


if __name__ == "__main__":
    *switches, part_name, part_file, part_seconds = sys.argv[1:]
    sys.exit(work(part_name, Path(part_file), float(part_seconds), smoke="--smoke" in switches))
