"""Run directories as a list has them: what ran, how it ended, what came out; a damaged file hides no other run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sslcollapse.core.errors import RunError, quote, suggest
from sslcollapse.core.files import holder
from sslcollapse.runs.directory import read_metrics
from sslcollapse.runs.quantities import RESULT, is_cut_short, is_number, lacking

_LOG_BYTES = 4096
_ABSENT = "absent"


@dataclass(frozen=True)
class ListedRun:
    """One run directory.

    Attributes:
        state: ``finished``, ``running``, ``collapsed``, ``stopped``, ``unfinished``, or ``damaged: ...``.
        step: the newest logged one.
        result: ``result.json``; empty where there is none.
        collapse: ``collapse.json``; empty where there is none.
        environment: ``environment.json``.
        metrics: ``<probe>.<metric>`` → mean, ``rank.<feature>`` → effective rank, of a finished run.
    """

    path: Path
    state: str
    step: int
    recipe: Mapping[str, Any]
    result: Mapping[str, Any] = field(default_factory=dict)
    collapse: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run; 0 where the recipe does not say."""
        train = self.recipe.get("train")
        steps = train.get("steps") if isinstance(train, Mapping) else 0
        return steps if isinstance(steps, int) else 0

    @property
    def hash(self) -> str:
        """Of the recipe: the folder around the run."""
        return self.path.resolve().parent.name

    @property
    def started(self) -> str:
        """When its latest process began."""
        return str(self.environment.get("time", "")).replace("T", " ").replace("+00:00", "")

    @property
    def headline(self) -> str:
        """A metric or two in one line; of a collapse its layer."""
        if self.state == "collapsed":
            return (
                f"{self.collapse.get('kind')} of {self.collapse.get('layer')} since step {self.collapse.get('since')}"
            )
        shown = [*[name for name in self.metrics if ".test_" in name][:2], "rank.representation"]
        return ", ".join(f"{name} {self.metrics[name]:.4g}" for name in shown if name in self.metrics)

    @property
    def about(self) -> dict[str, Any]:
        """What else a reader asks of a run: where and how it was made."""
        seconds = self.result.get("seconds")
        spent = {"seconds of training": seconds.get("training")} if isinstance(seconds, Mapping) else {}
        known = {key: self.environment.get(key) for key in ("device", "world_size", "commit", "command")}
        return {key: value for key, value in (spent | known).items() if value}

    def flat_recipe(self) -> dict[str, Any]:
        """Path → value of every leaf of the recipe."""
        return dict(_leaves(self.recipe, ""))

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "path": str(self.path),
            "name": self.recipe.get("name"),
            "hash": self.hash,
            "seed": self.recipe.get("seed"),
            "state": self.state,
            "step": self.step,
            "steps": self.steps,
            "started": self.started,
            "metrics": dict(self.metrics),
        }


def find_runs(paths: Sequence[Path], *, folders: bool = True) -> list[Path]:
    """Run directories that are given, or, with ``folders``, below what is given; each once.

    Raises:
        RunError: a path is none.
    """
    found: list[Path] = []
    for given in paths:
        path = given if given.name not in ("", "..") else given.resolve()  # a lock lies beside the folder
        below = [path] if _is_run(path) else []
        if not below and folders and path.is_dir():
            below = sorted(file.parent for file in path.glob("**/seed*/recipe.json"))
        if not below:
            what = "there is no such folder" if not path.exists() else "this is no run directory"
            wanted = (
                "a run directory or a folder of runs" if folders else "a run directory, such as runs/NAME/HASH/seed0"
            )
            raise RunError(f"{path}: {what}; expected {wanted}")
        found += below
    return list(dict.fromkeys(found))


