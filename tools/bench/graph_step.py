"""``bench graph-step``: the BGRL training step, against plain PyTorch Geometric and against its dense products.

Each contender lives in a process of its own, so that allocator settings do not leak from one to the other; the
parent lets them run in turns, one untimed step (the caches hold the previous contender's data) and a few timed.
Ratios are taken within a round, whose steps are seconds apart, since a shared machine's speed drifts over minutes;
reported is their median over the rounds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

DATASETS: dict[str, dict[str, Any]] = {
    "Cora": {"type": "planetoid", "name": "Cora"},
    "CiteSeer": {"type": "planetoid", "name": "CiteSeer"},
}
EMBEDDED: dict[str, Any] = {"type": "csbm", "nodes": 2708, "features": 1433, "classes": 7}
CONTENDERS = ("plain", "plain_kept_memory", "ours", "ours_werank", "ours_bf16", "floor")
ON_GPU = (
    "plain",
    "ours",
    "ours_captured",
    "ours_captured_werank",
    "ours_captured_tf32",
    "ours_tf32",
    "ours_werank",
    "ours_bf16",
    "floor",
    "floor_captured",
    "floor_tf32",
)
TITLES = {
    "plain": "plain PyTorch Geometric",
    "plain_kept_memory": "the same, freed memory kept",
    "plain_compiled": "the same, torch.compile",
    "ours": "sslcollapse",
    "ours_tf32": "sslcollapse, TF32",
    "ours_captured": "sslcollapse, one CUDA graph",
    "ours_captured_werank": "the same + WERank",
    "ours_captured_tf32": "the same, TF32",
    "ours_werank": "sslcollapse + WERank",
    "ours_bf16": "sslcollapse, bf16",
    "floor": "its dense products alone",
    "floor_captured": "the same, one CUDA graph",
    "floor_tf32": "the same, TF32",
}


@dataclass(frozen=True)
class Size:
    """What is measured: of which data and networks, where, how often.

    Attributes:
        dataset: a recipe's graph dataset.
        hidden: widths of the two layers.
        predictor: hidden width of the predictor.
        device: of torch.
        rounds: turns of all contenders.
        steps: timed steps of a turn.
        repeats: of each part of the step.
        compiler: backend of ``torch.compile``.
        apart: each contender in a process of its own; False saves the start of many where times do not matter.
    """

    dataset: Mapping[str, Any] = field(default_factory=dict)
    hidden: Sequence[int] = (512, 256)
    predictor: int = 512
    device: str = "cpu"
    rounds: int = 9
    steps: int = 7
    repeats: int = 15
    compiler: str = "inductor"
    apart: bool = True


def main() -> dict[str, Any]:
    """Measure on the processor, print a table with ratios, return the record; ``bench gpu`` does it on a GPU."""
    from sslcollapse.core.console import Console, Table
    from sslcollapse.runs.directory import environment

    console, records = Console(), {}
    for label, dataset in available_datasets().items():
        record = measure(Size(dataset))
        if record["failed"]:
            raise RuntimeError("\n".join(record["failed"].values()))
        records[label] = record
        table = Table(title=f"BGRL step, GCN 512-256, float32, {label}, {record['threads']} threads")
        for title in ("", "ms/step", "plain is … × slower", "× floor"):
            table.add_column(title, justify="left" if not title else "right")
        for name in CONTENDERS:
            ms = record["ms"][name]
            row = (f"{ms:.1f}", f"{record['times_faster'][name]:.2f}", f"{record['times_floor'][name]:.2f}")
            table.add_row(TITLES[name], *row)
        console.print(table)
        console.print(_explanation(record))
    return {"benchmark": "graph-step", "environment": environment(1, device(), sys.argv), "results": records}


def available_datasets() -> dict[str, dict[str, Any]]:
    """Cora and CiteSeer where their files are, else a block model of Cora's size."""
    from sslcollapse.core.registry import GRAPH_DATASETS

    root = Path(os.environ.get("SSLCOLLAPSE_DATA") or "data")
    found = {
        label: spec
        for label, spec in DATASETS.items()
        if all(path.exists() for path in GRAPH_DATASETS.build(spec, root).files())
    }
    return found or {"block model of Cora's size": EMBEDDED}


