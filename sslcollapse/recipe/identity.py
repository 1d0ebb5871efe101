"""What makes two recipes one run: their hash, what is learnt, and in what two of them differ.

resolved, hash_ = identify(load("recipes/bgrl_cora.py"))    # the hash names the folder of its runs
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcollapse.core.errors import quote
from sslcollapse.recipe.check import Resolved, join, stated_only
from sslcollapse.recipe.files import from_json
from sslcollapse.recipe.recipe import resolve

CADENCE = (
    *("checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "log_every", "trackers"),
    *("capture", "timeout_minutes"),
)
"""Fields of ``train`` that change what is written, how fast a step is, or when a run gives up, not what is learnt."""


def recipe_hash(resolved: Mapping[str, Any]) -> str:
    """First 8 hex digits of the SHA-256 of what a resolved recipe learns.

    Not part of it: name, seed, data_root, monitor, how often ``train`` logs and saves and whether it captures steps,
    and whatever equals its default, so that a new option, which by default changes nothing, leaves the hashes of
    recorded runs as they are.
    """
    return identify(resolved)[1]


def identify(recipe: Mapping[str, Any], assignments: Sequence[str] = ()) -> tuple[Resolved, str]:
    """A recipe resolved, and its hash, in one pass; what begins a run calls this, once.

    Args:
        recipe: as it is written, or resolved.
        assignments: ``path=value``, put into it first, as ``override`` does.

    Raises:
        RecipeError: as ``resolve``.
    """
    resolved = resolve(recipe, assignments)
    return resolved, digest(learnt(stated_only(resolved)))


def digest(value: Any) -> str:
    """First 8 hex digits of the SHA-256 of a value as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def learnt(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that two runs share if and only if they differ by seed alone."""
    kept = {k: v for k, v in resolved.items() if k not in ("name", "seed", "data_root", "monitor")}
    train = resolved.get("train")
    kept["train"] = {k: v for k, v in train.items() if k not in CADENCE} if isinstance(train, Mapping) else {}
    return kept


def changed_defaults(made: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """``"path: 2.0 asked for, 0.3 there"`` wherever a run of the same hash was made with another value.

    The hash covers what is stated, so these are defaults that were changed in between. An option that the run did not
    know is none: it has its default now, which is to leave older runs as they were.

    Args:
        made: resolved recipe of the run that is there.
        asked: resolved recipe of the same hash.
    """
    return _changed(learnt(made), learnt(asked), "")


def changes_since(run: Path, asked: Mapping[str, Any]) -> list[str]:
    """``changed_defaults`` of the run in a run directory; none without one, or where its recipe cannot be read."""
    try:
        made = from_json((run / "recipe.json").read_text(encoding="utf-8"))
        return changed_defaults(made, asked) if isinstance(made, Mapping) else []
    except (OSError, ValueError, TypeError, AttributeError):
        return []


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """``"path: value here, value there"`` wherever two resolved recipes are different runs.

    Compared are name, seed and all that the hash covers. Of two components of different type, only the types
    are named. An option that one side does not know has its default there.

    Args:
        a: with today's fields.
        b: perhaps of an older version, which knew fewer.
    """
    stated = _identity(stated_only(a))
    return _differences(_identity(a), _identity(b), stated, "")


def unlike(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """``"path: value here, value there"`` wherever two resolved recipes differ in anything but where data are."""
    here, there = ({k: v for k, v in each.items() if k != "data_root"} for each in (a, b))
    return _differences(here, there, here, "")


def _identity(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """All that tells two runs apart."""
    return {"name": resolved.get("name"), "seed": resolved.get("seed"), **learnt(resolved)}


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], stated: Mapping[str, Any], path: str) -> list[str]:
    if a.get("type") != b.get("type"):
        return [f"{join(path, 'type')}: {a.get('type')!r} here, {b.get('type')!r} there"]
    lines: list[str] = []
    for key in dict.fromkeys([*a, *b]):
        where = join(path, key)
        if key in a and key in b and isinstance(a[key], Mapping) and isinstance(b[key], Mapping):
            lines += _differences(a[key], b[key], stated.get(key, {}), where)
        elif key not in b and key not in stated:
            continue  # a default of an option that the other side does not know
        elif key not in a or key not in b or a[key] != b[key]:
            here, there = (quote(side[key]) if key in side else "absent" for side in (a, b))
            lines.append(f"{where}: {here} here, {there} there")
    return lines


def _changed(made: Mapping[str, Any], asked: Mapping[str, Any], path: str) -> list[str]:
    lines: list[str] = []
    for key, there in made.items():
        where = join(path, key)
        if isinstance(there, Mapping) and isinstance(asked.get(key), Mapping):
            lines += _changed(there, asked[key], where)
        elif key not in asked:
            lines.append(f"{where}: {quote(there)} there, no such option now")
        elif asked[key] != there:
            lines.append(f"{where}: {quote(asked[key])} asked for, {quote(there)} there")
    return lines