def read_listed(path: Path) -> ListedRun:
    """What a run directory says; what cannot be read is named in its state."""
    damaged: list[str] = []
    recipe, result, collapse, environment = (
        _object(path / f"{name}.json", damaged) for name in ("recipe", "result", "collapse", "environment")
    )
    if result and (fault := lacking(result, RESULT)):
        damaged.append(f"result.json: {fault}")
        result = {}
    try:
        records, _ = read_metrics(path / "metrics.jsonl")
    except OSError:
        records = []
    step = max((record["step"] for record in records), default=0)
    if holder(path) is not None:
        state = "running"
    elif damaged:
        state = f"damaged: {damaged[0]}"
    elif result:
        state = "finished, cut short" if is_cut_short(path) else "finished"
    elif collapse.get("stopped"):
        state = "collapsed"
    else:
        state = "stopped" if "\nstopped by SIG" in _end_of(path / "train.log") else "unfinished"
    return ListedRun(path, state, step, recipe, result, collapse, environment, dict(_metrics(result)))


def ranked(runs: Sequence[ListedRun], metric: str | None, *, lowest: bool) -> tuple[str, list[dict[str, Any]]]:
    """A metric, and recipes by its mean over their finished runs, the best first.

    Raises:
        RunError: no finished run has such a metric.
    """
    finished = [run for run in runs if run.metrics]
    known = list(dict.fromkeys(name for run in finished for name in run.metrics))
    if not known:
        raise RunError("none of these runs is finished, so none is the best; 'sslcollapse runs ls' says how they are")
    if metric is None:
        metric = next((name for part in (".validation_", ".test_") for name in known if part in name), known[0])
    if metric not in known:
        raise RunError(
            f"no finished run has the metric {metric!r}{suggest(metric, known)} (metrics: {', '.join(known)})"
        )
    groups: dict[tuple[str, str], list[ListedRun]] = {}
    for run in finished:
        if metric in run.metrics:
            groups.setdefault((str(run.recipe.get("name")), run.hash), []).append(run)
    rows: list[dict[str, Any]] = []
    for (name, hash_), members in groups.items():
        values = [run.metrics[metric] for run in members]
        rows.append(
            {
                "name": name,
                "hash": hash_,
                "mean": mean(values),
                "std": stdev(values) if len(values) > 1 else 0.0,
                "n": len(values),
                "paths": [str(run.path) for run in members],
            }
        )
    return metric, sorted(rows, key=lambda row: (math.isnan(row["mean"]), row["mean"] if lowest else -row["mean"]))


def differences(a: ListedRun, b: ListedRun) -> dict[str, list[tuple[str, str, str]]]:
    """``recipe``, ``result`` and ``environment`` → what differs, with the value of each run."""
    parts: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "recipe": (a.flat_recipe(), b.flat_recipe()),
        "result": ({"state": a.state, "step": a.step, **a.metrics}, {"state": b.state, "step": b.step, **b.metrics}),
        "environment": (dict(_leaves(a.environment, "")), dict(_leaves(b.environment, ""))),
    }
    return {
        part: [
            (key, _word(one.get(key, _ABSENT)), _word(two.get(key, _ABSENT)))
            for key in dict.fromkeys([*one, *two])
            if key not in ("time", "command") and one.get(key, _ABSENT) != two.get(key, _ABSENT)
        ]
        for part, (one, two) in parts.items()
    }


def _is_run(path: Path) -> bool:
    recipe = _object(path / "recipe.json", [])
    return isinstance(recipe.get("name"), str) and isinstance(recipe.get("seed"), int)


def _object(path: Path, damaged: list[str]) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        damaged.append(f"{path.name}: {error}")
        return {}
    if not isinstance(value, dict):
        damaged.append(f"{path.name}: it is no object")
        return {}
    return value


def _metrics(result: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for probe, metrics in result.get("evaluation", {}).items():
        for name, value in metrics.items():
            number = value.get("mean") if isinstance(value, Mapping) else value
            if isinstance(number, (int, float)) and is_number(number) and name != "n":
                yield f"{probe}.{name}", float(number)
    for name, entry in result.get("rank", {}).items():
        if isinstance(entry, Mapping) and is_number(entry.get("effective_rank")):
            yield f"rank.{name}", float(entry["effective_rank"])


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif path:
        yield path, value


def _word(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else quote(value)


def _end_of(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LOG_BYTES))
            return "\n" + file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
