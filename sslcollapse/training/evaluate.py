"""The probes of a recipe on its trained and untrained encoder: after training, and again for a finished run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sslcollapse.core.distributed import made_by_rank_0, world_size
from sslcollapse.core.errors import RecipeError, RunError, suggest
from sslcollapse.core.precision import device_of, numerics
from sslcollapse.core.registry import RegistryError, remedy
from sslcollapse.core.types import ProbeSet
from sslcollapse.probes.evaluate import build_probes, check_probes, count_splits, run_probes
from sslcollapse.rank.measure import represent
from sslcollapse.recipe.spec import TrainSpec
from sslcollapse.runs.export import load_encoder
from sslcollapse.runs.tables import accuracy_table
from sslcollapse.training.build import build_domain, build_encoder
from sslcollapse.training.progress import Reporter


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
            make = partial(represent, encoder, probe_set.views)
            features = made_by_rank_0("computing representations", make, device_of(encoder))
            results[name], splits = run_probes(probes, features, probe_set, shared=True, progress=done)
    return results, splits


def policy_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What ``numerics`` takes, from a recipe that may be older than some of it."""
    fields = {field.name: field.default for field in dataclasses.fields(TrainSpec)}
    return {name: recipe["train"].get(name, fields[name]) for name in ("matmul", "cudnn_benchmark", "deterministic")}


def evaluate_run(target: Path, names: list[str] | None = None) -> dict[str, Any]:
    """Evaluate the exported encoder of a run directory again, print its table and return the results.

    Encoder, domain and the probes are built again, and nothing else of the recipe. What the recipe's file registered
    must be registered: import it before, or ``sslcollapse.load_recipe`` it.

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
    reporter = Reporter(True)
    with numerics(policy_of(recipe), device):
        probe_set = domain.probe_set().to(device)
        check_probes(probes, probe_set)
        networks = {"evaluation": encoder.to(device), "untrained": build_encoder(recipe, domain).to(device)}
        result, _ = evaluate_networks(probes, networks, probe_set, reporter)
    reporter.print(accuracy_table(result))
    return result
