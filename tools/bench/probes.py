"""``bench probes``: logistic regression for all C and splits, and the whole evaluation of a run.

The reference is scikit-learn's loop: for each split one fit a C, from small to large, each from the one before. Both
get the same representations, of a GCN after a few steps of BGRL, and take turns in one process.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.memory import keep_freed_memory, one_thread
from sslcollapse.core.types import Context, ProbeSet, Split
from sslcollapse.probes.base import Outcome
from sslcollapse.probes.logistic import FittedRows, LogisticProbe
from sslcollapse.probes.metrics import score

REPOSITORY = Path(__file__).resolve().parents[2]
GRAPHS: dict[str, dict[str, Any]] = {
    "Cora": {"type": "planetoid", "name": "Cora"},
    "CiteSeer": {"type": "planetoid", "name": "CiteSeer"},
    "digits": {"type": "digits"},
}
WIDTHS = (512, 256)


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        device: of torch, where we fit; scikit-learn fits on the host.
        steps: of BGRL before the representations are taken.
        rounds: of all that is compared.
        slow_rounds: of them, those that scikit-learn's loop takes part in.
        repeats: random splits.
    """

    device: str = "cpu"
    steps: int = 50
    rounds: int = 5
    slow_rounds: int = 3
    repeats: int = 20