def measure(size: Size, contenders: Sequence[str] = CONTENDERS) -> dict[str, Any]:
    """Run all contenders in turns on one dataset; one that fails is named in the record, with its traceback."""
    failed: dict[str, str] = {}
    workers: dict[str, Any] = {name: (_Worker if size.apart else _Here)(name, size) for name in contenders}
    try:
        for name, worker in list(workers.items()):
            try:
                worker.ask("warm")
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}"
                workers.pop(name).close()
        rounds = [{name: worker.ask("run") for name, worker in workers.items()} for _ in range(size.rounds)]
        asked = workers.get("ours_werank")
        parts, check = (asked.ask("parts"), asked.ask("check")) if asked else ({}, {})
    finally:
        for worker in workers.values():
            worker.close()
    times = {name: [ms for turn in rounds for ms in turn[name]] for name in workers}
    return {
        "ms": {name: median(values) for name, values in times.items()},
        "ms_quartiles": {name: _quartiles(values) for name, values in times.items()},
        "times_faster": {name: _ratio(rounds, "plain", name) for name in workers if "plain" in workers},
        "times_floor": {name: _ratio(rounds, name, "floor") for name in workers if "floor" in workers},
        "werank_adds": {
            name: _ratio(rounds, f"{name}_werank", name) - 1
            for name in ("ours", "ours_captured")
            if {name, f"{name}_werank"} <= workers.keys()
        },
        "rounds": size.rounds,
        "steps_a_round": size.steps,
        "threads": parts.pop("threads", None),
        "parts_ms": parts,
        "same_loss": check,
        "failed": failed,
    }


def _explanation(record: Mapping[str, Any]) -> str:
    parts, check = record["parts_ms"], record["same_loss"]
    ours, werank = record["ms"]["ours_werank"], parts["werank"]
    lines = [
        f"same draws, same weights: loss {check['ours']:.7f} here, {check['plain']:.7f} in plain PyTorch Geometric",
        f"WERank: {werank:.2f} ms, {werank / parts['werank_products']:.2f} × its own two products "
        f"({parts['werank_products']:.2f} ms), {100 * werank / ours:.1f} % of the step",
        "parts of the step, ms: " + ", ".join(f"{name} {ms:.1f}" for name, ms in parts.items()),
    ]
    return "\n".join(lines)


class _Worker:
    """A contender in its own process, asked line by line."""

    def __init__(self, name: str, size: Size) -> None:
        self.name, self.errors = name, tempfile.TemporaryFile("w+")  # noqa: SIM115
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tools.bench.graph_step", name, json.dumps(asdict(size))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def ask(self, request: str) -> Any:
        """Send one request, return the decoded answer."""
        with suppress(BrokenPipeError):  # it has ended, and what it said is read below
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        while True:
            line = self.process.stdout.readline()
            if not line:
                code = self.process.wait()
                self.errors.seek(0)
                said = self.errors.read()[-4000:]
                raise RuntimeError(f"benchmark process {self.name!r} ended with exit code {code}:\n{said}")
            if line.startswith("{") or line.startswith("["):
                return json.loads(line)

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(timeout=30)
        self.errors.close()


def _ratio(rounds: list[dict[str, list[float]]], numerator: str, denominator: str) -> float:
    """Median over rounds of the ratio of two contenders' median times in that round."""
    return median(median(turn[numerator]) / median(turn[denominator]) for turn in rounds)


def _quartiles(values: list[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]]


def device() -> str:
    """The accelerator's name, or the processor's."""
    import torch

    from sslcollapse.runs.directory import device_name

    return device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


class _Here:
    """A contender in this process."""

    def __init__(self, name: str, size: Size) -> None:
        self.name, self.size = name, size
        self.answers: dict[str, Callable[[], Any]] = {}

    def ask(self, request: str) -> Any:
        """The answer to one request; the first one makes the contender."""
        self.answers = self.answers or _answers(self.name, self.size)
        return self.answers[request]()

    def close(self) -> None:
        """Nothing is left open."""


def _answers(name: str, size: Size) -> dict[str, Callable[[], Any]]:
    """Request → what answers it: ``warm``, ``run``, and of our own steps ``parts`` and ``check``."""
    import torch

    from tools.bench.contenders import make_contender, milliseconds

    step, extra = make_contender(name, size)
    device = torch.device(size.device)

    def run() -> list[float]:
        step()
        return milliseconds(step, device, size.steps)

    return {"warm": lambda: milliseconds(step, device, 3), "run": run, **extra}


if __name__ == "__main__":
    answers = _answers(sys.argv[1], Size(**json.loads(sys.argv[2])))
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)
