"""``sslcollapse diagnose`` beside WeightWatcher on the same ten networks: time, memory, stable rank and α.

WeightWatcher is no dependency of this project: ``pip install weightwatcher`` first. Each of the two runs in a process
of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import importlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

OURS, THEIRS = "sslcollapse", "weightwatcher"


def networks() -> Iterator[tuple[str, Any]]:
    """Ten networks, the same in every process: small ones of timm, trained on digits, and with heavy tails."""
    import timm
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    for name in ("test_vit", "test_resnet", "test_convnext", "test_efficientnet"):
        torch.manual_seed(0)
        yield f"timm:{name}", timm.create_model(name, pretrained=False)
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    for width in (96, 160, 256):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64))
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        yield f"digits, width {width}", model
    for freedom in (2.0, 3.0, 5.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(200, 300), nn.Linear(300, 300))
        with torch.no_grad():
            for layer in (model[0], model[1]):
                layer.weight.copy_(torch.distributions.StudentT(freedom).sample(layer.weight.shape))
        yield f"entries by Student's t, {freedom:g} degrees of freedom", model


def _ours(model: Any) -> dict[str, tuple[float, float]]:
    from sslcollapse import diagnose

    found = diagnose(model, columns=["alpha"])
    return {row.layer: (row.stable_rank, row.columns["alpha"]) for row in found.rows}


def _theirs(model: Any) -> dict[str, tuple[float, float]]:
    import weightwatcher

    details = weightwatcher.WeightWatcher(model=model).analyze()
    return {
        str(row.longname if "longname" in details else row["name"]): (float(row.stable_rank), float(row.alpha))
        for _, row in details.iterrows()
    }


CONTENDERS: dict[str, Callable[[Any], dict[str, tuple[float, float]]]] = {OURS: _ours, THEIRS: _theirs}


def contend(name: str) -> None:
    """Run one of the two over all networks, and print what it found as the last line."""
    for module in ("timm", "sslcollapse.rank.diagnose.entry", *((THEIRS,) if name == THEIRS else ())):
        importlib.import_module(module)  # does not count

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows, seconds = {}, {}
    for title, model in networks():
        start = time.perf_counter()
        rows[title] = CONTENDERS[name](model.eval())
        seconds[title] = time.perf_counter() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print("\n" + json.dumps({"rows": rows, "seconds": seconds, "grown_mib": peak}))


def main() -> dict[str, Any]:
    """Both, side by side; where WeightWatcher is not installed, ours alone."""
    found: dict[str, Any] = {}
    for name in CONTENDERS:
        code = f"from tools.bench.diagnose import contend; contend({name!r})"
        run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
        if run.returncode:
            reason = run.stderr.strip().splitlines()[-1] if run.stderr.strip() else f"exit code {run.returncode}"
            print(f"{name}: not measured: {reason}")
            continue
        found[name] = json.loads(run.stdout.strip().splitlines()[-1])
    record: dict[str, Any] = {name: _summary(part) for name, part in found.items()}
    if len(found) == len(CONTENDERS):
        record["agreement"] = agreement(found[OURS]["rows"], found[THEIRS]["rows"])
    for name, part in record.items():
        print(name, json.dumps(part))
    return record


def _summary(part: dict[str, Any]) -> dict[str, Any]:
    return {
        "layers": sum(map(len, part["rows"].values())),
        "seconds": round(sum(part["seconds"].values()), 2),
        "seconds_of_each": {title: round(value, 3) for title, value in part["seconds"].items()},
        "memory_grown_mib": round(part["grown_mib"]),
    }


def agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Of the layers that both have, by name: the share of equal numbers, and the median and largest difference."""
    pairs = [
        (f"{title} {name}", mine, rows[name])
        for title, rows in theirs.items()
        for name, mine in ours.get(title, {}).items()
        if name in rows
    ]
    found: dict[str, Any] = {"layers": len(pairs)}
    for place, word in enumerate(("stable_rank", "alpha")):
        both = [(name, a[place], b[place]) for name, a, b in pairs if _number(a[place]) and _number(b[place])]
        apart = {name: abs(a - b) / abs(b) for name, a, b in both if b}
        found[word] = {
            "compared": len(apart),
            "within_1_percent": sum(value < 0.01 for value in apart.values()),
            "median_relative_difference": statistics.median(apart.values()) if apart else None,
            "largest_relative_difference": max(apart.values(), default=None),
            "apart": [name for name, value in apart.items() if value >= 0.01],
        }
    return found


def _number(value: float | None) -> bool:
    return value is not None and value == value and abs(value) < float("inf")
