"""The end of a run: the encoder is exported, evaluated beside the untrained one, and the result is written."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from sslcollapse.core.distributed import meeting
from sslcollapse.core.types import ProbeSet
from sslcollapse.runs.export import save_encoder
from sslcollapse.runs.quantities import CUT_SHORT
from sslcollapse.runs.tables import accuracy_table, rank_table, target_line
from sslcollapse.training.baselines import Baselines, Bench
from sslcollapse.training.build import build_encoder
from sslcollapse.training.evaluate import evaluate_baselines, evaluate_networks, target_entry
from sslcollapse.training.measuring import RankMeter
from sslcollapse.training.module import SSLModule
from sslcollapse.training.setup import Setup


def finish(
    setup: Setup,
    probes: Mapping[str, Any],
    probe_set: ProbeSet,
    ranks: RankMeter,
    losses: Mapping[str, float],
    seconds: Mapping[str, float],
) -> None:
    """Export, evaluate trained and untrained encoder, write the result, and only then do what is optional.

    Optional are baselines, and what two views share. Ranks share the probes. Rank 0 does the rest; the others wait for
    as long as it takes.

    Args:
        setup: of the run, after its last step.
        probes: name → probe.
        probe_set: labels and splits; on rank 0 also the inputs.
        ranks: what has measured the last step.
        losses: the last that were logged.
        seconds: what is known of the time that it took; evaluation is added.
    """
    recipe, run, module, reporter = setup.recipe, setup.run, setup.module, setup.reporter
    began = time.perf_counter()
    with meeting("exporting the encoder"):
        if setup.main:
            save_encoder(run.path, module.plain_encoder(), recipe, setup.domain.in_shape, setup.steps, hash_=run.hash)
            measurement = ranks.last()
    networks = {"evaluation": module.encoder}
    if probes:  # the untrained one is made for them alone
        networks["untrained"] = build_encoder(recipe, setup.domain).to(setup.accelerator.device)
    evaluation, splits = evaluate_networks(probes, networks, probe_set, reporter)
    result: dict[str, Any] = {}
    with meeting("writing the result"):
        if setup.main:
            result = {
                "status": "finished",
                "recipe": dict(recipe),
                "hash": run.hash,
                "seed": recipe["seed"],
                "steps": setup.steps,
                "seconds": {**seconds, "evaluation": time.perf_counter() - began},
                **{"evaluation": {}, "untrained": {}, **evaluation},
                "rank": dict(measurement.ranks),
                "course": ranks.course(),
                "target": target_entry(module.objective, setup.steps),
                "regularizers": penalty_summary(module, setup.steps - 1, losses),
                "warnings": [CUT_SHORT],
            }
            run.write_arrays("splits.npz", splits)
            run.write_json("result.json", result)
            result["warnings"] = []
    bench = Bench(recipe, setup.domain, probes, probe_set, setup.accelerator.device, run.path.resolve().parents[2])
    if probes and recipe["monitor"]["baselines"]:
        began = time.perf_counter()
        _add_baselines(result, bench, networks["untrained"], setup)
        if setup.main:
            result["seconds"]["baselines"] = time.perf_counter() - began
    with meeting("writing the result"):
        if not setup.main:
            return
        _add_shared(result, ranks, setup)
        run.write_json("result.json", result)
        if probes:
            reporter.print(accuracy_table(result))
        reporter.print(rank_table(result))
        if line := target_line(result):
            reporter.print(line)
        reporter.print(f"finished in {seconds['training']:.0f} s of training: {run.path / 'result.json'}")


def _add_baselines(result: dict[str, Any], bench: Bench, untrained: Any, setup: Setup) -> None:
    """Evaluate what the encoder is held against; every rank calls."""
    found = Baselines()
    with _optional(result, "baselines are not measured", setup):
        evaluate_baselines(bench, setup.module.plain_encoder(), untrained, setup.reporter, found)
    result |= {"baselines": found.evaluation, "baseline_ranks": found.ranks}


def _add_shared(result: dict[str, Any], ranks: RankMeter, setup: Setup) -> None:
    """Measure what two training views share; on rank 0."""
    with _optional(result, "what two views share is not measured", setup):
        result["rank"] |= ranks.shared()


@contextmanager
def _optional(result: dict[str, Any], failure: str, setup: Setup) -> Iterator[None]:
    """Around what the result is complete without; what fails is a warning, its traceback is in the log."""
    try:
        yield
    except Exception as error:
        if not setup.main:
            return
        line = f"{failure}: {type(error).__name__}: {error}"
        result["warnings"].append(line)
        setup.run.log(traceback.format_exc())
        setup.reporter.warn(f"{line}; the traceback is in train.log")


@torch.no_grad()
def penalty_summary(
    module: SSLModule, step: int, losses: Mapping[str, float]
) -> dict[str, dict[str, dict[str, float]]]:
    """Regularizer → layer or kind of feature → penalty, its floor, what is above it, and the coefficient at a step.

    Args:
        module: with regularizers.
        step: from 0.
        losses: the last that were logged, which have the penalties on features, those of the last batch.
    """
    regularizers: Any = module.regularizers
    summary: dict[str, dict[str, dict[str, float]]] = {name: {} for name in regularizers}
    for name, layer, penalty, coefficient in module.weight_penalties(step, inactive=True):
        floor = regularizers[name].floor(module.layers[layer])
        value = float(penalty)
        summary[name][layer] = {
            "penalty": value,
            "floor": floor,
            "excess": value - floor,
            "coefficient": coefficient,
        }
    for name, coefficients in module.coefficients(step).items():
        for place, coefficient in coefficients.items():
            last = losses.get(f"regularizer/{name}/{place}/penalty")
            if place not in summary[name] and last is not None:
                summary[name][place] = {"penalty": last, "floor": 0.0, "excess": last, "coefficient": coefficient}
    return summary
