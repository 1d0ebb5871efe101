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
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

DATASETS: dict[str, dict[str, Any]] = {
    "Cora": {"type": "planetoid", "name": "Cora"},
    "CiteSeer": {"type": "planetoid", "name": "CiteSeer"},
}
EMBEDDED: dict[str, Any] = {"type": "csbm", "nodes": 2708, "features": 1433, "classes": 7}
CONTENDERS = ("plain", "plain_kept_memory", "ours", "ours_werank", "ours_bf16", "floor")
TITLES = {
    "plain": "plain PyTorch Geometric",
    "plain_kept_memory": "the same, freed memory kept",
    "ours": "sslcollapse",
    "ours_werank": "sslcollapse + WERank",
    "ours_bf16": "sslcollapse, bf16",
    "floor": "its dense products alone",
}
ROUNDS, STEPS = 9, 7


def main() -> dict[str, Any]:
    """Measure, print a table with ratios, return the record."""
    from rich.console import Console
    from rich.table import Table

    from sslcollapse.runs.directory import environment

    console, records = Console(), {}
    for label, dataset in available_datasets().items():
        record = measure(dataset)
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


def measure(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Run all contenders in turns on one dataset."""
    workers = {name: _Worker(name, dataset) for name in CONTENDERS}
    try:
        for worker in workers.values():
            worker.ask("warm")
        rounds = [{name: worker.ask("run") for name, worker in workers.items()} for _ in range(ROUNDS)]
        parts = workers["ours_werank"].ask("parts")
        check = workers["ours_werank"].ask("check")
    finally:
        for worker in workers.values():
            worker.close()
    times = {name: [ms for turn in rounds for ms in turn[name]] for name in CONTENDERS}
    return {
        "ms": {name: median(values) for name, values in times.items()},
        "ms_quartiles": {name: _quartiles(values) for name, values in times.items()},
        "times_faster": {name: _ratio(rounds, "plain", name) for name in CONTENDERS},
        "times_floor": {name: _ratio(rounds, name, "floor") for name in CONTENDERS},
        "rounds": ROUNDS,
        "steps_a_round": STEPS,
        "threads": parts.pop("threads"),
        "parts_ms": parts,
        "same_loss": check,
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

    def __init__(self, name: str, dataset: Mapping[str, Any]) -> None:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tools.bench.graph_step", name, json.dumps(dict(dataset))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def ask(self, request: str) -> Any:
        """Send one request, return the decoded answer."""
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"benchmark process ended with exit code {self.process.wait()}")
            if line.startswith("{") or line.startswith("["):
                return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait(timeout=30)


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


def _work(name: str, dataset: dict[str, Any]) -> None:
    """Answer the parent's requests: ``warm``, ``run``, ``parts``, ``check``."""
    from tools.bench.contenders import make_contender

    step, extra = make_contender(name, dataset)
    answers: dict[str, Callable[[], Any]] = {
        "warm": lambda: [_timed(step) for _ in range(3)],
        "run": lambda: [_timed(step) for _ in range(1 + STEPS)][1:],
        **extra,
    }
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)


def _timed(step: Callable[[], Any]) -> float:
    began = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - began)


if __name__ == "__main__":
    _work(sys.argv[1], json.loads(sys.argv[2]))
