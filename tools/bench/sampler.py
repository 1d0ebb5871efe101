"""``bench sampler``: edges a second of sampled neighbourhoods, drawn and with their features, beside other ways.

One process, one thread, one block model; all ways take turns, a few batches a turn. ``plain`` is what a page of torch
does without much thought: a random number for every neighbour that a node could draw, the smallest ones win. PyTorch
Geometric's ``RandomNodeLoader`` has the edges within random parts of as many nodes as a sampled batch has, and its
``NeighborLoader`` is there where an extension that it needs can be imported. Steps of BGRL then say how long a step
waits for its batch, where the step makes it and where a thread makes it ahead.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

NODES, ROOTS, FANOUT, FEATURES, WIDTH = 1_000_000, 1024, (10, 10), 128, 64
ROUNDS, BATCHES, STEPS = 3, 3, 4


def main() -> dict[str, Any]:
    """Measure, print tables with ratios, return the record."""
    from sslcollapse.core.console import Console, Table
    from sslcollapse.runs.directory import environment
    from tools.bench.graph_step import device

    found = measure(NODES)
    ours = found["edges_a_second"]["ours"]
    table = Table(title=f"{NODES:,} nodes, {ROOTS:,} roots, neighbours {FANOUT}, {FEATURES} features, one thread")
    for title in ("", "million edges/s, drawn", "with features", "ours is … × faster"):
        table.add_column(title, justify="left" if not title else "right")
    for name, speed in found["edges_a_second"].items():
        cells = [f"{speed[part] / 1e6:,.2f}" if speed[part] else "" for part in ("drawn", "with_features")]
        table.add_row(name, *cells, f"{ours['with_features'] / speed['with_features']:,.2f}")
    console = Console()
    console.print(table)
    for name, reason in found["failed"].items():
        console.print(f"{name}: {reason}")
    for ahead, ms in found["steps"].items():
        console.print(f"BGRL, {ahead} batches ahead: {ms['step']:,.0f} ms a step, of which it waits {ms['waits']:,.1f}")
    return {"benchmark": "sampler", "environment": environment(1, device(), sys.argv), **found}


def measure(nodes: int, roots: int = ROOTS, rounds: int = ROUNDS, batches: int = BATCHES) -> dict[str, Any]:
    """Edges a second of every way that is there (medians over batches), why others are not, and steps of BGRL."""
    import torch

    from sslcollapse.core.memory import keep_freed_memory
    from sslcollapse.domains.graph.domain import GraphDomain

    keep_freed_memory()  # as training does
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        dataset = {"type": "csbm", "nodes": nodes, "features": FEATURES, "degree": 14.0}
        domain = GraphDomain(Path(), dataset=dataset)
        domain.load()
        ways, failed = _ways(domain, roots)
        seconds: dict[str, list[tuple[float, float, int]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                seconds[name] += [next(way) for _ in range(batches)]
        speeds = {
            name: {
                "drawn": median(edges / drawn if drawn else 0.0 for drawn, _, edges in times),
                "with_features": median(edges / (drawn + gathered) for drawn, gathered, edges in times),
                "edges_a_batch": median(edges for *_, edges in times),
            }
            for name, times in seconds.items()
        }
        return {
            "nodes": nodes,
            "edges_a_second": speeds,
            "failed": failed,
            "steps": {ahead: _steps(domain, dataset, roots, ahead) for ahead in (0, 2)},
        }
    finally:
        torch.set_num_threads(threads)


def _ways(domain: Any, roots: int) -> tuple[dict[str, Iterator[tuple[float, float, int]]], dict[str, str]]:
    """Name → endless (seconds to draw, seconds to gather, edges) of batches; and name → why one is not there."""
    import torch

    from sslcollapse.domains.graph.neighbours import InEdges, sampled

    view = domain.union([0])
    edges, x = InEdges.of(view.structure), view.x

    def ours(chosen: Any, step: int) -> tuple[Any, int]:
        sample = sampled(edges, chosen, FANOUT, [2 * step, 2 * step + 1])
        return sample.nodes, sample.edge_index.shape[1]

    def plain(chosen: Any, step: int) -> tuple[Any, int]:
        hops, drawn = [chosen], 0
        for most in FANOUT:
            start, end = edges.pointers[hops[-1]], edges.pointers[hops[-1] + 1]
            degree = end - start
            places = torch.arange(int(degree.max()))
            chance = torch.rand(len(degree), len(places)).masked_fill(places >= degree[:, None], 2.0)
            best = chance.argsort(dim=1)[:, :most]
            there = best < degree[:, None]
            source = edges.sources[(start[:, None] + best)[there]].long()
            there.nonzero()  # which root each is of
            hops.append(torch.unique(source, return_inverse=True)[0])
            drawn += len(source)
        return torch.cat(hops), drawn

    def timed(
        draw: Callable[[Any, int], tuple[Any, int]], gather: Callable[[Any], Any]
    ) -> Iterator[tuple[float, float, int]]:
        for step in count():
            chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(step))[:roots]
            start = time.perf_counter()
            nodes, drawn = draw(chosen, step)
            middle = time.perf_counter()
            gather(nodes)
            yield middle - start, time.perf_counter() - middle, drawn

    def loaded(loader: Any) -> Iterator[tuple[float, float, int]]:
        while True:
            batches = iter(loader)
            while True:
                start = time.perf_counter()
                if (batch := next(batches, None)) is None:
                    break
                yield 0.0, time.perf_counter() - start, batch.edge_index.shape[1]

    ways = {"ours": timed(ours, view.features.rows), "plain torch": timed(plain, lambda nodes: x[nodes])}
    failed: dict[str, str] = {}
    try:
        from torch_geometric.data import Data
        from torch_geometric.loader import NeighborLoader, RandomNodeLoader
    except ImportError as error:
        return ways, {"PyTorch Geometric": str(error)}
    data = Data(x=x, edge_index=view.structure.edge_index)
    parts = max(1, len(x) // (roots * 100))
    ways["RandomNodeLoader"] = loaded(RandomNodeLoader(data, num_parts=parts, shuffle=True))
    try:
        loader = NeighborLoader(data, num_neighbors=list(FANOUT), batch_size=roots, shuffle=True)
        next(iter(loader))
        ways["NeighborLoader"] = loaded(loader)
    except Exception as error:
        failed["NeighborLoader"] = f"{type(error).__name__}: {error}"
    return ways, failed


def _steps(domain: Any, dataset: dict[str, Any], roots: int, ahead: int) -> dict[str, float]:
    """Milliseconds of a BGRL step, and of its waiting for its batch; medians."""
    import torch

    from sslcollapse.core.registry import ENCODERS, OBJECTIVES
    from sslcollapse.core.types import Context
    from sslcollapse.domains.graph.domain import GraphDomain
    from sslcollapse.training.module import SSLModule

    batching = {"type": "neighbours", "batch_size": roots, "fanout": list(FANOUT), "ahead": ahead}
    sampling = GraphDomain(Path(), dataset=dataset, batching=batching)
    sampling.use(domain.dataset)
    torch.manual_seed(0)
    encoder = ENCODERS.build({"type": "gcn", "hidden": [WIDTH, WIDTH]}, sampling.in_shape)
    module = SSLModule(encoder, OBJECTIVES.build({"type": "bgrl", "predictor_hidden": WIDTH}), total_steps=1000)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3)
    batches: Any = sampling.batches(0, Context())
    waits, steps = [], []
    for step in range(3 + STEPS):
        start = time.perf_counter()
        batch = next(batches)
        waits.append(1000 * (time.perf_counter() - start))
        module(batch, step)["loss"].backward()
        optimizer.step()
        module.update_target(step)
        optimizer.zero_grad()
        steps.append(1000 * (time.perf_counter() - start))
    batches.close()
    return {"step": median(steps[3:]), "waits": median(waits[3:])}