class ScikitLearnProbe(LogisticProbe):
    """The same protocol by scikit-learn: one fit after the other, on the host.

    Args:
        tolerance: largest entry of the gradient of its mean loss at which lbfgs stops, and liblinear's own.
        arguments: see ``LogisticProbe``.
    """

    def __init__(self, *, tolerance: float = 1e-6, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.tolerance = tolerance

    def outcomes(
        self, features: Tensor, probe_set: ProbeSet, splits: Sequence[Split], metric: str
    ) -> Iterator[Outcome]:
        """The outcome of each split."""
        x, labels = FittedRows(features.detach().double().cpu(), self.rows), probe_set.labels.cpu()
        for split in splits:
            with one_thread():
                models = list(self.path(x[split.train].double(), labels[split.train]))
            of = [
                [self.shown(metric, model, x[rows].double(), labels[rows]) for model, _ in models]
                for rows in (split.validation, split.test)
            ]
            best = of[0].index(max(of[0]))
            facts = {"c": self.cs[best], "unconverged": sum(not ok for _, ok in models)}
            yield Outcome(of[1][best], of[0][best], "scikit-learn", facts)

    def path(self, x: Tensor, labels: Tensor) -> Iterator[tuple[Any, bool]]:
        """A fitted model a C, and whether it has converged, in as many dimensions as there are rows at most."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier

        basis = torch.linalg.qr(x.T).Q if len(x) < x.shape[1] else torch.eye(x.shape[1], dtype=x.dtype)
        rows, one_by_one = (x @ basis).numpy(), self.solver == "liblinear"
        name = "liblinear" if one_by_one else "lbfgs"
        kept = LogisticRegression(solver=name, tol=self.tolerance, max_iter=self.max_iter, warm_start=not one_by_one)
        for c in self.cs:
            model = kept.set_params(C=c)
            if labels.dim() == 2 or one_by_one:
                model = OneVsRestClassifier(model)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ConvergenceWarning)
                model.fit(rows, labels.numpy())
            converged = not any(issubclass(each.category, ConvergenceWarning) for each in caught)
            yield partial(self.decide, deepcopy(model), basis), converged

    def decide(self, model: Any, basis: Tensor, x: Tensor, classes: int) -> Tensor:
        """Scores [N, C] of a fitted model; of a class that it has not seen −inf."""
        found = torch.from_numpy(model.decision_function((x @ basis).numpy()))
        if found.dim() == 2 and found.shape[1] == classes:
            return found
        scores = torch.full((len(x), classes), -torch.inf, dtype=found.dtype)
        scores[:, model.classes_] = found if found.dim() == 2 else torch.stack([torch.zeros_like(found), found], 1)
        return scores

    def shown(self, metric: str, model: Callable[[Tensor, int], Tensor], x: Tensor, labels: Tensor) -> float:
        """The metric of a model."""
        classes = labels.shape[1] if labels.dim() == 2 else int(labels.max()) + 1
        return score(metric, model(x, classes), labels)


def main() -> dict[str, Any]:
    """Measure, print a table, return the record."""
    from sslcollapse.core.console import Console, Table
    from sslcollapse.runs.directory import environment
    from tools.bench.graph_step import device as device_title

    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    keep_freed_memory()
    scale = Scale()
    cases = {title: fits(dataset, scale) for title, dataset in available().items()}
    whole = evaluation(scale) if "Cora" in cases else {}
    table = Table(title=f"logistic probe, 21 C on 1 public and {scale.repeats} random splits; seconds")
    for title in ("", "scikit-learn", "ours", "ratio", "C chosen as there", "largest difference, test"):
        table.add_column(title, justify="left" if not title else "right")
    rows = {**cases, **({"evaluation of a Cora run": whole} if whole else {})}
    for title, case in rows.items():
        seconds = [f"{case['seconds'][name]:.2f}" for name in ("scikit-learn", "ours")]
        chosen = f"{case['same_c']} of {case['splits']}"
        table.add_row(title, *seconds, f"{case['times_faster']:.1f}", chosen, f"{100 * case['apart']:.2f} points")
    Console().print(table)
    return {
        "benchmark": "probes",
        "environment": environment(1, device_title(), sys.argv),
        "threads": torch.get_num_threads(),
        "load_average_before": load,
        "fits": cases,
        "evaluation": whole,
    }


def available() -> dict[str, dict[str, Any]]:
    """The graphs whose files are there."""
    from sslcollapse.core.registry import GRAPH_DATASETS

    root = Path(os.environ.get("SSLCOLLAPSE_DATA") or "data")
    return {
        title: spec
        for title, spec in GRAPHS.items()
        if all(path.exists() for path in GRAPH_DATASETS.build(dict(spec), root).files())
    }


def fits(dataset: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """Seconds of the fits of a recipe's two probes by both, and how far the results are apart."""
    features, probe_set = represented(dataset, scale)
    ours, theirs = (
        [maker(split="public"), maker(split="random", repeats=scale.repeats)]
        for maker in (LogisticProbe, ScikitLearnProbe)
    )
    return beside(
        {
            "ours": lambda: [probe(features, probe_set).to_json() for probe in ours],
            "scikit-learn": lambda: [probe(features, probe_set).to_json() for probe in theirs],
        },
        scale,
    )


def evaluation(
    scale: Scale,
    compared: Sequence[str] = ("ours", "scikit-learn", "without probes"),
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The same of all that a run of ``recipes/bgrl_cora.py`` does with its probes, and of what is left without them.

    Args:
        scale: how much is measured.
        compared: of these three ways.
        changes: of the recipe, as ``extend`` takes them.
    """
    from sslcollapse.probes.evaluate import build_probes
    from sslcollapse.recipe import extend, resolve
    from sslcollapse.training.build import build_domain, build_encoder
    from sslcollapse.training.evaluate import evaluate_networks
    from sslcollapse.training.progress import Reporter

    recipe = resolve(extend(REPOSITORY / "recipes" / "bgrl_cora.py", dict(changes or {})))
    domain = build_domain(recipe)
    module = trained(recipe, domain, scale)
    probe_set = domain.probe_set().to(torch.device(scale.device))
    reporter = Reporter(False)

    def with_probes(make: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
        networks = {"evaluation": module.encoder, "untrained": build_encoder(recipe, domain).to(scale.device)}
        found, _ = evaluate_networks(make(), networks, probe_set, reporter)
        return [probe for results in found.values() for probe in results.values()]

    def of_scikit_learn() -> dict[str, Any]:
        return {
            name: ScikitLearnProbe(**{key: value for key, value in spec.items() if key != "type"})
            for name, spec in recipe["evaluate"].items()
        }

    ways = {
        "ours": lambda: with_probes(lambda: build_probes(recipe["evaluate"])),
        "scikit-learn": lambda: with_probes(of_scikit_learn),
        "without probes": lambda: with_probes(lambda: {"none": _Nothing()}),
    }
    return beside({name: ways[name] for name in compared}, scale)


class _Nothing:
    """A probe that does nothing: what is left is the rest of an evaluation."""

    def __call__(self, features: Tensor, probe_set: ProbeSet) -> Any:
        from sslcollapse.probes.base import ProbeResult

        return ProbeResult("accuracy", [float(features[0, 0])], [0.0], "none", ())


def beside(ways: Mapping[str, Callable[[], list[dict[str, Any]]]], scale: Scale) -> dict[str, Any]:
    """Median seconds of each way; of ours against scikit-learn's the ratio, and what of the results is not the same."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[dict[str, Any]]] = {}
    for turn in range(scale.rounds):
        for name, work in ways.items():
            if name != "scikit-learn" or turn < scale.slow_rounds:
                seconds[name].append(_seconds(lambda name=name, work=work: found.__setitem__(name, work())))
    record: dict[str, Any] = {
        "seconds": {name: median(times) for name, times in seconds.items()},
        "first": {name: times[0] for name, times in seconds.items()},
        "unconverged": {name: sum(each.get("unconverged", 0) for each in found[name]) for name in found},
    }
    if "scikit-learn" not in found:
        return record
    ours, theirs = (found[name] for name in ("ours", "scikit-learn"))
    metric = next(key for key in ours[0] if key.startswith("test_"))
    chosen = [(a, b) for one, other in zip(ours, theirs, strict=True) for a, b in _pairs(one, other, "chosen_c")]
    tests = [
        (a, b) for one, other in zip(ours, theirs, strict=True) for a, b in _pairs(one[metric], other[metric], "values")
    ]
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["scikit-learn"], strict=False)]
    return {
        **record,
        "times_faster": median(ratios),
        "splits": len(chosen),
        "same_c": sum(a == b for a, b in chosen),
        "apart": max(abs(a - b) for a, b in tests),
    }


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> Iterator[tuple[Any, Any]]:
    return zip(one[key], other[key], strict=True)


