"""``bench startup``: what importing the package and asking for help cost, beside ``import torch``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

REPEATS = 7
REPOSITORY = Path(__file__).resolve().parents[2]
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import torch, sslcollapse": ["-c", "import torch, sslcollapse"],
    "--help": ["-m", "sslcollapse.cli", "--help"],
    "list": ["-m", "sslcollapse.cli", "list"],
    "a misspelt recipe key": [
        *("-m", "sslcollapse.cli", "train", str(REPOSITORY / "recipes" / "quickstart.py")),
        "encoder.hiden=[8]",
    ],
}


def main() -> dict[str, Any]:
    """Run each command in turns, print median seconds."""
    from sslcollapse.core.console import Console, Table
    from sslcollapse.runs.directory import environment
    from tools.bench.graph_step import device

    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    path = os.pathsep.join(part for part in (str(REPOSITORY), os.environ.get("PYTHONPATH")) if part)
    for _ in range(REPEATS):
        for name, arguments in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
            times[name].append(time.perf_counter() - began)
    seconds = {name: median(values) for name, values in times.items()}
    table = Table(title=f"start-up, median of {REPEATS}")
    table.add_column("")
    table.add_column("seconds", justify="right")
    for name, value in seconds.items():
        table.add_row(name, f"{value:.2f}")
    added = seconds["import torch, sslcollapse"] - seconds["import torch"]
    Console().print(table)
    Console().print(f"import sslcollapse adds {added:.3f} s to import torch")
    return {
        "benchmark": "startup",
        "environment": environment(1, device(), sys.argv),
        "seconds": seconds,
        "import_adds": added,
    }
