"""Names of values by what differs between them: what all share is dropped, and said once."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_SCALARS = (int, float, str)
_ABSENT = "\0"
_WORDS = re.compile(r"[^\s,_/]+[\s,_/]*|[\s,_/]+")

LONG = 24
"""Names of more letters lose the words that all begin with."""


class Labels(NamedTuple):
    """A short name for each of several values.

    Attributes:
        texts: one a value, all different where the values are.
        shared: what was dropped from them, such as ``band has value=0.01``.
    """

    texts: list[str]
    shared: list[str]


def compact(value: Any) -> str:
    """A recipe's value in a few letters; a list of equal items is ``256×3``."""
    if value is None or value == {} or value == []:
        return "none"
    if isinstance(value, Mapping):
        kind, inner = str(value.get("type", "")), ", ".join(_named(value))
        return f"{kind}({inner})" if inner else kind
    if isinstance(value, (list, tuple)):
        if all(isinstance(item, _SCALARS) for item in value) and len(set(map(str, value))) == 1:
            return compact(value[0]) + (f"×{len(value)}" if len(value) > 1 else "")
        return f"[{', '.join(map(compact, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def differing(values: Sequence[Any]) -> Labels:
    """Short names of a recipe's values at one path.

    Values with a ``type`` are named by it alone where that tells them apart, else also by those arguments that differ
    between values of the same type. An argument's name is left out where no other one differs.
    """
    common = _common(values)
    shared = [f"all have {', '.join(_named(common))}"] if common else []
    values = [{k: v for k, v in value.items() if k not in common} if common else value for value in values]
    kinds = [_kind(value) for value in values]
    mixed = len(set(kinds)) > 1
    texts = [""] * len(values)
    for kind in dict.fromkeys(kinds):
        places = [place for place, other in enumerate(kinds) if other == kind]
        own = [values[place] for place in places]
        if not isinstance(own[0], Mapping) or not own[0]:
            for place, value in zip(places, own, strict=True):
                texts[place] = compact(value)
            continue
        found = _of_one_kind(own, kind if mixed and "type" in own[0] else "")
        for place, text in zip(places, found.texts, strict=True):
            texts[place] = text
        shared += found.shared
    if len(set(texts)) < len({compact(value) for value in values}):
        return Labels([compact(value) for value in values], [])
    return Labels(texts, shared)


def without_beginning(texts: Sequence[str]) -> Labels:
    """Texts without the words that all begin with, where they are long."""
    words = [_WORDS.findall(text) for text in texts]
    same = [column[0] for column in itertools.takewhile(lambda c: len(set(c)) == 1, zip(*words, strict=False))]
    dropped = "".join(same[: min(map(len, words)) - 1])
    if len(texts) < 2 or max(map(len, texts)) <= LONG or not dropped.strip():
        return Labels(list(texts), [])
    return Labels([text[len(dropped) :] for text in texts], [f"all begin with {dropped.strip()!r}"])


def several(paths: Sequence[str], levels: Sequence[tuple[Any, ...]]) -> Labels:
    """Short names of levels that have a value at each of several paths; paths at which none differ are dropped."""
    columns, shared, same = [], [], []
    for path, values in zip(paths, zip(*levels, strict=True), strict=True):
        if len({compact(value) for value in values}) == 1:
            same.append(f"{path.rpartition('.')[2]}={compact(values[0])}")
            continue
        found = differing(values)
        word = f"{path.rpartition('.')[2]} " if all(isinstance(value, bool) for value in values) else ""
        columns.append((path, [word + text for text in found.texts]))
        shared += found.shared
    kept = [texts for path, texts in columns if path != "name" or len(columns) == 1]
    shared += [f"all have {', '.join(same)}"] if same else []
    return Labels([", ".join(parts) for parts in zip(*kept, strict=True)] or [""] * len(levels), shared)


def _common(values: Sequence[Any]) -> dict[str, Any]:
    """Arguments that parts of several types all have, with one value."""
    if not all(isinstance(value, Mapping) and "type" in value for value in values):
        return {}
    if len({value["type"] for value in values}) == 1:
        return {}  # said of that type
    first = values[0]
    return {
        key: first[key]
        for key in first
        if key != "type" and all(key in other and compact(other[key]) == compact(first[key]) for other in values)
    }


def _of_one_kind(values: Sequence[Mapping[str, Any]], kind: str) -> Labels:
    """Names of mappings of one type, or without a type, by the entries that differ; ``kind`` begins each."""
    keys = [key for key in dict.fromkeys(key for value in values for key in value) if key != "type"]
    same = [key for key in keys if len({compact(value.get(key, _ABSENT)) for value in values}) == 1]
    different = [key for key in keys if key not in same]
    alone = len(different) == 1 and all(different[0] in value for value in values)
    words: list[list[str]] = [[kind] if kind else [] for _ in values]
    shared = []
    for key in different:
        places = [place for place, value in enumerate(values) if key in value]
        found = differing([values[place][key] for place in places])
        shared += found.shared
        for place, text in zip(places, found.texts, strict=True):
            words[place].append(text if alone or text == key else f"{key} {text}")
        if alone:
            shared.append(f"a bare value is {key}")
    kept = ", ".join(_named({key: values[0][key] for key in same}))
    if kept:
        name = str(values[0].get("type", ""))
        shared.append(f"{name or 'all'} has {kept}")
    return Labels([" ".join(word) or str(values[0].get("type", "default")) for word in words], shared)


def _kind(value: Any) -> str:
    """What a value is one of: its type, several parts, nothing, or anything else."""
    if not isinstance(value, Mapping):
        return "nothing" if value is None else "value"
    return str(value["type"]) if "type" in value else "parts" if value else "nothing"


def _named(value: Mapping[str, Any]) -> list[str]:
    return [_entry(key, item) for key, item in value.items() if key != "type"]


def _entry(key: str, item: Any) -> str:
    """``coefficient=0.1``, and ``werank(coefficient=0.1)`` of a part that is called by its type."""
    return compact(item) if isinstance(item, Mapping) and item.get("type") == key else f"{key}={compact(item)}"
