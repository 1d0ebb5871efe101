"""``bench regularizers``: what each regularizer adds to a BGRL step on a citation graph.

All take turns in one process on the same graph; ratios are taken within a round, reported is their median.
"""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import Any

import torch

from sslcollapse.core.memory import keep_freed_memory
from sslcollapse.core.registry import OPTIMIZERS
from sslcollapse.core.types import Context
from sslcollapse.recipe import resolve
from sslcollapse.training.build import build_domain, build_module
from tools.bench.graph_step import available_datasets
from tools.bench.graph_step import device as device_title

CONTENDERS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "werank": {"type": "werank", "coefficient": 1e-2},
    "so": {"type": "so", "coefficient": 1e-3},
    "dso": {"type": "dso", "coefficient": 1e-3},
    "srip": {"type": "srip", "coefficient": 1e-2},
    "variance": {"type": "variance", "coefficient": 1.0},
    "covariance": {"type": "covariance", "coefficient": 1e-1},
}
ROUNDS, STEPS = 9, 5


def main() -> dict[str, Any]:
    """Measure, print a table with ratios, return the record."""
    from sslcollapse.core.console import Console, Table
    from sslcollapse.runs.directory import environment

    keep_freed_memory()
    results = {}
    for label, dataset in available_datasets().items():
        record = results[label] = measure(dataset)
        table = Table(title=f"BGRL step, GCN 256-256, {label}, {torch.get_num_threads()} threads")
        for title in ("regularizer", "ms/step", "× the step without"):
            table.add_column(title, justify="left" if title == "regularizer" else "right")
        for name in CONTENDERS:
            table.add_row(name, f"{record['ms'][name]:.1f}", f"{record['times_none'][name]:.3f}")
        Console().print(table)
    return {
        "benchmark": "regularizers",
        "environment": environment(1, device_title(), sys.argv),
        "threads": torch.get_num_threads(),
        "rounds": ROUNDS,
        "steps_a_round": STEPS,
        "results": results,
    }


def measure(dataset: dict[str, Any], rounds: int = ROUNDS, steps: int = STEPS) -> dict[str, dict[str, float]]:
    """Median milliseconds of a step with each regularizer, and their median ratio to the step without."""
    contenders = {name: _Step(dataset, spec) for name, spec in CONTENDERS.items()}
    for step in contenders.values():
        step()
    turns: list[dict[str, float]] = []
    for index in range(rounds):
        order = list(contenders.items())[:: 1 if index % 2 else -1]
        turns.append({name: step.median_ms(steps) for name, step in order})
    return {
        "ms": {name: median(turn[name] for turn in turns) for name in CONTENDERS},
        "times_none": {name: median(turn[name] / turn["none"] for turn in turns) for name in CONTENDERS},
    }


class _Step:
    """One optimiser step, views included, as the trainer does it."""

    def __init__(self, dataset: dict[str, Any], spec: dict[str, Any] | None) -> None:
        recipe = resolve(
            {
                "name": "bench",
                "domain": {"type": "graph", "dataset": dataset},
                "encoder": {"type": "gcn", "hidden": [256, 256], "norm": "batch"},
                "objective": {"type": "bgrl", "predictor_hidden": 256},
                "regularizers": {} if spec is None else {"regularizer": spec},
                "optim": {"type": "adamw", "lr": 1e-4},
                "train": {"steps": 1000},
            }
        )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        domain = build_domain(recipe)
        self.module = build_module(recipe, domain).to(device).train()
        self.optimizer = OPTIMIZERS.build(recipe["optim"]).build(self.module)
        self.batches = domain.batches(0, Context(device=device))
        self.device = device

    def __call__(self) -> None:
        self.module(next(self.batches), 1)["loss"].backward()
        self.optimizer.step()
        self.module.update_target(1)
        self.optimizer.zero_grad()

    def median_ms(self, steps: int) -> float:
        """Of some steps after one that is not timed, since the caches hold another contender's data."""
        self()
        seconds = []
        for _ in range(steps):
            self._wait()
            began = time.perf_counter()
            self()
            self._wait()
            seconds.append(time.perf_counter() - began)
        return 1e3 * median(seconds)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
