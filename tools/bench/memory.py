"""``bench memory``: peak memory of a whole training process on Coauthor Physics (34,493 × 8,415 features)."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sslcollapse.core.errors import MissingDataError

STEPS = 10


def main() -> dict[str, Any]:
    """Train ``bgrl_werank_physics`` for a few steps with rank measurement and one evaluation split; report the peak."""
    from sslcollapse.core.console import Console
    from sslcollapse.core.registry import GRAPH_DATASETS
    from sslcollapse.runs.directory import environment
    from tools.bench.graph_step import device

    root = Path(os.environ.get("SSLCOLLAPSE_DATA") or "data")
    source = GRAPH_DATASETS.build({"type": "coauthor", "name": "Physics"}, root)
    missing = [path for path in source.files() if not path.exists()]
    if missing:
        raise MissingDataError(f"bench memory needs Coauthor Physics: {missing[0]} is absent; set SSLCOLLAPSE_DATA")
    repository = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as out:
        subprocess.run(
            [
                *(sys.executable, str(repository / "tools" / "train.py")),
                *(str(repository / "recipes" / "bgrl_werank_physics.py"), "--out", out),
                *(f"train.steps={STEPS}", "optim.warmup_steps=0", "evaluate.random.repeats=1"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    Console().print(f"Coauthor Physics, {STEPS} steps, ranks measured, one split evaluated: peak {peak:.2f} GiB")
    return {"benchmark": "memory", "environment": environment(1, device(), sys.argv), "peak_gib": peak, "steps": STEPS}
