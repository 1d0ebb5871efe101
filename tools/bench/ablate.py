"""``bench ablate``: 24 short runs as single commands, and as ablations of one and two at a time; one thread each."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
COEFFICIENTS = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
SEEDS = 3
SHORTER = ("train.steps=40", "optim.warmup_steps=0", "monitor.every=0")
AXIS = "regularizers.werank.coefficient"


def main() -> dict[str, Any]:
    """Make the runs of one grid three times, print seconds and ratios."""
    from sslcollapse.core.console import Console, Table
    from sslcollapse.runs.directory import environment
    from tools.bench.graph_step import device

    runs = len(COEFFICIENTS) * SEEDS
    ways = {
        "train, one command after the other": _commands,
        "ablate --jobs 1": lambda folder: [_ablation(folder, 1)],
        "ablate --jobs 2": lambda folder: [_ablation(folder, 2)],
    }
    seconds, load = {}, {}
    for name, commands in ways.items():
        load[name] = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            for command in commands(folder):
                _run(command)
            seconds[name] = time.perf_counter() - began
            made = len(list(Path(folder).glob("runs/*/*/*/result.json")))
        if made != runs:
            raise RuntimeError(f"{name}: {made} of {runs} runs have a result")
    two = seconds["ablate --jobs 2"]
    table = Table(title=f"{runs} runs of recipes/quickstart.py, {' '.join(SHORTER)}, one thread each")
    for column in ("", "seconds", "× ablate --jobs 2", "load before"):
        table.add_column(column, justify="left" if not column else "right")
    for name, value in seconds.items():
        table.add_row(name, f"{value:.1f}", f"{value / two:.2f}", f"{load[name]:.1f}")
    Console().print(table)
    return {
        "benchmark": "ablate",
        "environment": environment(1, device(), sys.argv),
        "runs": runs,
        "settings": list(SHORTER),
        "seconds": seconds,
        "ratios": {name: value / two for name, value in seconds.items()},
        "load": load,
    }


def _commands(folder: str) -> list[list[str]]:
    return [
        ["train", _recipe(), *SHORTER, f"{AXIS}={value}", f"seed={seed}", "--out", f"{folder}/runs"]
        for seed in range(SEEDS)
        for value in COEFFICIENTS
    ]


def _ablation(folder: str, jobs: int) -> list[str]:
    grid = f"{AXIS}={','.join(map(str, COEFFICIENTS))}"
    places = ["--out", f"{folder}/runs", "--results", f"{folder}/results"]
    options = ["--grid", grid, "--seeds", str(SEEDS), "--jobs", str(jobs), "--threads", "1"]
    return ["ablate", _recipe(), *SHORTER, *options, *places]


def _recipe() -> str:
    return str(REPOSITORY / "recipes" / "quickstart.py")


def _run(command: list[str]) -> None:
    path = os.pathsep.join(part for part in (str(REPOSITORY), os.environ.get("PYTHONPATH")) if part)
    variables = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "sslcollapse.cli", *command], env=variables, check=True, stdout=subprocess.DEVNULL
    )
