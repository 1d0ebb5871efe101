"""How often the thresholds of ``diagnose`` are wrong, counted on networks of which it is known how they were made.

Three kinds: untrained ones; well-trained ones, which tell the classes of held-out samples apart; and collapsed ones,
whose training pulls views together with nothing that keeps samples apart, or whose weights were made low-rank. None is
labelled by a rank.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcollapse.rank.diagnose.diagnosis import Diagnosis
from sslcollapse.rank.diagnose.entry import diagnose
from sslcollapse.rank.diagnose.verdicts import (
    COLLAPSED,
    COLLAPSED_BELOW,
    DEGRADING_BELOW,
    HEALTHY,
    OUTPUT_DEGRADING_BELOW,
)
from tools.evidence import write_json

PAGE, RECORD = Path("docs/diagnose.md"), Path("docs/benchmarks/diagnose-calibration.json")
BEGIN, END = "<!-- calibration: begin -->", "<!-- calibration: end -->"
SWEEP = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
UNTRAINED, TRAINED, COLLAPSED_ONES = "untrained", "well trained", "collapsed"


@dataclass(frozen=True)
class Sample:
    """A network whose state is known.

    Attributes:
        name: how it was made.
        state: untrained, well trained or collapsed, by how it was made.
        accuracy: of the 1-nearest-neighbour classifier on held-out samples; None where there are no classes.
        found: its diagnosis.
    """

    name: str
    state: str
    accuracy: float | None
    found: Diagnosis


def _digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[:1297]], y[order[:1297]], x[order[1297:]], y[order[1297:]]


def _mlp(dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 64))


def _deep(dim: int) -> nn.Module:
    hidden = [part for _ in range(5) for part in (nn.Linear(96, 96), nn.BatchNorm1d(96), nn.ReLU())]
    return nn.Sequential(nn.Linear(dim, 96), nn.ReLU(), *hidden, nn.Linear(96, 64))


def _convolutional(dim: int) -> nn.Module:
    side = round(dim**0.5)
    return nn.Sequential(
        nn.Unflatten(1, (1, side, side)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


ENCODERS: dict[str, Callable[[int], nn.Module]] = {"MLP": _mlp, "deep MLP": _deep, "convolutional": _convolutional}


def _views(x: Tensor) -> tuple[Tensor, Tensor]:
    first, second = ((x + 0.2 * torch.randn_like(x)) * (torch.rand_like(x) > 0.2) for _ in range(2))
    return first, second


def _supervised(z: Tensor, _: Tensor, y: Tensor, head: nn.Module) -> Tensor:
    return F.cross_entropy(head(z), y)


def _contrastive(z: Tensor, other: Tensor, _: Tensor, head: nn.Module) -> Tensor:
    a, b = F.normalize(head(z)), F.normalize(head(other))
    return F.cross_entropy(a @ b.T / 0.2, torch.arange(len(a)))


def _without_negatives(z: Tensor, other: Tensor, _: Tensor, head: nn.Module) -> Tensor:
    return -(F.normalize(head(z)) * F.normalize(head(other))).sum(1).mean()


def _pulled_together(z: Tensor, other: Tensor, _: Tensor, head: nn.Module) -> Tensor:
    return (z - other).square().mean() + 0.0 * head(z).sum()


TRAININGS: dict[str, tuple[Callable[..., Tensor], str, int, float]] = {
    "supervised": (_supervised, TRAINED, 80, 0.0),
    "SimCLR": (_contrastive, TRAINED, 120, 0.0),
    "SimCLR without negatives": (_without_negatives, COLLAPSED_ONES, 200, 1e-2),
    "views pulled together": (_pulled_together, COLLAPSED_ONES, 200, 1e-2),
}
"""Name → loss, what becomes of the network, steps, weight decay."""


def _train(network: nn.Module, loss: Callable[..., Tensor], x: Tensor, y: Tensor, steps: int, decay: float) -> None:
    head = nn.Linear(64, 64)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=2e-3, weight_decay=decay)
    for _ in range(steps):
        rows = torch.randint(len(x), (128,))
        first, second = _views(x[rows])
        optimizer.zero_grad()
        loss(network(first), network(second), y[rows], head).backward()
        optimizer.step()


@torch.no_grad()
def _accuracy(network: nn.Module, x: Tensor, y: Tensor, held_x: Tensor, held_y: Tensor) -> float:
    network.eval()
    known, asked = F.normalize(network(x)), F.normalize(network(held_x))
    return float((y[(asked @ known.T).argmax(1)] == held_y).float().mean())


def _noise_dropped(seed: int) -> Sample:
    """An encoder that keeps 16 dimensions of signal of 64 with noise; the untrained one passes all 64 on."""
    torch.manual_seed(seed)
    centres = torch.randn(24, 16) @ torch.randn(16, 64) / 2
    labels = torch.arange(1440) % 24
    x = centres[labels] + torch.randn(1440, 64)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        (network(x[:960]) - centres[labels[:960]]).square().mean().backward()
        optimizer.step()
    accuracy = _accuracy(network, x[:960], labels[:960], x[960:], labels[960:])
    return Sample(f"noise dropped, seed {seed}", TRAINED, accuracy, diagnose(network, data=x[960:]))


@torch.no_grad()
def _truncated(network: nn.Module) -> nn.Module:
    """Every matrix of the second half cut to a twentieth of its directions."""
    matrices = [module for module in network.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    for module in matrices[len(matrices) // 2 :]:
        u, s, v = torch.linalg.svd(module.weight.flatten(1), full_matrices=False)
        s[max(len(s) // 20, 1) :] = 0
        module.weight.copy_(((u * s) @ v).view_as(module.weight))
    return network


def collection(seeds: int, runs: Path) -> Iterator[Sample]:
    """All networks, one after another.

    Args:
        seeds: of each way to make one.
        runs: folder for the runs of recipes.
    """
    yield from _recipes(runs)
    x, y, held_x, held_y = _digits()
    for seed in range(seeds):
        for kind, make in ENCODERS.items():
            torch.manual_seed(seed)
            network = make(64)
            yield Sample(f"{kind}, untrained, seed {seed}", UNTRAINED, None, diagnose(network))
            for name, (loss, state, steps, decay) in TRAININGS.items():
                torch.manual_seed(seed)
                network = make(64)
                _train(network, loss, x, y, steps, decay)
                accuracy = _accuracy(network, x, y, held_x, held_y)
                if state == TRAINED and accuracy < 0.9:
                    continue  # not known to be good
                yield Sample(f"{kind}, {name}, seed {seed}", state, accuracy, diagnose(network, data=held_x))
            torch.manual_seed(seed)
            low = _truncated(make(64))
            yield Sample(f"{kind}, truncated, seed {seed}", COLLAPSED_ONES, None, diagnose(low, data=held_x))
        yield _noise_dropped(seed)


_SHORT = {
    "quickstart": (
        TRAINED,
        dict(encoder=dict(type="gcn", hidden=[128, 64], norm="batch"), train=dict(steps=60), monitor=dict(every=0)),
    ),
    "simclr_digits": (
        TRAINED,
        dict(encoder=dict(type="resnet_narrow", width=8), train=dict(steps=30), monitor=dict(every=0)),
    ),
}
"""Recipe → what becomes of its network, and what makes it short."""


def _recipes(runs: Path) -> Iterator[Sample]:
    from sslcollapse.recipe import extend
    from sslcollapse.training.trainer import train

    for name, (state, changes) in _SHORT.items():
        recipe = extend(f"recipes/{name}.py", changes)
        run = train(recipe, out=runs)
        results = json.loads((run / "result.json").read_text())["evaluation"]
        accuracy = _first_accuracy(results)
        yield Sample(f"recipe {name}", state, accuracy, diagnose(run, data=recipe, samples=512))


def _first_accuracy(results: Any) -> float | None:
    """The first test accuracy in a run's evaluation."""
    if isinstance(results, dict):
        for key, value in results.items():
            if "accuracy" in key and isinstance(value, (int, float)):
                return float(value)
            if (inside := _first_accuracy(value)) is not None:
                return inside
    return None


