"""Names of what is measured, in ``result.json`` and in records, and what ranks are held against; imports no library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sslcollapse.core.errors import quote

FRACTION = "effective_rank_fraction"
"""Not stored: the effective rank over what is attainable."""

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
    "overlap_random",
    "dirichlet_energy",
    "dirichlet_ratio",
    "mad",
    "mad_neighbours",
    "n",
)
"""Numbers of each that records keep, and the fraction, which follows from two of them.

Overlaps of weights, energies and distances are there where ``monitor`` asked for them.
"""


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

EVIDENCE = {"baselines": dict, "baseline_ranks": dict, "course": dict, "target": dict}
"""What results and records of older versions lack, and ``evaluate`` adds to a finished run."""

_OTHERS = {"base": str, "overrides": dict, "settings": list, "steps": int, **EVIDENCE}
"""What a record may lack, but not have of another type."""

_OF_DICTS = {"evaluation": 1, "untrained": 1, "regularizers": 2, "baselines": 2, "baseline_ranks": 2}
"""Fields that are dicts of dicts, and how deeply."""


CUT_SHORT = "baselines, and what two views share, are not measured: the process ended before it"
"""Warning in a result that was written before what is optional was done; it is replaced when that is done."""

_CUT_SHORT_BEFORE = "what two views share is not measured: the process ended before it"
"""What older versions wrote."""

KEPT_VALUES = 20
"""Longer lists of a probe's values, one a split, are left out; mean, std and n say what they say."""

KEPT_RANKS = ("rtol", *(name for name in MEASURES if not name.startswith(("effective_rank", "attainable"))))
"""What is kept of each spectrum beside effective ranks."""

KEPT_STEPS = 21
"""Steps of a run's course that are kept, evenly spaced."""

TRAINED, UNTRAINED, SAME_SPECTRUM = "trained", "untrained", "same_spectrum"
"""Names of encoders in tables. ``same_spectrum`` is one of ``baselines``: the trained encoder, its weights replaced by
random ones of the same singular values. Other names there are of the domain, and have no encoder."""

TURNED_OVER = 0.01
"""A target that has no more of its initialisation left has turned over."""


def is_cut_short(run: Path) -> bool:
    """Whether a run has its result, but its process ended before what is optional: ``resume`` does that."""
    try:
        warnings = json.loads((run / "result.json").read_text(encoding="utf-8"))["warnings"]
        return CUT_SHORT in warnings or _CUT_SHORT_BEFORE in warnings
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def encoders(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Name → probe → metrics, in the order of tables: baselines without an encoder, random ones, the trained one.

    Args:
        result: of a run, or its record, perhaps of a version that had no baselines.
    """
    baselines = dict(result.get("baselines") or {})
    same = {SAME_SPECTRUM: baselines.pop(SAME_SPECTRUM)} if SAME_SPECTRUM in baselines else {}
    return {**baselines, UNTRAINED: result.get("untrained") or {}, **same, TRAINED: result["evaluation"]}


def encoder_title(name: str) -> str:
    """What a table calls an encoder or a baseline: ``"X, no encoder"``."""
    words = {TRAINED: TRAINED, UNTRAINED: UNTRAINED, SAME_SPECTRUM: "random, same spectrum"}
    return words.get(name, f"{name.replace('_', ' ')}, no encoder")


def thinned(course: Mapping[str, Any], most: int) -> dict[str, Any]:
    """A course at no more than so many of its steps, evenly spaced, the first and the last among them."""
    steps = course.get("step")
    if not isinstance(steps, list) or len(steps) <= most:
        return dict(course)
    chosen = [round(k * (len(steps) - 1) / (most - 1)) for k in range(most)]

    def kept(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: kept(item) for key, item in value.items()}
        return [value[k] for k in chosen] if isinstance(value, list) and len(value) == len(steps) else value

    return kept(course)


def compact_scores(value: Any) -> Any:
    """A probe's result without long lists; ``n`` counts the values that were there."""
    if not isinstance(value, Mapping):
        return value
    kept = {key: compact_scores(item) for key, item in value.items()}
    if isinstance(value.get("values"), list):
        kept["n"] = len(value["values"])
    return {key: item for key, item in kept.items() if not (isinstance(item, list) and len(item) > KEPT_VALUES)}


def compact_ranks(ranks: Mapping[str, Any]) -> dict[str, Any]:
    """Effective ranks, un-centred and centred, and numerical ones, with N and what is attainable."""
    layers = {name: _features(layer) for name, layer in ranks.get("layers", {}).items()}
    return {**_features({name: entry for name, entry in ranks.items() if name != "layers"}), "layers": layers}


def _features(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The same of some things by name."""

    def kept(entry: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in entry.items() if k.startswith(("effective_rank", "attainable")) or k in KEPT_RANKS}

    return {name: kept(entry) for name, entry in entries.items() if isinstance(entry, Mapping)}


def compact_evidence(result: Mapping[str, Any]) -> dict[str, Any]:
    """Baselines, their ranks, the course and the target's share, those that a result has."""
    kept: dict[str, Any] = {key: result[key] for key in EVIDENCE if key in result}
    if "baselines" in kept:
        kept["baselines"] = compact_scores(kept["baselines"])
    if "baseline_ranks" in kept:
        kept["baseline_ranks"] = {name: _features(entry) for name, entry in kept["baseline_ranks"].items()}
    if "course" in kept:
        kept["course"] = thinned(kept["course"], KEPT_STEPS)
    return kept


def lookup(record: Any, path: str) -> Any:
    """The value at a dotted path whose keys may have dots themselves; None where there is none.

    ``effective_rank_fraction`` is not stored: it is the effective rank over what is attainable.

    >>> lookup({"rank": {"layers": {"convs.0": {"weight": 3.5}}}}, "rank.layers.convs.0.weight")
    3.5
    """
    if not path:
        return record
    if path == FRACTION and isinstance(record, Mapping):
        rank, attainable = record.get("effective_rank"), record.get("attainable")
        known = isinstance(rank, (int, float)) and isinstance(attainable, (int, float)) and attainable
        return rank / attainable if known else None  # type: ignore[operator]
    if not isinstance(record, Mapping):
        return None
    # The path's beginnings are looked up in the record, not its keys in the path: tables ask thousands of times.
    there = [(key, rest) for key, rest in _beginnings(path) if key in record]
    if len(there) > 1:
        rests = dict(there)
        there = [(key, rests[key]) for key in record if key in rests]
    for key, rest in there:
        found = lookup(record[key], rest)
        if found is not None:
            return found
    return None


@lru_cache(maxsize=4096)
def _beginnings(path: str) -> tuple[tuple[str, str], ...]:
    """Each way to divide a dotted path into a first key and the rest."""
    ends = [end for end, letter in enumerate(path) if letter == "."]
    return (*((path[:end], path[end + 1 :]) for end in ends), (path, ""))


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
