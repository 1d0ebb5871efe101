"""``bench graph-scale``: what a sampled step, evaluation and ranks cost by number of nodes, of graphs that are on disk.

Block models are packed to a folder (``sslcollapse graph pack``), and stay there for the next run. Then each size is
trained, evaluated and measured in a process of its own, sizes in turn, in several rounds. Memory is ``RssAnon``, what a
process holds beside files that are mapped to it, at its highest, and ``RssFile`` beside it. A last row compares
the roots a second of one process with those of two, each with one thread. Slopes are of a line through all sizes, both
axes logarithmic.
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

NODES = (10_000, 100_000, 1_000_000, 10_000_000)
BATCH, FANOUT = 256, (5, 5)
"""Roots a step, few enough that their surroundings are as many nodes in the smallest graph, nearly."""
FEATURES, WIDTH, DEGREE, STORED = 128, 128, 14.0, "float16"
ROUNDS, STEPS, WARM = 2, 40, 5
SHARED_STEPS = 30


def main(nodes: Sequence[int] = NODES, folder: Path | None = None, batch: int = BATCH) -> dict[str, Any]:
    """Pack, measure and compare; print a table; return the record.

    Args:
        nodes: sizes, ascending.
        folder: for the graphs, which stay there; by default in the system's temporary folder.
        batch: roots a step.
    """
    from sslcollapse.core.console import Console, Table
    from sslcollapse.runs.directory import environment
    from tools.bench.graph_step import device

    where = folder or Path(tempfile.gettempdir()) / "sslcollapse-graph-scale"
    packed = [_apart("pack", where, nodes=size) for size in nodes]
    rows = [_apart("measure", where, nodes=size, batch=batch) for size in nodes]
    for _ in range(ROUNDS - 1):
        for row in reversed(rows):
            row["ms_all"] += _apart("measure", where, nodes=row["nodes"], batch=batch, evaluate=False)["ms_all"]
    for row, of in zip(rows, packed, strict=True):
        row |= {"ms": median(row["ms_all"]), "pack": of}
    shared = _two_processes(where, nodes[min(1, len(nodes) - 1)], batch)
    found = {name: slope(nodes, [row[name] for row in rows]) for name in ("ms", "anonymous_mib", *SECONDS)}
    flat = {name: max(row[name] for row in rows) / min(row[name] for row in rows) for name in ("ms", "anonymous_mib")}

    console = Console()
    table = Table(
        title=f"BGRL, GCN {WIDTH}-{WIDTH}, {batch} roots with {FANOUT[0]} and {FANOUT[1]} neighbours, on disk"
    )
    titles = ("nodes", "edges", "rows a step", "step ms", "own MiB", "mapped MiB", "probe s", "ranks s")
    for title in (*titles, "own MiB, evaluating", "pack s", "on disk GB"):
        table.add_column(title, justify="right")
    for row in rows:
        counts = (row["nodes"], row["edges"], round(row["rows_a_step"]))
        numbers = (row["ms"], row["anonymous_mib"], row["mapped_mib"], row["probe_seconds"], row["rank_seconds"])
        rest = (row["evaluation_anonymous_mib"], row["pack"]["seconds"], row["pack"]["bytes"] / 1e9)
        table.add_row(*(f"{count:,}" for count in counts), *(f"{number:,.1f}" for number in (*numbers, *rest)))
    console.print(table)
    console.print("slopes on log-log axes: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()))
    console.print("largest over smallest: " + ", ".join(f"{name} {value:.2f}" for name, value in flat.items()))
    console.print(
        f"{shared['nodes']:,} nodes: {shared['one']:,.0f} roots a second by one process, {shared['two']:,.0f} by two "
        f"with one thread each: {shared['ratio']:.2f} ×"
    )
    return {
        "benchmark": "graph-scale",
        "environment": environment(1, device(), sys.argv),
        "batch": batch,
        "fanout": FANOUT,
        "features": FEATURES,
        "width": WIDTH,
        "results": rows,
        "slopes": found,
        "largest_over_smallest": flat,
        "processes": shared,
    }


SECONDS = ("probe_seconds", "rank_seconds")


def slope(nodes: Sequence[int], values: Sequence[float]) -> float:
    """Of the line of least squares through the logarithms; 0 of a single size."""
    x, y = [math.log(each) for each in nodes], [math.log(max(value, 1e-9)) for value in values]
    centre, level = sum(x) / len(x), sum(y) / len(y)
    spread = sum((each - centre) ** 2 for each in x)
    return sum((a - centre) * (b - level) for a, b in zip(x, y, strict=True)) / spread if spread else 0.0


def pack(folder: Path, *, nodes: int) -> dict[str, Any]:
    """Write the block model of a size, unless it is there; seconds, bytes on disk and the highest ``RssAnon``."""
    from sslcollapse.domains.graph.domain import GraphDomain

    dataset = {"type": "csbm", "nodes": nodes, "features": FEATURES, "degree": DEGREE, "signal": 1.0}
    domain, place = GraphDomain(Path(), dataset=dataset), folder / str(nodes)
    start = time.perf_counter()
    with highest() as peaks:
        written = domain.pack(place, features=STORED, memory=2**28, progress=lambda line: None)
    size = sum(path.stat().st_size for path in place.iterdir())
    return {
        "seconds": time.perf_counter() - start,
        "written_now": written,
        "bytes": size,
        "anonymous_mib": peaks["RssAnon"],
    }


def measure(folder: Path, *, nodes: int, batch: int, evaluate: bool = True, steps: int = STEPS) -> dict[str, Any]:
    """Milliseconds a step, memory of the steps, and what evaluation and ranks of all nodes take, of one size."""
    from sslcollapse.probes.evaluate import build_probes, rows_read, run_probes
    from sslcollapse.rank.measure import measure as ranks
    from sslcollapse.rank.measure import represent

    domain = _domain(folder, nodes, batch)
    step = _Step(domain, 0, 1)
    sizes: list[int] = []
    times: list[float] = []
    for _ in range(WARM):
        step()
    with highest() as peaks:
        for _ in range(steps):
            start = time.perf_counter()
            step()
            times.append(1000 * (time.perf_counter() - start))
            sizes.append(step.rows)
    found: dict[str, Any] = {
        "nodes": nodes,
        "edges": domain.dataset.graphs[0].num_edges,
        "rows_a_step": sum(sizes) / len(sizes),
        "ms_all": times,
        "anonymous_mib": peaks["RssAnon"],
        "mapped_mib": peaks["RssFile"],
    }
    if not evaluate:
        return found
    probes, probe_set = build_probes({"public": {"type": "logistic", "c_step": 5}}), domain.probe_set()
    with highest() as peaks:
        start = time.perf_counter()
        rows = rows_read(probes, probe_set)
        features = represent(step.module.encoder, probe_set.only(rows))
        found["encode_seconds"] = time.perf_counter() - start
        result, _ = run_probes(probes, features, probe_set, rows=rows)
        found["probe_seconds"] = time.perf_counter() - start
        del features
        start = time.perf_counter()
        measured = ranks(step.module.encoder, probe_set.views, predictor=step.module.predictor)
        found["rank_seconds"] = time.perf_counter() - start
    return found | {
        "evaluation_anonymous_mib": peaks["RssAnon"],
        "test_accuracy": result["public"]["test_accuracy"]["mean"],
        "effective_rank": measured.ranks["representation"]["effective_rank"],
    }


def share(folder: Path, *, nodes: int, batch: int, rank: int, world: int, port: int) -> dict[str, Any]:
    """Seconds a step of one of several processes, which share the roots."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    step = _Step(_domain(folder, nodes, batch), rank, world)
    if world > 1:
        step.wrapped = DistributedDataParallel(step.module)
    for _ in range(WARM):
        step()
    times = []
    for _ in range(SHARED_STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    if world > 1:
        torch.distributed.destroy_process_group()
    return {"seconds": median(times)}


class _Step:
    """Batch, forward, backward, optimiser and target, as the trainer takes them."""

    def __init__(self, domain: Any, rank: int, world: int) -> None:
        import torch

        from sslcollapse.core.registry import ENCODERS, OBJECTIVES
        from sslcollapse.core.types import Context
        from sslcollapse.training.module import SSLModule

        torch.manual_seed(0)
        encoder = ENCODERS.build({"type": "gcn", "hidden": [WIDTH, WIDTH], "norm": "layer"}, domain.in_shape)
        objective = OBJECTIVES.build({"type": "bgrl", "predictor_hidden": WIDTH})
        self.module = SSLModule(encoder, objective, total_steps=1000)
        self.wrapped: Any = self.module
        self.optimizer = torch.optim.AdamW([p for p in self.module.parameters() if p.requires_grad], lr=1e-3)
        self.batches: Iterator[Any] = domain.batches(0, Context(rank=rank, world_size=world))
        self.done = self.rows = 0

    def __call__(self) -> None:
        batch = next(self.batches)
        self.rows = batch.views[0].num_nodes
        self.wrapped(batch, self.done)["loss"].backward()
        self.optimizer.step()
        self.module.update_target(self.done)
        self.optimizer.zero_grad()
        self.done += 1


def _domain(folder: Path, nodes: int, batch: int) -> Any:
    from sslcollapse.domains.graph.domain import GraphDomain

    domain = GraphDomain(
        Path(),
        dataset={"type": "stored", "path": str((folder / str(nodes)).resolve())},
        batching={"type": "neighbours", "batch_size": batch, "fanout": list(FANOUT)},
    )
    domain.load()
    return domain


def _two_processes(folder: Path, nodes: int, batch: int) -> dict[str, Any]:
    """Roots a second of one process and of two, in turn."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for world, found in seconds.items():
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            started = [
                _start("share", folder, nodes=nodes, batch=batch, rank=rank, world=world, port=port)
                for rank in range(world)
            ]
            found.append(max(_result(process)["seconds"] for process in started))
    one, two = (batch / median(seconds[world]) for world in (1, 2))
    return {"nodes": nodes, "one": one, "two": two, "ratio": two / one, "seconds": seconds}


@contextmanager
def highest() -> Iterator[dict[str, float]]:
    """The highest ``RssAnon`` and ``RssFile`` of this process within, in MiB, looked at every 20 ms."""
    peaks = {"RssAnon": 0.0, "RssFile": 0.0}
    over = threading.Event()

    def look() -> None:
        lines = Path("/proc/self/status").read_text().splitlines()
        for name in peaks:
            now = next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))
            peaks[name] = max(peaks[name], now)

    def keep_looking() -> None:
        while not over.wait(0.02):
            look()

    watcher = threading.Thread(target=keep_looking, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()
        look()


JOBS: dict[str, Callable[..., dict[str, Any]]] = {"pack": pack, "measure": measure, "share": share}


def _start(job: str, folder: Path, **arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-m", "tools.bench.graph_scale", job, str(folder.resolve())]
    root, one_thread = Path(__file__).parents[2], {"OMP_NUM_THREADS": "1"} if job == "share" else {}
    return subprocess.Popen(
        [*command, json.dumps(arguments)], stdout=subprocess.PIPE, text=True, cwd=root, env={**os.environ, **one_thread}
    )


def _result(process: subprocess.Popen[str]) -> dict[str, Any]:
    shown, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, process.args[-3:]))} ended with {process.returncode}")  # type: ignore[index]
    found: dict[str, Any] = json.loads(shown.splitlines()[-1])
    return found


def _apart(job: str, folder: Path, **arguments: Any) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    return _result(_start(job, folder, **arguments))


if __name__ == "__main__":
    print(json.dumps(JOBS[sys.argv[1]](Path(sys.argv[2]), **json.loads(sys.argv[3]))))