def counts(samples: list[Sample]) -> dict[str, Any]:
    """Networks and layers of each state by verdict, and what other thresholds for outputs would say."""
    record: dict[str, Any] = {
        "thresholds": {
            "collapsed_below": COLLAPSED_BELOW,
            "degrading_below": DEGRADING_BELOW,
            "output_degrading_below": OUTPUT_DEGRADING_BELOW,
        },
        "networks": {},
        "sweep": [],
        "samples": [
            {
                "name": sample.name,
                "state": sample.state,
                "accuracy": sample.accuracy,
                "verdict": sample.found.verdict,
                "lowest_weight": min(row.share for row in sample.found.rows if row.part == "weight"),
                "lowest_output": _lowest_output(sample),
            }
            for sample in samples
        ],
    }
    for state in (UNTRAINED, TRAINED, COLLAPSED_ONES):
        own = [sample for sample in samples if sample.state == state]
        verdicts = {
            word: sum(sample.found.verdict == word for sample in own) for word in (HEALTHY, "degrading", COLLAPSED)
        }
        record["networks"][state] = {"networks": len(own), **verdicts}
    good = [sample for sample in samples if sample.state != COLLAPSED_ONES]
    bad = [sample for sample in samples if sample.state == COLLAPSED_ONES]
    for limit in SWEEP:
        record["sweep"].append(
            {
                "output_degrading_below": limit,
                "false_alarms": sum(_called(sample, limit) for sample in good),
                "of_good": len(good),
                "misses": sum(not _called(sample, limit) for sample in bad),
                "of_collapsed": len(bad),
            }
        )
    return record