def represented(dataset: Mapping[str, Any], scale: Scale) -> tuple[Tensor, ProbeSet]:
    """Representations by a GCN after some steps of BGRL, on the device, and the set that they are of."""
    from sslcollapse.rank.measure import represent
    from sslcollapse.recipe import resolve
    from sslcollapse.training.build import build_domain

    recipe = resolve(
        {
            "name": "bench",
            "domain": {
                "type": "graph",
                "dataset": dict(dataset),
                "views": {"edge_drop": [0.5, 0.4], "feature_mask": [0.5, 0.4]},
            },
            "encoder": {"type": "gcn", "hidden": list(WIDTHS), "norm": "batch"},
            "objective": {"type": "bgrl"},
            "optim": {"type": "adamw", "lr": 1e-3, "schedule": "constant"},
            "train": {"steps": 1_000},
        }
    )
    domain = build_domain(recipe)
    module = trained(recipe, domain, scale)
    probe_set = domain.probe_set().to(torch.device(scale.device))
    return represent(module.encoder, probe_set.views), probe_set


def trained(recipe: Mapping[str, Any], domain: Any, scale: Scale) -> Any:
    """The networks of a recipe after a few steps at its highest learning rate."""
    from sslcollapse.core.registry import OPTIMIZERS
    from sslcollapse.training.build import build_module

    module = build_module(recipe, domain).to(scale.device).train()
    optimizer = OPTIMIZERS.build(recipe["optim"]).build(module)
    batches = domain.batches(0, Context(device=torch.device(scale.device)))
    for step in range(scale.steps):
        optimizer.zero_grad()
        module(next(batches), step)["loss"].backward()
        optimizer.step()
        module.update_target(step)
    return module


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()  # whose results are numbers on the host
    return time.perf_counter() - began
