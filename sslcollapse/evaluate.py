"""Probes on frozen representations: after training, and again for a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sslcollapse.errors import DataError, RecipeError
from sslcollapse.registry import PROBES, suggest
from sslcollapse.types import ProbeSet


def build_probes(specs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Probe name → probe, of a resolved recipe's ``evaluate``."""
    return {name: PROBES.build(spec) for name, spec in specs.items()}


def check_probes(probes: Mapping[str, Any], probe_set: ProbeSet) -> None:
    """Let every probe refuse a set that it cannot evaluate, before there are features.

    Raises:
        RecipeError, DataError: fewer than two classes, or see the probe's ``check``; the message begins with the
            probe's place in the recipe.
    """
    for name, probe in probes.items():
        try:
            if probe_set.num_classes < 2 and not probe_set.multilabel:
                raise DataError(
                    "all samples are of one class, so there is nothing to tell apart; label them, or pre-train without "
                    "probes (evaluate={})"
                )
            probe.check(probe_set)
        except (RecipeError, DataError) as error:
            raise type(error)(f"evaluate.{name}: {error}") from error


def run_probes(
    probes: Mapping[str, Any], features: Tensor, probe_set: ProbeSet
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Results by probe name, and the splits used as arrays ``<probe>/<k>/<train|validation|test>``."""
    from sslcollapse.evaluation.splits import splits_to_arrays

    results, splits = {}, {}
    for name, probe in probes.items():
        outcome = probe(features, probe_set)
        results[name] = outcome.to_json()
        splits[name] = outcome.splits
    return results, splits_to_arrays(splits)


def evaluate_run(target: Path, names: list[str] | None = None) -> dict[str, Any]:
    """Evaluate the exported encoder of a run directory again, print its table and return the results.

    Args:
        target: run directory or its ``encoder.safetensors``.
        names: which of the recipe's probes; by default all.

    Raises:
        RunError: no exported encoder there.
        RecipeError: a probe that the recipe does not have.
    """
    from sslcollapse.build import build_domain, build_module
    from sslcollapse.diagnostics.measure import represent
    from sslcollapse.export import load_encoder
    from sslcollapse.progress import PlainConsole
    from sslcollapse.tables import accuracy_table

    encoder, description = load_encoder(target)
    recipe = description["recipe"]
    known = list(recipe["evaluate"])
    for name in names or []:
        if name not in known:
            raise RecipeError(f"--probe {name}: not in this recipe{suggest(name, known)} (known: {', '.join(known)})")
    probes = build_probes({name: recipe["evaluate"][name] for name in names or known})
    domain = build_domain(recipe)
    probe_set = domain.probe_set()
    check_probes(probes, probe_set)
    trained = represent(encoder, probe_set.views)
    untrained = represent(build_module(recipe, domain).encoder, probe_set.views)
    evaluation, _ = run_probes(probes, trained, probe_set)
    baseline, _ = run_probes(probes, untrained, probe_set)
    result = {"evaluation": evaluation, "untrained": baseline}
    PlainConsole().print(accuracy_table(result))
    return result
