"""One run to be made; and whether a recorded run is the one that is asked for.

The same hash may stand for other defaults or other draws.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from sslcollapse.ablation.values import Cell
from sslcollapse.core.seeding import FIRST_STREAMS
from sslcollapse.recipe import changed_defaults, digest, learnt
from sslcollapse.runs.quantities import is_cut_short

TAIL_BYTES = 1 << 16


@dataclass(frozen=True, eq=False)
class Job:
    """One run to be made.

    Attributes:
        path: its run directory.
        out: the folder of all runs, which ``path`` is in.
        command: what would make the same run by hand, for ``environment.json``.
    """

    cell: Cell
    seed: int
    path: Path
    out: Path
    command: list[str]

    @property
    def key(self) -> str:
        """Its name in files: ``<hash>/seed<k>``."""
        return f"{self.cell.hash}/seed{self.seed}"

    @property
    def name(self) -> str:
        """Its name in messages: ``cora encoder.hidden=[64] seed=3``."""
        return f"{self.cell.name} seed={self.seed}"

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.cell.recipe["train"]["steps"]

    @property
    def finished(self) -> bool:
        """Whether the run has its result, and its folder is not that of another run of the same hash."""
        from sslcollapse.runs.directory import made_otherwise

        return (self.path / "result.json").exists() and not made_otherwise(self.path, self.cell.recipe)

    @property
    def complete(self) -> bool:
        """Whether it is finished and nothing that is optional was cut short."""
        return self.finished and not is_cut_short(self.path)

    @property
    def log(self) -> Path:
        """What the run printed, its errors last."""
        return self.path / "train.log"

    def step(self) -> int:
        """The newest logged step, from the end of ``metrics.jsonl``; 0 if there is none."""
        try:
            with open(self.path / "metrics.jsonl", "rb") as file:
                file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
                found = re.findall(rb'^\{"step": (\d+)[,}]', file.read(), re.MULTILINE)
        except OSError:
            return 0
        return int(found[-1]) if found else 0

    def message(self) -> dict[str, Any]:
        """What the worker is told, as it could be JSON."""
        return {
            "source": str(self.cell.source.absolute()),
            "recipe": self.cell.with_seed(self.seed),
            "path": str(self.path.absolute()),
            "out": str(self.out.absolute()),
            "command": self.command,
        }


class JobWatch(Protocol):
    """What an executor tells while it makes runs."""

    def started(self, job: Job) -> None:
        """A run has begun."""

    def ended(self, job: Job, error: str | None, seconds: float) -> None:
        """A run has ended after ``seconds``, with the error in one line or None if it has its result."""

    def stopped(self, job: Job) -> None:
        """A run was asked by a signal to stop; it has not failed, and the same command goes on with it."""

    def note(self, text: str) -> None:
        """Something about the processes, for the user to know."""

    def tick(self) -> None:
        """Time has passed; called some times a second."""


def last_line(text: str) -> str:
    """The last line that is not blank, which is where a traceback says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


FIRST = "0.1.0"
"""The version whose records do not have their recipe."""


UNSAID = f"a record of version {FIRST}, which does not say its defaults, and they are not known to be those of now"


def why_another(record: Mapping[str, Any], recipe: Mapping[str, Any], streams: int | None) -> str:
    """Why a record of a cell's hash is another run than the cell asks for; "" if it is the same.

    Args:
        record: of that hash.
        recipe: the cell's, resolved; empty where it is not known.
        streams: version of the random streams that is asked for; None where any will do.
    """
    if recipe:
        made = record.get("recipe")
        if isinstance(made, Mapping):
            changes = changed_defaults(made, recipe)
        else:
            changes = [] if first_hash(recipe) == record["hash"] else [UNSAID]
        if changes:
            return "; ".join(changes)
    made_with = record.get("streams", FIRST_STREAMS)
    return "" if streams in (None, made_with) else f"random streams of version {made_with}, {streams} asked for"


def first_hash(recipe: Mapping[str, Any]) -> str:
    """The hash that version 0.1.0 gave a resolved recipe, whose defaults ``first_defaults.json`` has.

    A record without its recipe says by its hash what it stated. If the recipe that is asked for has another hash under
    the defaults of then, one of its defaults was another then, or one of its components is none of that version.
    """
    try:
        return digest(_stated({key: value for key, value in learnt(recipe).items() if value != {}}))
    except (KeyError, TypeError, AttributeError):  # a plan is read as it is, and need not be of this package
        return ""


def _stated(recipe: Mapping[str, Any]) -> dict[str, Any]:
    parts = {"domain": "domain", "encoder": "encoder", "objective": "objective", "optim": "optimizer"}
    named = {"regularizers": "regularizer", "constraints": "constraint", "evaluate": "probe"}
    made: dict[str, Any] = {}
    for key, value in recipe.items():
        if key in parts:
            made[key] = _component(parts[key], value)
        elif key in named:
            made[key] = {name: _component(named[key], component) for name, component in value.items()}
        elif key in _defaults():
            made[key] = _unequal(value, _defaults()[key])
    return made


def _component(kind: str, component: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in component.items() if key != "type"}
    kinds = {"dataset": f"{component['type']}_dataset", "base": "coefficient"}
    stated = _unequal(rest, _defaults()[f"{kind} {component['type']}"])
    inner = {
        key: _component(kinds.get(key, key), value) if isinstance(value, Mapping) and "type" in value else value
        for key, value in stated.items()
    }
    return {"type": component["type"], **inner}


def _unequal(values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """What is not a default; an option that came later is left out, since the hash would have it if it were stated."""
    made = {}
    for key, value in values.items():
        default = known["defaults"].get(key)
        if key in known["required"] or (key in known["defaults"] and value != default):
            inner = isinstance(default, Mapping) and isinstance(value, Mapping)
            made[key] = {k: v for k, v in value.items() if default.get(k, v) != v} if inner else value
    return made


@cache
def _defaults() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("first_defaults.json").read_text(encoding="utf-8"))
