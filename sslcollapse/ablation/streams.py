"""Which recorded runs drew the random numbers that they would draw today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sslcollapse.run import STREAMS


def same_streams(record: Mapping[str, Any], recipe: Mapping[str, Any]) -> bool:
    """Whether a record's run drew what a run of its resolved recipe draws today.

    Version 2 of the streams changed the orders of images, of batches of several graphs and of the rows of a linear
    probe, the directions of SIGReg, and the default stream, which dropout and the like draw from. A run that has none
    of these, as BGRL on one graph, draws what it drew under version 1. Records without ``streams`` are of version 1.
    """
    return record.get("streams", 1) == STREAMS or not _draws_anew(recipe)


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
