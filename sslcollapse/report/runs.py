"""A run directory as it is: finished or not, with or without spectra, damaged lines left out and named."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcollapse.core.errors import RunError
from sslcollapse.core.untrusted import read_arrays
from sslcollapse.recipe.check import LARGEST_INT
from sslcollapse.recipe.literals import check_nesting
from sslcollapse.report.labels import differing
from sslcollapse.runs.quantities import RESULT, is_number, lacking

_RANK = re.compile(r"rank/layers/(.+)/(weight|output)/effective_rank")
_STEP = re.compile(r"[0-9]{1,18}")
_ABSENT = object()
_NOT_SAID = ("name", "seed", "monitor")

MAX_LETTERS = 56
"""Labels of runs are no longer."""


@dataclass(frozen=True)
class Run:
    """What a run directory holds.

    Attributes:
        result: ``result.json``; None of an unfinished run.
        metrics: records of ``metrics.jsonl`` that can be read.
        notes: what a reader of the page should know of this run: unfinished, damaged, not measured, not finite.
    """

    path: Path
    recipe: Mapping[str, Any]
    environment: Mapping[str, Any]
    result: Mapping[str, Any] | None
    metrics: Sequence[Mapping[str, Any]]
    notes: Sequence[str]

    @property
    def hash(self) -> str:
        """Of the recipe: from the result, else the name of the folder."""
        return self.result["hash"] if self.result else self.path.resolve().parent.name

    @property
    def name(self) -> str:
        """Recipe, hash and seed."""
        return f"{self.recipe['name']} {self.hash} seed {self.recipe['seed']}"

    @property
    def steps(self) -> int:
        """The last step there are metrics of."""
        return max((record["step"] for record in self.metrics), default=0)

    @property
    def keys(self) -> list[str]:
        """Names of all metrics, in the order of their first appearance."""
        return list(dict.fromkeys(key for record in self.metrics for key in record if key != "step"))

    @property
    def layers(self) -> list[str]:
        """Measured layers by depth."""
        found = dict.fromkeys(match[1] for key in self.keys if (match := _RANK.fullmatch(key)))
        return list(found or (self.result or {}).get("rank", {}).get("layers", {}))

    def series(self, key: str) -> dict[int, float]:
        """Step → value of one metric."""
        return {record["step"]: float(record[key]) for record in self.metrics if is_number(record.get(key))}

    def fractions(self, layer: str, part: str) -> dict[int, float]:
        """Step → effective rank over what is attainable.

        That of an output is its weight's attainable rank where that is smaller: a map from 64 dimensions to 256 has 64.
        """
        ranks = self.series(f"rank/layers/{layer}/{part}/effective_rank")
        limits = [self.series(f"rank/layers/{layer}/{which}/attainable") for which in {part, "weight"}]
        return {
            step: rank / min(limit[step] for limit in limits if limit.get(step))
            for step, rank in ranks.items()
            if any(limit.get(step) for limit in limits)
        }

    def spectra(self, newest_first: bool = False) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Step and arrays of every spectra file in the order of steps; damaged files are left out."""
        for path in sorted(self.spectra_files, reverse=newest_first):
            try:
                arrays = read_arrays(path)
            except Exception:  # a damaged archive fails in very many ways; it is named in the notes
                continue
            yield int(path.stem), arrays

    @property
    def spectra_files(self) -> list[Path]:
        """One a measured step, by step."""
        return sorted(path for path in (self.path / "spectra").glob("*.npz") if _STEP.fullmatch(path.stem))


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory."""
    return (path / "recipe.json").is_file()


def read_run(path: Path) -> Run:
    """Read a run directory.

    Raises:
        RunError: a file that every run has from its start cannot be read.
    """
    recipe = _json(path / "recipe.json")
    if not isinstance(recipe.get("name"), str) or not isinstance(recipe.get("seed"), int):
        raise RunError(f"{path / 'recipe.json'}: no recipe of a run, it has no name and seed; restore the file")
    environment = _json(path / "environment.json") if (path / "environment.json").exists() else {}
    result = _json(path / "result.json") if (path / "result.json").exists() else None
    metrics, notes = _metrics(path / "metrics.jsonl")
    if result is not None and (fault := lacking(result, RESULT)):
        result, notes = None, [*notes, f"result.json is damaged and left out: {fault}."]
    run = Run(path, recipe, environment, result, metrics, notes)
    return Run(path, recipe, environment, result, metrics, [*_state(run), *_collapsed(path), *notes, *_gaps(run)])


def labels(runs: Sequence[Run]) -> list[str]:
    """A short name of each run that no other has: what differs between them, else hash and seed, else the path.

    Where much differs, only as many differences are named as tell the runs apart.
    """
    columns = [_words(path, values) for path, values in differences(runs) if path.split(".")[0] not in _NOT_SAID]
    names, seeds = [run.recipe["name"] for run in runs], [f"seed {run.recipe['seed']}" for run in runs]
    columns = [column for column in (names, *columns, seeds) if len(set(column)) > 1] or [names]
    for chosen in (columns, _telling(columns)):
        short = [" · ".join(words) for words in zip(*chosen, strict=True)]
        if len(set(short)) == len(runs) and max(map(len, short)) <= MAX_LETTERS:
            return short
    names = [run.name for run in runs]
    return names if len(set(names)) == len(runs) else [str(run.path) for run in runs]


def differences(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """Recipe paths at which runs differ, with each one's value; ``None`` where a run has nothing there."""
    return [
        (path, [None if value is _ABSENT else value for value in values])
        for path, values in _differing([run.recipe for run in runs], "")
    ]


