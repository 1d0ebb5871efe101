"""Names of what is measured, in ``result.json`` and in records, and what ranks are held against; imports no library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcollapse.core.errors import quote

PARTS = ("weight", "output")
"""What of a layer is measured."""

FEATURES = ("representation", "embedding", "prediction", "shared", "shared_input")
"""What is measured beside layers; the last two of two views together."""

MEASURES = (
    "effective_rank",
    "effective_rank_centred",
    "effective_rank_fraction",
    "numerical_rank",
    "attainable",
    "attainable_centred",
    "overlap",
    "n",
)
"""Numbers of each that records keep, and the fraction, which follows from two of them."""


RANKS = ("effective_rank", "effective_rank_centred", "effective_rank_root", "numerical_rank")
"""Those that count dimensions."""

RANK_MARGIN = 0.01
"""Share of the attainable rank below which a change of rank is none, where a claim does not say another one."""


def attainable(parts: Mapping[str, Mapping[str, Any]], part: str) -> int:
    """What the rank of a layer's part is held against.

    That of an output is its weight's attainable rank where that is smaller: a map from 64 dimensions to 256 has 64.

    Args:
        parts: a layer's ``weight`` and ``output``, those that were measured.
        part: one of them.
    """
    return min(parts[which]["attainable"] for which in (part, "weight") if which in parts)


RECORD = {"hash": str, "seed": int, "evaluation": dict, "rank": dict}
"""What every record has, and of which type."""

RESULT = {
    "hash": str,
    "seed": int,
    "recipe": dict,
    "steps": int,
    "seconds": dict,
    "evaluation": dict,
    "untrained": dict,
    "rank": dict,
    "regularizers": dict,
}
"""What every ``result.json`` has."""

_OTHERS = {"base": str, "overrides": dict, "settings": list, "steps": int}
"""What a record may lack, but not have of another type."""

_OF_DICTS = {"evaluation": 1, "untrained": 1, "regularizers": 2}
"""Fields that are dicts of dicts, and how deeply."""


CUT_SHORT = "what two views share is not measured: the process ended before it"
"""Warning in a result that was written before what is optional was done; it is replaced when that is done."""


def is_cut_short(run: Path) -> bool:
    """Whether a run has its result, but its process ended before what is optional: ``resume`` does that."""
    try:
        return CUT_SHORT in json.loads((run / "result.json").read_text(encoding="utf-8"))["warnings"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def lacking(value: Any, fields: Mapping[str, type]) -> str:
    """What a JSON value lacks to be a record or result with these fields: ``"it has no 'hash'"``; "" of a whole one."""
    if not isinstance(value, dict):
        return f"it is {quote(value)} and no object"
    if missing := [key for key in fields if key not in value]:
        return f"it has no {missing[0]!r}"
    for key, kind in {**_OTHERS, **fields}.items():
        if key in value and (not isinstance(value[key], kind) or isinstance(value[key], bool)):
            return f"its {key!r} is {quote(value[key])}"
    for key, depth in _OF_DICTS.items():
        level = [value.get(key, {})]
        for _ in range(depth + 1):
            if wrong := [part for part in level if not isinstance(part, dict)]:
                return f"its {key!r} has {quote(wrong[0])} where a dict belongs"
            level = [part for each in level for part in each.values()]
    seconds = value.get("seconds", {})
    if not isinstance(seconds, dict) or not all(map(is_number, seconds.values())):
        return f"its 'seconds' are {quote(seconds)}"
    return _lacking_ranks(value["rank"]) if "rank" in fields else ""


def _lacking_ranks(ranks: Mapping[str, Any]) -> str:
    layers = ranks.get("layers", {})
    if not isinstance(layers, dict) or not all(isinstance(parts, dict) for parts in layers.values()):
        return f"its 'rank' has {quote(layers)} for 'layers'"
    found = {name: ranks[name] for name in FEATURES if ranks.get(name)}
    found |= {f"{name} {part}": parts[part] for name, parts in layers.items() for part in PARTS if part in parts}
    for name, entry in found.items():
        keys = ("effective_rank",) if name in FEATURES else ("effective_rank", "attainable")
        if not isinstance(entry, dict) or not all(is_number(entry.get(key)) for key in keys):
            return f"its 'rank' has {quote(entry)} for {name!r}"
    return ""


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number that fits into a float; NaN and infinity are."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not is_vast(value)


def is_vast(value: float) -> bool:
    """Whether an int is larger than any float."""
    return isinstance(value, int) and abs(value) > 2**1000
