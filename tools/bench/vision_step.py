"""``bench vision-step``: what WERank adds to a SimCLR step of ResNet-18, and on a GPU how fast the step is.

On a GPU: views a second of our step on ready tensors, fed by the resident domain, and with compiled networks besides;
beside them a loop of lightly's parts with as many workers as cores, on the same batch and views. The step's products
are set against what one large bfloat16 product reaches on the same device.

Steps with and without WERank take turns in one process on the same ready views; ratios are taken within a round,
reported is their median. Seconds a step leave few rounds on a CPU, so the added work, which is WERank's forward and
backward pass alone, is timed by itself too, in every round, and given as a share of the step without it: that is far
less noisy than a difference of two steps.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from sslcollapse.core.memory import keep_freed_memory
from sslcollapse.core.registry import ENCODERS, OPTIMIZERS
from sslcollapse.core.types import Batch, Context
from sslcollapse.recipe import resolve
from sslcollapse.training.build import build_domain, build_module, prepare_networks
from tools.bench.graph_step import device as device_title
from tools.bench.plain_simclr import loader_workers


@dataclass(frozen=True)
class Scale:
    """How much is measured, and in which precision.

    Attributes:
        batch: images a step.
        rounds: turns of all contenders.
        steps: of a contender in a turn.
        repeats: of the work that WERank adds.
        images: of the data set.
        precision: as a recipe has it.
        peak: rows and columns of the product whose speed is the device's peak.
        compiler: backend of ``torch.compile``.
        workers: processes of lightly's loader; None is one a core.
    """

    batch: int
    rounds: int
    steps: int
    repeats: int
    images: int
    precision: str
    peak: int = 1024
    compiler: str = "inductor"
    workers: int | None = None


ON_CPU = Scale(batch=256, rounds=4, steps=1, repeats=5, images=1024, precision="no")
ON_GPU = Scale(batch=512, rounds=15, steps=10, repeats=50, images=50_000, precision="bf16", peak=8192)
SIZE = 32
COSTS = {
    "plain": "step",
    "werank": "step + WERank on all 20 encoder layers",
    "part": "WERank alone",
    "products": "its two products alone",
}
FEEDS = {
    "ready": "ours on ready tensors",
    "resident": "ours",
    "compiled": "ours, networks compiled",
    "lightly": "a loop of lightly's parts",
}
SMALL = Scale(
    batch=8, rounds=1, steps=1, repeats=1, images=32, precision="bf16", peak=256, compiler="aot_eager", workers=1
)
"""So small that times mean nothing, to try that all of it runs."""
PROJECTOR = (2048, 128)
"""Widths of the projector, which are the defaults here and in lightly."""


def main(*, smoke: bool = False) -> dict[str, Any]:
    """Measure, print tables with ratios, return the record."""
    from sslcollapse.core.console import Console, Table
    from sslcollapse.runs.directory import environment

    load = os.getloadavg() if hasattr(os, "getloadavg") else None  # says how busy others kept it
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scale = SMALL if smoke else ON_GPU if device.type == "cuda" else ON_CPU
    encoder, console = "resnet_narrow" if smoke else "resnet18", Console()
    werank = cost_of_werank(device, scale, encoder)
    record: dict[str, Any] = {"werank": werank}
    table = Table(title=f"SimCLR step, {encoder} (CIFAR stem), batch {scale.batch}, precision {scale.precision}")
    for title in ("", "ms", "× the plain step"):
        table.add_column(title, justify="left" if not title else "right")
    for name, title in COSTS.items():
        table.add_row(title, f"{werank['ms'][name]:.1f}", f"{werank['times_plain'][name]:.4f}")
    console.print(table)
    if smoke or device.type == "cuda":
        record["feeds"] = feeds = rates(device, scale, encoder=encoder)
        table = Table(title=f"the same step; {feeds['bf16_tflops']:.1f} TFLOP/s in one bf16 product")
        for title in ("", "views/s", "share of bf16", "× lightly", "× ready"):
            table.add_column(title, justify="left" if not title else "right")
        for name, speed in feeds["views_a_second"].items():
            ratios = [f"{feeds[of][name]:.2f}" if name in feeds[of] else "" for of in ("times_lightly", "times_ready")]
            table.add_row(FEEDS[name], f"{speed:,.0f}", f"{feeds['share_of_measured_bf16'][name]:.1%}", *ratios)
        console.print(table)
        for name, why in feeds["failed"].items():
            console.print(f"{FEEDS[name]}: {why}")
    return {
        "benchmark": "vision-step",
        "environment": environment(1, device_title(), sys.argv),
        "threads": torch.get_num_threads(),
        "load_average_before": load,
        "scale": vars(scale),
        "results": record,
    }


def cost_of_werank(device: torch.device, scale: Scale, encoder: str = "resnet18") -> dict[str, Any]:
    """The step with and without WERank in turns, and WERank's own work by itself."""
    plain, werank = (Step(device, scale, werank=on, encoder=encoder) for on in (False, True))
    batch = next(plain.batches)
    turns = {"plain": plain, "werank": werank}
    for step in turns.values():
        timed(lambda step=step: step(batch), device, min(2, scale.steps))
    rounds: list[dict[str, float]] = []
    for index in range(scale.rounds):
        order = list(turns.items())[:: 1 if index % 2 else -1]
        turn = {name: timed(lambda step=step: step(batch), device, scale.steps) for name, step in order}
        turn["part"] = werank.penalty_alone(scale.repeats)
        turn["products"] = werank.products_alone(scale.repeats)
        rounds.append(turn)
    return {
        "ms": {name: 1e3 * median(turn[name] for turn in rounds) for name in rounds[0]},
        "times_plain": {name: median(turn[name] / turn["plain"] for turn in rounds) for name in rounds[0]},
        "rounds_ms": [{name: 1e3 * seconds for name, seconds in turn.items()} for turn in rounds],
        "layers": len(werank.module.regularized_layers()),
    }


