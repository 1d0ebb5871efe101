"""``bench monitor``: what a ``CollapseMonitor`` adds to a training epoch, what a measurement costs, and memory.

A measured step and a plain one take turns in one process; the epoch's overhead is (measured steps × what one adds +
one summary) / (steps × a plain step), since most steps are plain by design. Of a deep transformer and of a ViT-S it is
told what one measured step with its summary costs in training steps.

A measurement is what a run does every ``monitor.every`` steps: the probe set through the network in eval mode, in
float32, and every rank. Its cost is given in steps, as a whole and without the forward passes, which depend on the
number of samples; on a GPU by each route of ``sslcollapse.rank.batch``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch

from sslcollapse.core.memory import keep_freed_memory
from sslcollapse.core.precision import device_of, full_precision
from sslcollapse.core.registry import OPTIMIZERS
from sslcollapse.core.types import Context
from sslcollapse.rank.batch import ROUTES
from sslcollapse.rank.measure import measure
from sslcollapse.rank.monitor import EVERY, CollapseMonitor
from sslcollapse.rank.recorder import evaluating
from sslcollapse.recipe import resolve
from sslcollapse.training.build import build_domain, build_module
from tools.bench.graph_step import available_datasets
from tools.bench.graph_step import device as device_title
from tools.bench.vision_step import SIZE


class Training(NamedTuple):
    """A network, what does one training step with it, and un-augmented inputs."""

    module: Any
    step: Callable[[], None]
    views: Any


SAMPLES, DIM, CHUNK = 1_000_000, 512, 4096
MEMORY = f"""
import os, torch
from sslcollapse.rank.covariance import StreamingCovariance

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