def brief(value: Any) -> str:
    """A recipe's value in a few words: ``werank(coefficient=0.01)``."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key}={brief(item)}" for key, item in value.items() if key != "type")
        return f"{value.get('type', '')}({inner})"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(brief, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _words(path: str, values: Sequence[Any]) -> list[str]:
    """One path's part of each label: ``hidden=64×2``, ``simclr``, or ``with werank`` where others are without."""
    name = path.rpartition(".")[2]
    others = [other for other in values if other is not None]
    if len(others) < len(values) and all(isinstance(other, Mapping) and other == others[0] for other in others):
        return [f"without {name}" if value is None else f"with {name}" for value in values]
    texts = differing(values).texts
    speaking = [isinstance(value, Mapping) and "type" in value for value in values]
    return [text if alone else f"{name}={text}" for text, alone in zip(texts, speaking, strict=True)]


def _telling(columns: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """As few of the columns as tell the same rows apart that all together do, in their order."""
    chosen: list[int] = []
    rows = len(set(zip(*columns, strict=True)))
    while len({tuple(columns[k][row] for k in chosen) for row in range(len(columns[0]))}) < rows:
        rest = [k for k in range(len(columns)) if k not in chosen]
        chosen.append(
            max(rest, key=lambda k: len({tuple(columns[c][r] for c in [*chosen, k]) for r in range(len(columns[0]))}))
        )
    return [columns[k] for k in sorted(chosen)]


def _differing(values: Sequence[Any], path: str) -> Iterator[tuple[str, list[Any]]]:
    if all(value == values[0] for value in values):
        return
    if not all(isinstance(value, Mapping) for value in values) or len({_type(value) for value in values}) > 1:
        yield path, list(values)
        return
    for key in dict.fromkeys(key for value in values for key in value):
        yield from _differing([value.get(key, _ABSENT) for value in values], f"{path}.{key}" if path else key)


def _type(value: Any) -> str:
    """Of a part of a recipe. Arguments of parts of different types are no differences of one argument."""
    return str(value.get("type")) if isinstance(value, Mapping) else ""


def _json(path: Path) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        check_nesting(value if isinstance(value, dict) else {}, "")
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read ({error}); restore the file, or leave this run out") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: expected a JSON object; restore the file, or leave this run out")
    return value


def _metrics(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Records and notes; a torn last line is what a crash or a run under way leaves, and is no damage."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); restore it, or leave this run out") from error
    lines = text.split("\n")
    records, damaged = [], []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line) if line.strip() else None
            if record is not None:
                step = int(record["step"])
                if not 0 <= step <= LARGEST_INT:
                    raise ValueError(f"step {step}")
                records.append({**record, "step": step})
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            if number < len(lines):
                damaged.append(str(number))
    notes = [f"metrics.jsonl: damaged and left out: line {', '.join(damaged)}."] if damaged else []
    return sorted(records, key=lambda record: record["step"]), notes


def _state(run: Run) -> list[str]:
    if run.result is not None:
        return []
    train = run.recipe.get("train")
    total = train.get("steps", "?") if isinstance(train, Mapping) else "?"
    return [f"Unfinished: step {run.steps} of {total} is the last there are metrics of; there is no result yet."]


def _collapsed(path: Path) -> list[str]:
    """What ``collapse.json`` says, if there is one that can be read."""
    try:
        found = json.loads((path / "collapse.json").read_text(encoding="utf-8"))
        what = "A collapse has stopped it" if found.get("stopped") else "A collapse was seen"
        return [f"{what} after step {int(found['step'])}: {found['text']}."]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _gaps(run: Run) -> list[str]:
    notes = []
    if not run.metrics:
        notes.append("No metrics were logged, so there are no curves.")
    if not any(_RANK.fullmatch(key) for key in run.keys):
        notes.append(
            "No ranks were measured during training (monitor.every=0 in the recipe, or no step reached it yet)."
        )
    files = run.spectra_files
    read = {step for step, _ in run.spectra()}
    if damaged := [path.name for path in files if int(path.stem) not in read]:
        notes.append(f"Spectra that cannot be read are left out: {', '.join(damaged)}.")
    if not files:
        notes.append("There are no spectra, so there are no fans.")
    for key in run.keys:
        bad = [step for step, value in run.series(key).items() if not math.isfinite(value)]
        if bad:
            shown = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
            notes.append(f"{key} is not finite at step {shown}; curves have a gap there.")
    return notes
