"""``bench large-graph``: time and peak memory of a BGRL step by number of nodes, full and on sampled roots.

Each size is one block model in a process of its own. Both ways of making batches take turns in it, a few steps a turn,
and the time of a batch is part of its step. Peaks are those of the steps alone, over what the process holds before
them; they need Linux, which can forget an earlier peak. Slopes are of log time, or log memory, over log nodes.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

NODES = (10_000, 100_000, 1_000_000)
BATCHINGS: dict[str, dict[str, Any]] = {
    "full": {"type": "full"},
    "neighbours": {"type": "neighbours", "batch_size": 1024, "fanout": [10, 10]},
}
ROUNDS, STEPS = 3, {"full": 1, "neighbours": 5}
FEATURES, WIDTH = 64, 64


def main() -> dict[str, Any]:
    """Measure all sizes one after the other, print a table with ratios and slopes, return the record."""
    from sslcollapse.core.console import Console, Table
    from sslcollapse.runs.directory import environment
    from tools.bench.graph_step import device

    rows = [_apart(nodes) for nodes in NODES]
    table = Table(title=f"BGRL step, GCN {WIDTH}-{WIDTH}, 1,024 roots with 10 and 10 neighbours beside the full graph")
    for title in ("nodes", "full ms", "sampled ms", "full is … × slower", "full MiB", "sampled MiB", "graph MiB"):
        table.add_column(title, justify="right")
    for row in rows:
        ms, peak = row["ms"], row["peak_mib"]
        numbers = (ms["full"], ms["neighbours"], ms["full"] / ms["neighbours"], peak["full"], peak["neighbours"])
        table.add_row(f"{row['nodes']:,}", *(f"{number:,.1f}" for number in numbers), f"{row['held_mib']:,.0f}")
    found = slopes(rows)
    console = Console()
    console.print(table)
    for what, of in found.items():
        console.print(f"slope of {what} on log-log axes: " + ", ".join(f"{k} {v:.2f}" for k, v in of.items()))
    return {
        "benchmark": "large-graph",
        "environment": environment(1, device(), sys.argv),
        "batchings": BATCHINGS,
        "results": rows,
        "slopes": found,
    }


def slopes(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Slope of each quantity over nodes, from the smallest size to the largest, both on logarithmic axes."""
    first, last = rows[0], rows[-1]
    decades = math.log(last["nodes"] / first["nodes"])
    return {
        what: {name: math.log(max(last[key][name], 1e-3) / max(first[key][name], 1e-3)) / decades for name in BATCHINGS}
        for what, key in (("time", "ms"), ("memory", "peak_mib"))
    }


def measure(
    nodes: int, batchings: Mapping[str, Mapping[str, Any]] = BATCHINGS, *, rounds: int = ROUNDS
) -> dict[str, Any]:
    """Milliseconds a step (median and all of them) and the peak of the steps in MiB, of each way to make batches."""
    import torch

    from sslcollapse.core.registry import ENCODERS, OBJECTIVES
    from sslcollapse.core.types import Context
    from sslcollapse.domains.graph.domain import GraphDomain
    from sslcollapse.training.module import SSLModule

    dataset = {"type": "csbm", "nodes": nodes, "features": FEATURES, "degree": 14.0}
    whole: Any = None
    steps: dict[str, _Step] = {}
    setup: dict[str, float] = {}
    for name, batching in batchings.items():
        domain = GraphDomain(Path(), dataset=dataset, batching=batching)
        if whole is not None:
            domain.use(whole)
        domain.load()
        whole = domain.dataset
        torch.manual_seed(0)
        encoder = ENCODERS.build({"type": "gcn", "hidden": [WIDTH, WIDTH]}, domain.in_shape)
        objective = OBJECTIVES.build({"type": "bgrl", "predictor_hidden": WIDTH})
        steps[name] = _Step(SSLModule(encoder, objective, total_steps=1000), domain.batches(0, Context()))
        start = time.perf_counter()
        steps[name]()  # sorts the edges
        setup[name] = time.perf_counter() - start
    held = _status("VmRSS")
    times: dict[str, list[float]] = {name: [] for name in batchings}
    peaks = dict.fromkeys(batchings, 0.0)
    for _ in range(rounds):
        for name, step in steps.items():
            before = _forget_peak()
            for _ in range(STEPS.get(name, 1)):
                start = time.perf_counter()
                step()
                times[name].append(1000 * (time.perf_counter() - start))
            peaks[name] = max(peaks[name], _status("VmHWM") - before)
    return {
        "nodes": nodes,
        "edges": whole.graphs[0].edge_index.shape[1],
        "threads": torch.get_num_threads(),
        "ms": {name: median(values) for name, values in times.items()},
        "ms_all": times,
        "peak_mib": peaks,
        "held_mib": held,
        "first_step_seconds": setup,
    }


class _Step:
    """Batch, forward, backward, optimiser and target, as the trainer takes them."""

    def __init__(self, module: Any, batches: Any) -> None:
        import torch

        self.module, self.batches, self.done = module, batches, 0
        self.optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3)

    def __call__(self) -> None:
        self.module(next(self.batches), self.done)["loss"].backward()
        self.optimizer.step()
        self.module.update_target(self.done)
        self.optimizer.zero_grad()
        self.done += 1


def _apart(nodes: int) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "tools.bench.large_graph", str(nodes)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _forget_peak() -> float:
    """Let the system count the peak of this process anew; returns what it holds now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> float:
    """A field of ``/proc/self/status``, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
