"""Which recorded runs drew the random numbers that they would draw today."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sslcollapse.core.seeding import FIRST_STREAMS, STREAMS
from sslcollapse.recipe import changes_since


def streams_of(recipe: Mapping[str, Any]) -> int | None:
    """The version of the random streams that a run of a resolved recipe has today; None where all draw the same.

    Version 2 of the streams changed the orders of images, of batches of several graphs and of the rows of a linear
    probe, the directions of SIGReg, and the default stream, which dropout and the like draw from. A run that has none
    of these, as BGRL on one graph, draws what it drew under version 1. Records without ``streams`` are of version 1.
    """
    return STREAMS if _draws_anew(recipe) else None


def of_most(records: Iterable[Mapping[str, Any]]) -> int:
    """The version that most of some records have; of equals, and without any, the newest."""
    found = [record.get("streams", FIRST_STREAMS) for record in records]
    return max({*found, STREAMS}, key=lambda version: (found.count(version), version))


def made_otherwise(run: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether a run directory holds another run of the same hash: with other defaults, or other random numbers."""
    return bool(changes_since(run, recipe)) or other_streams(run, recipe) is not None


def other_streams(run: Path, recipe: Mapping[str, Any]) -> int | None:
    """The version of the random streams of a run directory, if it drew other numbers than it would today; else None."""
    try:
        environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
        made_with = environment.get("streams", FIRST_STREAMS)
    except (OSError, ValueError, AttributeError):
        return None
    return None if streams_of(recipe) in (None, made_with) else made_with


def _draws_anew(recipe: Mapping[str, Any]) -> bool:
    domain = recipe["domain"]
    ordered = domain["type"] not in ("graph", "toy") or (domain["type"] == "graph" and domain["batch_size"] is not None)
    parts = [*recipe["regularizers"].values(), *recipe["evaluate"].values()]
    named = any(part["type"] in ("sigreg", "linear") for part in parts)
    return ordered or named or recipe["encoder"]["type"] == "pyg" or _drops(recipe["encoder"])


def _drops(value: Any) -> bool:
    """Whether an encoder's arguments have dropout, drop path or the like, which is not zero."""
    if not isinstance(value, Mapping):
        return False
    return any(_drops(item) or ("drop" in key and bool(item)) for key, item in value.items())