def rates(device: torch.device, scale: Scale, *, encoder: str = "resnet18") -> dict[str, Any]:
    """Images and views a second (two views are made of each image) of our step and of lightly's loop, taking turns.

    What cannot be run (lightly where it is not installed, a compiler that the machine lacks) is named under ``failed``.
    """
    plain = Step(device, scale, werank=False, encoder=encoder)
    ready = next(plain.batches)
    made: dict[str, Callable[[], Callable[[], None]]] = {
        "ready": lambda: lambda: plain(ready),
        "resident": lambda: lambda: plain(next(plain.batches)),
        "compiled": lambda: compiled_step(device, scale, encoder),
        "lightly": lambda: lightly_step(plain, scale, encoder),
    }
    steps: dict[str, Callable[[], None]] = {}
    failed: dict[str, str] = {}
    for name, make in made.items():
        try:
            steps[name] = make()
            timed(steps[name], device, 2 * scale.steps)
        except Exception as error:
            steps.pop(name, None)
            failed[name] = f"{type(error).__name__}: {error}"[:500]
    rounds = [
        {name: scale.batch / timed(step, device, 4 * scale.steps) for name, step in steps.items()}
        for _ in range(max(min(3, scale.rounds), scale.rounds // 3))
    ]
    speed = {name: median(turn[name] for turn in rounds) for name in steps}
    flops, peak = plain.flops(ready), product_speed(device, scale.peak, torch.bfloat16)
    tflops = {name: 1e-12 * flops * images / scale.batch for name, images in speed.items()}

    def times(other: str) -> dict[str, float]:
        return {name: median(turn[name] / turn[other] for turn in rounds) for name in steps if other in steps}

    return {
        "images_a_second": speed,
        "views_a_second": {name: 2 * images for name, images in speed.items()},
        "times_lightly": times("lightly"),
        "times_ready": times("ready"),
        "flops_a_step": flops,
        "tflops_a_second": tflops,
        "bf16_tflops": peak,
        "share_of_measured_bf16": {name: value / peak for name, value in tflops.items()},
        "loader_workers": loader_workers() if scale.workers is None else scale.workers,
        "failed": failed,
    }


def compiled_step(device: torch.device, scale: Scale, encoder: str) -> Callable[[], None]:
    """Our step from the resident domain, with compiled networks."""
    step = Step(device, scale, werank=False, encoder=encoder)
    for network in (step.module.encoder, step.module.projector):
        network.compile(backend=scale.compiler)
    return lambda: step(next(step.batches))


def lightly_step(plain: Step, scale: Scale, encoder: str) -> Callable[[], None]:
    """The step of lightly's loop, with an encoder of its own and the images of ours."""
    from tools.bench.plain_simclr import PlainSimCLR

    domain, half = plain.domain, scale.precision == "bf16"
    network = ENCODERS.build(encoder_spec(encoder), domain.in_shape)
    workers = loader_workers() if scale.workers is None else scale.workers
    pixels = domain.dataset.images.pixels[: scale.images]  # those of the training set, which come first
    return PlainSimCLR(network, pixels, scale.batch, PROJECTOR, plain.device, half=half, workers=workers)


def encoder_spec(name: str) -> dict[str, Any]:
    """An encoder of images of 32 pixels."""
    return {"type": name, "stem": "cifar"} if name == "resnet18" else {"type": name}


def product_speed(device: torch.device, n: int, dtype: torch.dtype) -> float:
    """TFLOP/s of a product of two n × n matrices."""
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    timed(lambda: torch.mm(a, b, out=out), device, 3)
    return 2e-12 * n**3 / timed(lambda: torch.mm(a, b, out=out), device, 10)


class Step:
    """One optimiser step as the trainer does it, on a given batch."""

    def __init__(self, device: torch.device, scale: Scale, *, werank: bool, encoder: str = "resnet18") -> None:
        recipe = resolve(
            {
                "name": "bench",
                "domain": {
                    "type": "vision",
                    "dataset": {"type": "fake", "train": scale.images, "size": SIZE},
                    "views": {"preset": "simclr"},
                    "batch_size": scale.batch,
                },
                "encoder": encoder_spec(encoder),
                "objective": {"type": "simclr", "projector": list(PROJECTOR)},
                "regularizers": {"werank": {"type": "werank", "coefficient": 1e-3}} if werank else {},
                "optim": {"type": "sgd", "lr": 1e-3, "schedule": "constant"},
                "train": {"steps": 1, "channels_last": True, "precision": scale.precision},
            }
        )
        self.device = device
        self.domain: Any = build_domain(recipe)
        self.module = build_module(recipe, self.domain).to(device).train()
        prepare_networks(recipe, self.module, self.domain, 1)
        self.optimizer = OPTIMIZERS.build(recipe["optim"]).build(self.module)
        self.batches = self.domain.batches(0, Context(device=device))
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=scale.precision == "bf16")

    def __call__(self, batch: Batch) -> None:
        """Forward, backward, update."""
        with self.autocast:
            loss = self.module(batch, 0)["loss"]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def flops(self, batch: Batch) -> int:
        """Floating-point operations of one step's products and convolutions, forward and backward."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self(batch)
        return int(counter.get_total_flops())

    def penalty_alone(self, repeats: int) -> float:
        """Median seconds of WERank's forward and backward pass, added to gradients that are already there."""
        for p in self.module.parameters():
            p.grad = torch.zeros_like(p)

        def run() -> None:
            with self.autocast:
                loss = sum(coefficient * value for _, _, value, coefficient in self.module.weight_penalties(0))
            loss.backward()

        seconds = self._median(run, repeats)
        self.optimizer.zero_grad()
        return seconds

    def products_alone(self, repeats: int) -> float:
        """Median seconds of what WERank cannot do without: a Gram matrix and its product with the weight, a layer."""
        weights = [self.module.layers[name].weight().detach() for name in sorted(self.module.regularized_layers())]
        small = [w if w.shape[0] <= w.shape[1] else w.t() for w in weights]
        grams = [w.new_empty(w.shape[0], w.shape[0]) for w in small]
        outs = [torch.empty_like(w) for w in small]

        def run() -> None:
            for w, gram, out in zip(small, grams, outs, strict=True):
                torch.mm(w, w.t(), out=gram)
                torch.mm(gram, w, out=out)

        return self._median(run, repeats)

    def _median(self, run: Callable[[], None], repeats: int) -> float:
        timed(run, self.device, 2)
        return median(timed(run, self.device, 1) for _ in range(repeats))


def timed(run: Callable[[], Any], device: torch.device, times: int) -> float:
    """Seconds a call, over several calls in a row; a GPU's queued work is waited for before and after."""
    _synchronize(device)
    began = time.perf_counter()
    for _ in range(times):
        run()
    _synchronize(device)
    return (time.perf_counter() - began) / times


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
