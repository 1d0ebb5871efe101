"""The probes of a recipe on its encoders and baselines: after training, and again for a finished run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sslcollapse.core.distributed import world_size
from sslcollapse.core.errors import RecipeError, RunError, WriteError, suggest
from sslcollapse.core.precision import device_of, numerics
from sslcollapse.core.registry import OBJECTIVES, RegistryError, remedy
from sslcollapse.core.types import ProbeSet
from sslcollapse.probes.evaluate import build_probes, check_probes, count_splits, run_probes
from sslcollapse.rank.measure import represent
from sslcollapse.recipe.spec import TrainSpec
from sslcollapse.runs.directory import RunDirectory, read_metrics
from sslcollapse.runs.export import load_encoder
from sslcollapse.runs.quantities import RESULT, lacking
from sslcollapse.runs.tables import accuracy_table
from sslcollapse.training.baselines import Baselines, Bench, measure_baselines
from sslcollapse.training.build import build_domain, build_encoder
from sslcollapse.training.course import course_of
from sslcollapse.training.features import REPRESENTING, probe_features
from sslcollapse.training.progress import Reporter
from sslcollapse.training.target import initialization_left


def evaluate_networks(
    probes: Mapping[str, Any], encoders: Mapping[str, Any], probe_set: ProbeSet, reporter: Reporter
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Name of encoder → results by probe name, and the splits used; says what is done and how long it takes.

    On several ranks all call this. Rank 0 computes the representations, and all share the probes' splits.

    Args:
        probes: name → probe.
        encoders: name → encoder, the trained one before the untrained one.
        probe_set: labels and splits; on rank 0 also the inputs, on the encoders' device.
        reporter: shows progress.
    """
    if not probes:
        return {name: {} for name in encoders}, {}
    counts = count_splits(probes, probe_set)
    named = ", ".join(f"{name} on {count} {'split' if count == 1 else 'splits'}" for name, count in counts.items())
    shared = f", shared by {world_size()} processes" if world_size() > 1 else ""
    total = len(encoders) * -(-sum(counts.values()) // world_size())
    results: dict[str, dict[str, Any]] = {}
    with reporter.stage(f"evaluating the trained and the untrained encoder: {named}{shared}", total) as done:
        for name, encoder in encoders.items():
            make = partial(represent, encoder)
            features, rows = probe_features(REPRESENTING, make, probes, probe_set, device_of(encoder))
            results[name], splits = run_probes(probes, features, probe_set, rows=rows, shared=True, progress=done)
    for name, found in results.items():
        for probe, metrics in found.items():
            if count := metrics.get("unconverged"):
                reporter.warn(
                    f"{name}.{probe}: {count} fits stopped before they had converged, and validation "
                    f"chose among them; a larger evaluate.{probe}.max_iter lets them"
                )
    return results, splits


def evaluate_baselines(bench: Bench, trained: Any, untrained: Any, reporter: Reporter, found: Baselines) -> None:
    """``measure_baselines``, which every rank calls, saying what is done, how long it takes, and what there is not."""
    names = ["random weights of the same spectrum", *bench.offered()]
    total = len(names) * -(-sum(count_splits(bench.probes, bench.probe_set).values()) // world_size())
    with reporter.stage(f"evaluating what it is held against: {', '.join(names)}", total) as done:
        measure_baselines(bench, trained, untrained, found, done)
    for note in found.notes:
        reporter.print(note)


def target_entry(objective: Any, steps: int) -> dict[str, float]:
    """``target`` of a result: the share of its initialisation that is left; empty without a target."""
    left = initialization_left(objective, steps)
    return {} if left is None else {"initialization_left": left}


def policy_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What ``numerics`` takes, from a recipe that may be older than some of it."""
    fields = {field.name: field.default for field in dataclasses.fields(TrainSpec)}
    return {name: recipe["train"].get(name, fields[name]) for name in ("matmul", "cudnn_benchmark", "deterministic")}


def evaluate_run(target: Path | str, names: list[str] | None = None) -> dict[str, Any]:
    """Evaluate the exported encoder of a run directory again, with baselines, print the table and return the results.

    Encoder, domain and the probes are built again, and nothing else of the recipe. What the recipe's file registered
    must be registered: import it before, or ``sslcollapse.load_recipe`` it. To the ``result.json`` of a finished run
    are added what it lacks of baselines, their ranks, the course and the target's share; nothing in it is changed.

    Args:
        target: run directory or its ``encoder.safetensors``.
        names: which of the recipe's probes; by default all.

    Raises:
        RunError: no exported encoder there, or a part of the recipe that is not registered.
        RecipeError: a probe that the recipe does not have.
    """
    try:
        encoder, description = load_encoder(target)
        recipe = description["recipe"]
        known = list(recipe["evaluate"])
        for name in names or []:
            if name not in known:
                near = suggest(name, known)
                raise RecipeError(f"--probe {name}: not in this recipe{near} (known: {', '.join(known)})")
        probes = build_probes({name: recipe["evaluate"][name] for name in names or known})
        domain = build_domain(recipe)
    except RegistryError as error:
        raise RunError(f"{target}: {error}{remedy(error)}") from error
    domain.load()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reporter, shown = Reporter(True), {}
    result: dict[str, Any]
    with numerics(policy_of(recipe), device):
        probe_set = domain.probe_set().to(device)
        check_probes(probes, probe_set)
        networks = {"evaluation": encoder.to(device), "untrained": build_encoder(recipe, domain).to(device)}
        result, _ = evaluate_networks(probes, networks, probe_set, reporter)
        if probes:
            run = RunDirectory((Path(target) if Path(target).is_dir() else Path(target).parent).resolve())
            in_place = run.finished and run.path.parts[-3:-1] == (recipe["name"], description.get("hash"))
            cache = run.path.parents[2] if in_place else None
            bench = Bench(recipe, domain, probes, probe_set, device, cache, largest=None)
            found = Baselines()
            evaluate_baselines(bench, networks["evaluation"], networks["untrained"], reporter, found)
            result |= {"baselines": found.evaluation, "baseline_ranks": found.ranks}
            if run.finished:
                shown = {"rank": _complete(run, recipe, result, reporter)}
    reporter.print(accuracy_table(result | shown))
    return result


def _complete(
    run: RunDirectory, recipe: Mapping[str, Any], found: Mapping[str, Any], reporter: Reporter
) -> dict[str, Any]:
    """Add to a finished run's result what it lacks, and say so; its ranks."""
    path = run.path / "result.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if fault := lacking(result, RESULT):
            raise ValueError(fault)
    except (OSError, ValueError, RecursionError) as error:
        reporter.warn(f"{path}: cannot be read, and nothing is added to it: {error}")
        return {}
    added = _added(result, "baselines", found["baselines"]) + _added(result, "baseline_ranks", found["baseline_ranks"])
    entries = {"course": course_of(read_metrics(run.path / "metrics.jsonl")[0], None)}
    with suppress(RegistryError):  # of a recipe's own objective, which evaluation does without
        entries["target"] = target_entry(OBJECTIVES.construct(recipe["objective"]), result["steps"])
    for key, entry in entries.items():
        if key not in result:
            result[key] = entry
            added.append(key)
    if added:
        try:
            run.write_json("result.json", result)
            reporter.print(f"added to {path}: {', '.join(added)}")
        except (OSError, WriteError) as error:
            reporter.warn(f"{path}: cannot be written, and nothing is added to it: {error}")
    ranks: dict[str, Any] = result["rank"]
    return ranks


def _added(result: dict[str, Any], key: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Put entries of two levels where there are none; their names."""
    own, names = result.setdefault(key, {}), []
    for name, entries in found.items():
        lacked = {inner: value for inner, value in entries.items() if inner not in own.get(name, {})}
        if lacked:
            own[name] = own.get(name, {}) | lacked
            names.append(f"{key}.{name}")
    return names