def _lowest_output(sample: Sample) -> float | None:
    shares = [row.share for row in sample.found.rows if row.part != "weight" and row.reference]
    return min(shares) if shares else None


def _called(sample: Sample, limit: float) -> bool:
    """Whether a network is called degrading or worse where outputs are from that share on."""
    rows = sample.found.rows
    return any(
        row.verdict == COLLAPSED or row.share < (DEGRADING_BELOW if row.part == "weight" else limit)
        for row in rows
        if row.reference
    )


def table(record: dict[str, Any]) -> str:
    """The two tables of the docs."""
    lines = ["| networks | number | called healthy | degrading | collapsed |", "|---|---|---|---|---|"]
    for state, row in record["networks"].items():
        lines.append(f"| {state} | {row['networks']} | {row['healthy']} | {row['degrading']} | {row['collapsed']} |")
    lines += ["", "| outputs degrade below | false alarms | misses |", "|---|---|---|"]
    for row in record["sweep"]:
        used = " (used)" if row["output_degrading_below"] == record["thresholds"]["output_degrading_below"] else ""
        lines.append(
            f"| {row['output_degrading_below']:g}{used} | {row['false_alarms']} of {row['of_good']} | "
            f"{row['misses']} of {row['of_collapsed']} |"
        )
    return "\n".join(lines)


def into_page(text: str, record: dict[str, Any]) -> str:
    """The page with the tables of a record between its marks."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table(record)}\n{END}{after}"


def write_calibration(seeds: int, record_file: Path = RECORD, page: Path = PAGE) -> Path:
    """Make the collection, write the record, and bring the page up to date."""
    with tempfile.TemporaryDirectory() as folder:
        samples = []
        for sample in collection(seeds, Path(folder)):
            print(f"{sample.name}: {sample.found.verdict}", flush=True)
            samples.append(sample)
            write_json(record_file, record := counts(samples))  # what is there counts, should it be stopped
    if page.exists() and BEGIN in (text := page.read_text(encoding="utf-8")):
        page.write_text(into_page(text, record), encoding="utf-8")
    return record_file
