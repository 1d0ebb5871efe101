"""The runs that ``bench gpu`` makes in the minutes that are left: commands of this package, and what they finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tools.bench import study
from tools.bench.gpu import REPOSITORY

TINY_GRAPH: dict[str, Any] = {"type": "csbm", "nodes": 300, "features": 40, "classes": 4}
CIFAR10 = (
    '{"type": "image_table", "name": "CIFAR-10 (JPEG)", "train": "vision/cifar10/train.parquet", '
    '"test": "vision/cifar10/test.parquet", "mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]}'
)
"""A copy of CIFAR-10 that is small enough to be carried."""
SHORTEST = ("train.steps=3", "optim.warmup_steps=0", "train.checkpoint_every=0", "monitor.every=0")
STEPS_AN_EPOCH = 50_000 // 256


@dataclass(frozen=True)
class Planned:
    """A command that trains, and the words that make it a small one."""

    command: str
    words: tuple[str, ...]
    smaller: tuple[str, ...] = ()


def _grid(seeds: int) -> Planned:
    words = ("recipes/ablations/claim_00_depth.py", "monitor.every=0", "--seeds", str(seeds))
    smaller = ("recipes/quickstart.py", "--grid", "regularizers.werank.coefficient=0.0,0.1", "--seeds", "1")
    return Planned("ablate", words, (*smaller, f"domain.dataset={json.dumps(TINY_GRAPH)}", *SHORTEST))


def _claim(name: str) -> Planned:
    return Planned("ablate", study.words(name), _grid(1).smaller)


def _published(name: str) -> Planned:
    return Planned("ablate", study.published(name), _grid(1).smaller)


def _images(recipe: str, epochs: int) -> Planned:
    steps = epochs * STEPS_AN_EPOCH
    schedule = (f"train.steps={steps}", f"optim.warmup_steps={steps // 20}", "train.checkpoint_every=0")
    words = (f"recipes/{recipe}.py", f"domain.dataset={CIFAR10}", *schedule, "monitor.every=0")
    return Planned("train", words, ("recipes/simclr_digits.py", "encoder.width=4", "evaluate.public=None", *SHORTEST))


def _hundred() -> Planned:
    """Ten cells with ten seeds, each a run of 1,000 steps with its evaluation, in warm workers."""
    coefficients = "regularizers.werank.coefficient=0,0.0001,0.0003,0.001,0.003,0.01,0.03,0.1,0.3,1"
    words = ("recipes/bgrl_werank_cora.py", "--grid", coefficients, "--seeds", "10", "--name", "hundred")
    short = ("train.steps=1000", "train.checkpoint_every=0", "monitor.every=0")
    small = ("recipes/quickstart.py", "--grid", "regularizers.werank.coefficient=0.0,0.1", "--seeds", "1")
    tiny = (*small, f"domain.dataset={json.dumps(TINY_GRAPH)}", *SHORTEST, "--executor", "warm")
    return Planned("ablate", (*words, *short), tiny)


def _speedrun(name: str) -> Planned:
    digits = ('domain.dataset={"type": "digits"}', 'encoder={"type": "resnet_narrow", "width": 4}', "evaluate.knn.k=20")
    smaller = (*digits, "objective.projector=[64, 32]", "domain.batch_size=100", "domain.grow=[[2, 6]]", *SHORTEST)
    return Planned(
        "speedrun",
        (f"recipes/speedrun/{name}.py",),
        (f"recipes/speedrun/{name}.py", *smaller, "monitor.timed_every=2"),
    )


RUNS: dict[str, Planned] = {
    "speedrun-simclr": _speedrun("simclr"),
    "speedrun-vicreg": _speedrun("vicreg"),
    "speedrun-byol": _speedrun("byol"),
    "cora-100-runs": _hundred(),
    "depth-2-seeds": _grid(2),
    "simclr-10-epochs": _images("simclr_cifar10", 10),
    "simclr-werank-10-epochs": _images("simclr_werank_cifar10", 10),
    "byol-10-epochs": _images("byol_cifar10", 10),
    "byol-werank-10-epochs": _images("byol_werank_cifar10", 10),
    "depth-5-seeds": _grid(5),
    "depth-10-seeds": _grid(10),
    **{name: _claim(name) for name in study.STUDY[1:]},  # the first is the one before
    **{name: _published(name) for name in study.PUBLISHED},
}
"""Runs that are made in the minutes that are left, most valuable first; a grid continues the smaller one before it.

Then comes the study of the claims, file after file, and last BGRL at published settings, data set after data set.
"""


def runs(name: str, *, smoke: bool, seconds: float, folder: Path) -> dict[str, Any]:
    """One planned command; what it has finished by its end or by its time."""
    planned = RUNS[name]
    places = ["--out", str(folder / "runs")]
    if planned.command == "ablate":
        jobs = str(max(1, min(8, (os.cpu_count() or 1) // 2))) if smoke else "auto"  # by the memory of the GPU
        places += ["--results", str(folder / "results"), "--jobs", jobs, "--threads", "1"]
    words = [sys.executable, "-m", "sslcollapse.cli", planned.command, *(planned.smaller if smoke else planned.words)]
    before = _finished(folder)
    began = time.monotonic()
    code = called([*words, *places], seconds - 20)
    took = time.monotonic() - began
    finished = [record for path, record in _finished(folder).items() if path not in before]
    record = {"command": words[1:], "exit_code": code, "finished": len(finished), "runs": finished, "took": took}
    rate = 60 * len(finished) / took
    shown = f"{len(finished)} runs, {rate:.1f} a minute; {_means(finished)}"
    if not finished:
        raise RuntimeError(f"no run was finished; exit code {code}; see {name}.log")
    return {**record, "runs_a_minute": rate, "headline": shown + ("" if code == 0 else f"; stopped, exit code {code}")}


def _finished(folder: Path) -> dict[str, dict[str, Any]]:
    """Run directory → what is kept of its result."""
    found = {}
    for path in sorted((folder / "runs").glob("*/*/*/result.json")):
        result = json.loads(path.read_text())
        recipe = result["recipe"]
        found[str(path.parent.relative_to(folder))] = {
            "name": recipe["name"],
            "hash": result["hash"],
            "seed": result["seed"],
            "steps": result["steps"],
            "encoder": recipe["encoder"],
            "regularizers": recipe["regularizers"],
            "seconds": result["seconds"],
            "evaluation": result["evaluation"],
            "untrained": result["untrained"],
            "rank": result["rank"].get("representation"),
        }
    return found


def _means(finished: Sequence[Mapping[str, Any]]) -> str:
    """Mean accuracy of each probe by the name of the recipe, in a few words."""
    groups: dict[str, list[float]] = {}
    for run in finished:
        for probe, metrics in run["evaluation"].items():
            if "test_accuracy" in metrics:
                groups.setdefault(f"{run['name']} {probe}", []).append(metrics["test_accuracy"]["mean"])
    return ", ".join(f"{name} {fmean(values):.3f}" for name, values in groups.items())


def called(words: Sequence[str], seconds: float, variables: Mapping[str, str] | None = None) -> int:
    """The exit code of a command, which is asked to stop when its time is over, and after a while ended."""
    process = subprocess.Popen(words, cwd=REPOSITORY, env=None if variables is None else dict(variables))
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            return process.wait(timeout=max(seconds, 1.0))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            seconds = 10.0
    return process.wait()