torch.set_num_threads(1)
chunk = torch.randn({CHUNK}, {DIM})
chunk.t() @ chunk
before = peak = resident()
stream = StreamingCovariance({DIM}, chunk.device)
for _ in range({SAMPLES} // {CHUNK} + 1):
    stream.update(chunk)
    peak = max(peak, resident())
stream.singular_values(centred=True)
print(max(peak, resident()) - before)
"""


def main() -> dict[str, Any]:
    """Measure, print a table, return the record."""
    from sslcollapse.core.console import Console, Table
    from sslcollapse.runs.directory import environment

    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    keep_freed_memory()
    label, dataset = next(iter(available_datasets().items()))
    where = "cuda" if torch.cuda.is_available() else "cpu"
    trainings = {
        f"BGRL, GCN 512-256, {label}": (graph_training(dataset, where), 300, 15),
        "SimCLR, ResNet-18, CIFAR-10's size, batch 256": (image_training(where), 195, 3),
    }
    cases = {name: overhead(training, steps=steps, rounds=n) for name, (training, steps, n) in trainings.items()}
    costs = {name: measurements(training, n) for name, (training, _, n) in trainings.items()}
    deep = large_networks(where)
    table = Table(title=f"CollapseMonitor, every {EVERY} steps, one summary an epoch")
    for title in ("", "step, ms", "measured step adds, ms", "summary, ms", "steps an epoch", "adds"):
        table.add_column(title, justify="left" if not title else "right")
    for name, case in cases.items():
        ms = [f"{case[key]:.1f}" for key in ("step_ms", "measuring_ms", "summary_ms")]
        table.add_row(name, *ms, str(case["steps"]), f"{100 * case['overhead']:.2f} %")
    console = Console()
    console.print(table)
    console.print(cost_table(costs))
    console.print(deep_table(deep))
    peak = memory()
    console.print(f"{SAMPLES:,} samples of {DIM} features: resident memory grows by {peak:.0f} MiB")
    return {
        "benchmark": "monitor",
        "environment": environment(1, device_title(), sys.argv),
        "threads": torch.get_num_threads(),
        "load_average_before": load,
        "every": EVERY,
        "results": cases,
        "measurements": costs,
        "large_networks": deep,
        "memory": {"samples": SAMPLES, "features": DIM, "mib": peak},
    }


def overhead(step: Training, steps: int, rounds: int) -> dict[str, float]:
    """Seconds of plain steps, of what measuring adds, and of a summary; their share of an epoch of ``steps``."""
    module, train, _ = step
    train()
    plain, added, summaries = [], [], []
    for index in range(rounds):
        times = {}
        for measured in (False, True) if index % 2 else (True, False):
            with CollapseMonitor(module, every=1) if measured else nullcontext() as monitor:
                times[measured] = _seconds(train)
                if monitor is not None:
                    summaries.append(_seconds(monitor.summary))
        plain.append(times[False])
        added.append(times[True] - times[False])
    count = -(-steps // EVERY)
    share = (count * median(added) + median(summaries)) / (steps * median(plain))
    return {
        "step_ms": 1e3 * median(plain),
        "measuring_ms": 1e3 * median(added),
        "summary_ms": 1e3 * median(summaries),
        "steps": steps,
        "overhead": share,
    }


DEEP = {"transformer, 48 layers of width 512": (48, 512, 8), "ViT-S/16, images of 224": (12, 384, 6)}
"""Blocks, width and heads."""


def large_networks(
    device: str, shapes: Mapping[str, tuple[int, int, int]] = DEEP, rounds: int = 3, tokens: int = 0
) -> dict[str, dict[str, float]]:
    """Network → a training step, what measuring one adds, its summary, and the two in training steps.

    Args:
        device: where.
        shapes: of the networks.
        rounds: plain and measured steps, in turn.
        tokens: rows of a layer's output in one step; by default 8,192 on a GPU and 512 on a CPU.
    """
    tokens = tokens or (8192 if device == "cuda" else 512)
    found = {}
    for name, (depth, width, heads) in shapes.items():
        case = overhead(block_training(depth, width, heads, tokens, device), steps=1, rounds=rounds)
        kept = {key: case[key] for key in ("step_ms", "measuring_ms", "summary_ms")}
        cost = (kept["measuring_ms"] + kept["summary_ms"]) / kept["step_ms"]
        found[name] = {"tokens": tokens, **kept, "training_steps": cost, "share_of_an_epoch": cost / EVERY}
    return found


def deep_table(cases: Mapping[str, Mapping[str, float]]) -> Any:
    """What a measured step of each network costs."""
    from sslcollapse.core.console import Table

    table = Table(title=f"One measured step with its summary; share where every {EVERY}th is measured")
    for title in ("", "step, ms", "measuring adds, ms", "summary, ms", "in training steps", "share"):
        table.add_column(title, justify="left" if not title else "right")
    for name, case in cases.items():
        ms = [f"{case[key]:.0f}" for key in ("step_ms", "measuring_ms", "summary_ms")]
        table.add_row(name, *ms, f"{case['training_steps']:.2f}", f"{100 * case['share_of_an_epoch']:.1f} %")
    return table


def block_training(depth: int, width: int, heads: int, tokens: int, device: str) -> Training:
    """AdamW on blocks of timm's transformer, whose maps all show their product; sequences of 64 tokens."""
    from timm.models.vision_transformer import Block

    torch.manual_seed(0)
    network = torch.nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth))).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    x = torch.randn(max(tokens // 64, 1), 64, width, device=device)

    def train() -> None:
        optimizer.zero_grad()
        (network(x) - x).square().mean().backward()
        optimizer.step()

    return Training(network, train, None)


def measurements(training: Training, rounds: int) -> dict[str, dict[str, float]]:
    """Route → cost of a measurement in ms and in steps; steps and measurements take turns."""
    module, train, views = training
    device = device_of(module)
    heads: dict[str, Any] = dict(projector=module.projector, predictor=module.predictor)
    routes = ROUTES if device.type == "cuda" else ("host",)

    def forward() -> None:
        with full_precision(device, convolutions=True), evaluating(module):
            for view in views:
                module.branch(view)

    works: dict[str, Callable[[], Any]] = {"step": train, "forward": forward}
    works |= {route: partial(measure, module.encoder, views, **heads, route=route) for route in routes}
    times: dict[str, list[float]] = {name: [] for name in works}
    for index in range(rounds + 1):
        for name, work in works.items():
            seconds = _seconds(work)
            if index:  # the first time is not counted
                times[name].append(seconds)
    ms = {name: 1e3 * median(values) for name, values in times.items()}
    samples = measure(module.encoder, views).ranks["representation"]["n"]
    return {
        route: {
            "samples": samples,
            "step_ms": ms["step"],
            "forward_ms": ms["forward"],
            "measurement_ms": ms[route],
            "steps": ms[route] / ms["step"],
            "steps_without_forward": (ms[route] - ms["forward"]) / ms["step"],
        }
        for route in routes
    }


def cost_table(costs: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Any:
    """The cost of a measurement in steps, networks side by side."""
    from sslcollapse.core.console import Table

    table = Table(title="One measurement of a run")
    for title in ("", *costs):
        table.add_column(title, justify="left" if not title else "right")
    first = next(iter(costs.values()))
    table.add_row("samples", *(f"{case[next(iter(case))]['samples']:,}" for case in costs.values()))
    for route in first:
        for key, title, form in (
            ("step_ms", "step, ms", "{:.1f}"),
            ("forward_ms", "forward passes, ms", "{:.1f}"),
            ("measurement_ms", "measurement, ms", "{:.1f}"),
            ("steps", "in steps", "{:.2f}"),
            ("steps_without_forward", "in steps, without forward passes", "{:.2f}"),
        ):
            label = title if key in ("step_ms", "forward_ms") else f"{title} ({route})"
            if route == next(iter(first)) or label != title:
                table.add_row(label, *(form.format(case[route][key]) for case in costs.values()))
    return table


def memory() -> float:
    """MiB by which a Linux process grows while it streams many samples, the most after any of them."""
    done = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True)
    return float(done.stdout) / 1024**2


def graph_training(dataset: dict[str, Any], device: str = "cpu", hidden: Sequence[int] = (512, 256)) -> Training:
    """BGRL on a graph."""
    return _training(
        {"type": "graph", "dataset": dataset, "views": {"edge_drop": [0.2, 0.3], "feature_mask": [0.2, 0.1]}},
        {"type": "gcn", "hidden": list(hidden)},
        {"type": "bgrl"},
        torch.device(device),
    )


def image_training(device: str = "cpu", batch: int = 256, encoder: str = "resnet18") -> Training:
    """SimCLR on images of CIFAR-10's size."""
    return _training(
        {"type": "vision", "dataset": {"type": "fake", "train": 16 * batch, "size": SIZE}, "batch_size": batch},
        {"type": encoder},
        {"type": "simclr", "projector": [512, 128]},
        torch.device(device),
    )


def _training(
    domain: dict[str, Any], encoder: dict[str, Any], objective: dict[str, Any], device: torch.device
) -> Training:
    """A recipe as far as a step and a measurement need it."""
    recipe = resolve(
        {
            "name": "bench",
            "domain": domain,
            "encoder": encoder,
            "objective": objective,
            "optim": {"type": "adamw", "lr": 1e-3, "schedule": "constant"},
            "train": {"steps": 1_000},
        }
    )
    source = build_domain(recipe)
    module = build_module(recipe, source).to(device).train()
    optimizer = OPTIMIZERS.build(recipe["optim"]).build(module)
    batch = next(source.batches(0, Context(device=device)))

    def train() -> None:
        optimizer.zero_grad()
        module(batch, 0)["loss"].backward()
        optimizer.step()
        module.update_target(0)

    views, _ = source.probe_set().to(device).measured(None)
    return Training(module, train, views)


def _seconds(work: Callable[[], Any]) -> float:
    _wait()
    began = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - began


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
