"""``bench vision-step``: what WERank adds to a SimCLR step of ResNet-18, and on a GPU what feeding it costs.

Steps with and without WERank take turns in one process on the same ready views; ratios are taken within a round,
reported is their median. Seconds a step leave few rounds on a CPU, so the added work, which is WERank's forward and
backward pass alone, is timed by itself too, in every round, and given as a share of the step without it: that is far
less noisy than a difference of two steps.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.memory import keep_freed_memory
from sslcollapse.core.registry import OPTIMIZERS
from sslcollapse.core.types import Batch, Context
from sslcollapse.recipe import resolve
from sslcollapse.training.build import build_domain, build_module, prepare_networks
from tools.bench.graph_step import device as device_title


@dataclass(frozen=True)
class Scale:
    """How much is measured, and in which precision."""

    batch: int
    rounds: int
    steps: int
    repeats: int
    images: int
    precision: str


ON_CPU = Scale(batch=256, rounds=4, steps=1, repeats=5, images=1024, precision="no")
ON_GPU = Scale(batch=512, rounds=15, steps=10, repeats=50, images=50_000, precision="bf16")
SIZE = 32
COSTS = {
    "plain": "step",
    "werank": "step + WERank on all 20 encoder layers",
    "part": "WERank alone",
    "products": "its two products alone",
}
FEEDS = {"ready": "ready tensors", "resident": "resident feed", "lightly": "lightly, PIL images, DataLoader"}
SMALL = Scale(batch=8, rounds=1, steps=1, repeats=1, images=32, precision="bf16")
"""So small that times mean nothing, to try that all of it runs."""


def main() -> dict[str, Any]:
    """Measure, print tables with ratios, return the record."""
    from sslcollapse.core.console import Console, Table
    from sslcollapse.runs.directory import environment

    load = os.getloadavg() if hasattr(os, "getloadavg") else None  # says how busy others kept it
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scale = ON_GPU if device.type == "cuda" else ON_CPU
    console = Console()
    record = {"werank": cost_of_werank(device, scale)}
    werank = record["werank"]
    table = Table(title=f"SimCLR step, ResNet-18 (CIFAR stem), batch {scale.batch}, precision {scale.precision}")
    for title in ("", "ms", "× the plain step"):
        table.add_column(title, justify="left" if not title else "right")
    for name, title in COSTS.items():
        table.add_row(title, f"{werank['ms'][name]:.1f}", f"{werank['times_plain'][name]:.4f}")
    console.print(table)
    if device.type == "cuda":
        record["feeds"] = rates(device, scale)
        table = Table(title="images a second, the same step")
        for title in ("", "images/s", "× lightly", "× ready"):
            table.add_column(title, justify="left" if not title else "right")
        for name, title in FEEDS.items():
            feed = record["feeds"]
            if name not in feed["times_ready"]:
                continue
            speed = f"{feed['images_a_second'][name]:,.0f}"
            ratios = [f"{feed[of][name]:.2f}" if name in feed[of] else "" for of in ("times_lightly", "times_ready")]
            table.add_row(title, speed, *ratios)
        console.print(table)
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


def rates(device: torch.device, scale: Scale, *, werank: bool = False, encoder: str = "resnet18") -> dict[str, Any]:
    """Images a second of the same step by who feeds it; two views are made of each. lightly's only where it is."""
    step = Step(device, scale, werank=werank, encoder=encoder)
    ready = next(step.batches)
    feeds: dict[str, Callable[[], Batch]] = {"ready": lambda: ready, "resident": lambda: next(step.batches)}
    if importlib.util.find_spec("lightly") is not None:
        pixels = step.domain.dataset.images.pixels
        feeds["lightly"] = _endless(lightly_batches(pixels, scale.batch, device)).__next__
    for feed in feeds.values():
        timed(lambda feed=feed: step(feed()), device, 2 * scale.steps)
    rounds = [
        {
            name: scale.batch / timed(lambda feed=feed: step(feed()), device, 4 * scale.steps)
            for name, feed in feeds.items()
        }
        for _ in range(max(min(3, scale.rounds), scale.rounds // 3))
    ]
    speed = {name: median(turn[name] for turn in rounds) for name in feeds}
    flops = step.flops(ready)
    return {
        "images_a_second": speed,
        "views_a_second": {name: 2 * images for name, images in speed.items()},
        "times_lightly": {
            name: median(turn[name] / turn["lightly"] for turn in rounds) for name in feeds if "lightly" in feeds
        },
        "times_ready": {name: median(turn[name] / turn["ready"] for turn in rounds) for name in feeds},
        "flops_a_step": flops,
        "tflops_a_second": {name: 1e-12 * flops * images / scale.batch for name, images in speed.items()},
        "loader_workers": loader_workers(),
    }


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
                "encoder": {"type": encoder, "stem": "cifar"} if encoder == "resnet18" else {"type": encoder},
                "objective": {"type": "simclr"},
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


def loader_workers() -> int:
    """Worker processes that lightly's feed gets: the cores there are, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16)


class PILImages(torch.utils.data.Dataset):
    """Images as torchvision's CIFAR-10 gives them: a PIL image made from an array, then the transform."""

    def __init__(self, pixels: Tensor, transform: Callable[[Any], Any]) -> None:
        self.arrays = pixels.cpu().permute(0, 2, 3, 1).contiguous().numpy()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.arrays[index])), index


def lightly_batches(pixels: Tensor, batch: int, device: torch.device) -> Any:
    """lightly's SimCLR views of PIL images in worker processes, as its benchmarks for CIFAR-10 have it."""
    from lightly.transforms import SimCLRTransform

    transform = SimCLRTransform(input_size=SIZE, gaussian_blur=0.0)
    return torch.utils.data.DataLoader(
        PILImages(pixels, transform),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=loader_workers(),
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )


def _endless(loader: Any) -> Iterator[Batch]:
    device = torch.device("cuda" if loader.pin_memory else "cpu")
    while True:
        for views, index in loader:
            index = index.to(device, non_blocking=True)
            yield Batch([view.to(device, non_blocking=True) for view in views], index, index, False)
