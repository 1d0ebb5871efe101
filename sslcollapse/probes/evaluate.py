"""Probes on frozen representations that somebody gives: built, checked and run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from torch import Tensor

from sslcollapse.core.distributed import Meeting, meeting, rank, world_size
from sslcollapse.core.errors import DataError, RecipeError, RunError, SSLCollapseError
from sslcollapse.core.precision import full_precision
from sslcollapse.core.registry import PROBES
from sslcollapse.core.types import ProbeSet, Split, renumbered, rows_of

if TYPE_CHECKING:
    from sslcollapse.probes.base import Outcome, ProbeResult

Plan: TypeAlias = tuple[tuple[Split, ...], str]
"""The splits of a probe, and the metric."""


def build_probes(specs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Probe name → probe, of a resolved recipe's ``evaluate``."""
    return {name: PROBES.build(spec) for name, spec in specs.items()}


def check_probes(probes: Mapping[str, Any], probe_set: ProbeSet) -> None:
    """Let every probe refuse a set that it cannot evaluate, before there are features.

    A probe that has ``check(probe_set)`` is asked; it may have none.

    Raises:
        RecipeError, DataError: fewer than two classes, or see the probe's ``check``; the message begins with the
            probe's place in the recipe.
    """
    for name, probe in probes.items():
        with _place(name):
            if probe_set.num_classes < 2 and not probe_set.multilabel:
                raise DataError(
                    "all samples are of one class, so there is nothing to tell apart; label them, or pre-train without "
                    "probes (evaluate={})"
                )
            if hasattr(probe, "check"):
                probe.check(probe_set)


def count_splits(probes: Mapping[str, Any], probe_set: ProbeSet) -> dict[str, int]:
    """Probe name → how many splits of a set it evaluates; 1 for a probe that does not work split by split."""
    from sslcollapse.probes.base import SplitProbe

    return {n: probe.splits.count(probe_set) if isinstance(probe, SplitProbe) else 1 for n, probe in probes.items()}


def rows_read(probes: Mapping[str, Any], probe_set: ProbeSet) -> Tensor | None:
    """Numbers [R] of the rows of a set that are in a split of a probe, ascending; None where probes may read any."""
    from sslcollapse.probes.base import SplitProbe

    if not all(isinstance(probe, SplitProbe) for probe in probes.values()):
        return None
    splits = (split for probe in probes.values() for split in probe.splits.of(probe_set))
    return rows_of(splits, len(probe_set.labels))


def run_probes(
    probes: Mapping[str, Any],
    features: Tensor,
    probe_set: ProbeSet,
    *,
    rows: Tensor | None = None,
    shared: bool = False,
    progress: Callable[[str], None] | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Results by probe name, and the splits used as arrays ``<probe>/<k>/<train|validation|test>``.

    Args:
        probes: name → probe.
        features: [N, d], one row a label, or [R, d] with ``rows``.
        probe_set: labels and splits; its inputs are not read.
        rows: numbers [R] of the rows of the set that features are of, ascending, all that probes read (``rows_read``);
            None for all.
        shared: whether the splits are divided over the ranks of the process group, all of which call this with the
            same arguments and get the same results. A probe that does not work split by split runs on rank 0, which
            alone has its result.
        progress: called with the probe's name after each split of this rank.

    Raises:
        RecipeError, DataError: see the probe; the message begins with the probe's place in the recipe.
        RunError: a probe failed in another way, or another rank did.
    """
    from sslcollapse.probes.base import Outcome, SplitProbe
    from sslcollapse.probes.splits import splits_to_arrays

    ranks, own = (world_size(), rank()) if shared else (1, 0)
    plans: dict[str, Plan] = {}
    for name, probe in probes.items():
        if isinstance(probe, SplitProbe):
            with _place(name):
                plans[name] = probe.check(probe_set)
    units = [(name, k) for name, (splits, _) in plans.items() for k in range(len(splits))]
    done = progress or (lambda name: None)
    whole = {name: probe for name, probe in probes.items() if name not in plans} if own == 0 else {}
    precise = full_precision(features.device)
    with meeting("evaluating") if ranks > 1 else nullcontext(Meeting()) as together, precise:
        found = _run_whole(whole, features, probe_set, done)
        seen = probe_set if rows is None else replace(probe_set, views=(), labels=probe_set.labels[rows])
        together.result = _run_splits(probes, plans, units[own::ranks], features, seen, done, rows)
    shares = together.results or [together.result]
    outcomes: dict[str, list[Outcome]] = {name: [] for name in plans}
    for i, (name, _) in enumerate(units):
        outcomes[name].append(Outcome(*shares[i % ranks][i // ranks]))
    for name, (splits, metric) in plans.items():
        found[name] = probes[name].result(metric, splits, outcomes[name])
    results = {name: found[name] for name in probes if name in found}
    return (
        {name: result.to_json() for name, result in results.items()},
        splits_to_arrays({name: result.splits for name, result in results.items()}),
    )


def _run_whole(
    probes: Mapping[str, Any], features: Tensor, probe_set: ProbeSet, done: Callable[[str], None]
) -> dict[str, ProbeResult]:
    """Results of probes that have ``__call__`` alone."""
    from sslcollapse.probes.base import ProbeResult

    results = {}
    for name, probe in probes.items():
        with _place(name):
            results[name] = probe(features, probe_set)
            if not isinstance(results[name], ProbeResult):
                raise TypeError(f"a probe returns a ProbeResult, got {type(results[name]).__name__}")
        done(name)
    return results


def _run_splits(
    probes: Mapping[str, Any],
    plans: Mapping[str, Plan],
    units: Sequence[tuple[str, int]],
    features: Tensor,
    probe_set: ProbeSet,
    done: Callable[[str], None],
    rows: Tensor | None,
) -> list[Outcome]:
    """The outcome of each (probe, number of the split), those of one probe together."""
    from sslcollapse.probes.base import check_features

    outcomes = []
    for name, several in groupby(units, key=lambda unit: unit[0]):
        splits, metric = plans[name]
        own = [splits[k] if rows is None else renumbered(splits[k], rows) for _, k in several]
        with _place(name):
            check_features(features, probe_set.labels)
            for outcome in probes[name].outcomes(features, probe_set, own, metric):
                outcomes.append(outcome)
                done(name)
    return outcomes


@contextmanager
def _place(name: str) -> Iterator[None]:
    """Put a probe's place in the recipe before its errors."""
    try:
        yield
    except (RecipeError, DataError) as error:
        raise type(error)(f"evaluate.{name}: {error}") from error
    except SSLCollapseError:
        raise
    except Exception as error:
        raise RunError(
            f"evaluate.{name}: the probe failed with {type(error).__name__}: {error}; the trained encoder is exported, "
            "so mend the probe and evaluate again (train --resume, or evaluate), which does not train again"
        ) from error
