"""Names of values by what differs between them, axes of an ablation as factors of a plot, and captions."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.values import Cell, labelled, layer_width

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
        found = _layers(path, values) or differing(values)
        word = f"{path.rpartition('.')[2]} " if all(isinstance(value, bool) for value in values) else ""
        columns.append((path, [word + text for text in found.texts]))
        shared += found.shared
    kept = [texts for path, texts in columns if path != "name" or len(columns) == 1]
    shared += [f"all have {', '.join(same)}"] if same else []
    return Labels([", ".join(parts) for parts in zip(*kept, strict=True)] or [""] * len(levels), shared)


def _layers(path: str, values: Sequence[Any]) -> Labels | None:
    """``8 layers`` of encoders that all have one width, ``8 layers of 256`` of others; None of anything else."""
    widths = [layer_width(path, value) for value in values]
    if None in widths:
        return None
    texts = [labelled(path, value) for value in values]
    if len(set(widths)) > 1:
        return Labels(texts, [])
    return Labels([text.rpartition(" of ")[0] for text in texts], [f"layers are {widths[0]} wide"])


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


BASE = "base"
_OFF = "coefficient"


@dataclass(frozen=True)
class Factor:
    """One axis with two levels or more, or the base recipe.

    Attributes:
        title: what varies: a recipe path, down to the number where just one number varies.
        labels: one a level, in the grid's order.
        numbers: one a level; None where levels are no numbers.
        level: hash of a cell → its level.
        shared: what no label says, since it is the same in all that have it.
    """

    title: str
    labels: Sequence[str]
    numbers: Sequence[float] | None
    level: Mapping[str, int]
    shared: str = ""

    @property
    def short(self) -> str:
        """The last word of the title."""
        return self.title.rpartition(".")[2]

    @property
    def words(self) -> str:
        """The last word of each path of the title."""
        return ", ".join(path.rpartition(".")[2] for path in self.title.split(", "))

    def label(self, cell: Cell) -> str:
        """The level of a cell."""
        return self.labels[self.level[cell.hash]]

    def named(self, cell: Cell) -> str:
        """The level of a cell, with what it is the level of where that is no text of its own."""
        label = self.label(cell)
        bare = label in ("none", "True", "False") or not any(map(str.isalpha, label.replace("e-", "")))
        return f"{self.short} {label}" if bare and "," not in self.title else label


def factors(ablation: Ablation) -> list[Factor]:
    """Base recipe and axes of an ablation that have two levels or more."""
    cells = ablation.cells
    found = [_factor((BASE,), {cell.hash: (cell.base,) for cell in cells})]
    for axis in ablation.axes:
        found.append(_factor(axis, {cell.hash: tuple(cell.values.get(path) for path in axis) for cell in cells}))
    return [factor for factor in found if len(factor.labels) > 1]


def cell_name(cell: Cell, chosen: Sequence[Factor]) -> str:
    """A cell by its levels: ``GRACE, Cora · coefficient 0.01``."""
    return " · ".join(factor.named(cell) for factor in chosen) or cell.base


def _factor(paths: Sequence[str], values: Mapping[str, tuple[Any, ...]]) -> Factor:
    plain = {name: json.dumps(value, sort_keys=True, default=str) for name, value in values.items()}
    order = list(dict.fromkeys(plain.values()))
    levels = [values[next(name for name in values if plain[name] == text)] for text in order]
    place = {name: order.index(text) for name, text in plain.items()}
    found = _number(paths, levels)
    if found is not None:
        title, numbers = found
        return Factor(title, [f"{number:g}" for number in numbers], numbers, place)
    labels = _labels(paths, levels)
    return Factor(_title(paths), labels.texts, None, place, "; ".join(dict.fromkeys(labels.shared)))


def _number(paths: Sequence[str], levels: Sequence[tuple[Any, ...]]) -> tuple[str, list[float]] | None:
    """The one number by which all levels differ, with its path; a part that is left out has the coefficient 0."""
    leaves = [dict(_leaves(dict(zip(paths, level, strict=True)), "")) for level in levels]
    for path in dict.fromkeys(path for level in leaves for path in level):
        last = path.rpartition(".")[2]
        values = [level.get(path, 0 if last == _OFF else None) for level in leaves]
        numbers = [float(value) for value in values if _is_number(value)]
        if len(set(numbers)) < len(values):
            continue
        others = [
            {name: value for name, value in level.items() if name != path and not _is_name(name, value)}
            for level in leaves
        ]
        present = [other for other, level in zip(others, leaves, strict=True) if path in level]
        absent = [other for other, level in zip(others, leaves, strict=True) if path not in level]
        if all(other == present[0] for other in present) and not any(map(_says_something, absent)):
            return path, numbers
    return None


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _says_something(leaves: Mapping[str, Any]) -> bool:
    return any(value is not None for value in leaves.values())


def _is_name(path: str, value: Any) -> bool:
    """A recipe's name, which moves together with what it stands for."""
    return path == "name" and isinstance(value, str)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _title(paths: Sequence[str]) -> str:
    return ", ".join(path for path in paths if path != "name" or len(paths) == 1)


def _labels(paths: Sequence[str], levels: Sequence[tuple[Any, ...]]) -> Labels:
    if all(isinstance(level[0], str) for level in levels) and len({level[0] for level in levels}) == len(levels):
        return without_beginning([level[0] for level in levels])  # a base or a name says it all
    return several(paths, levels)


MAX_NAMED = 6
"""So many cells are named in a caption."""

MAX_SHARED = 140
"""Letters of what captions say that labels leave out; more is said once at the top of the page."""


class Value(NamedTuple):
    """A mean with the ends of its bar (None of one value) and n."""

    mean: float
    low: float | None
    high: float | None
    n: int


def without_bars(cells: Sequence[Cell], found: Mapping[str, Value], factors: Sequence[Factor]) -> str:
    """A sentence that names cells whose marker is hollow, with their n; "" of none."""
    names = [f"{cell_name(cell, factors)} (n = {found[cell.hash].n})" for cell in cells]
    return f"Hollow, since there is no interval: {named(names)}." if names else ""


def split_names(cells: Sequence[Cell], factors: Sequence[Factor]) -> tuple[list[Factor], str]:
    """Factors at which these cells differ, for their names; and a sentence with what they have in common."""
    varying = [factor for factor in factors if len({factor.level[cell.hash] for cell in cells}) > 1]
    same = [factor for factor in factors if factor not in varying]
    if not varying or not same:
        return list(factors), ""
    return varying, f"All have {' · '.join(factor.named(cells[0]) for factor in same)}."


def named(names: Iterable[str]) -> str:
    """Names one after the other, the first few of many."""
    every = list(names)
    more = f" and {len(every) - MAX_NAMED} more" if len(every) > MAX_NAMED else ""
    return f"{', '.join(every[:MAX_NAMED])}{more}"


def shared_words(factors: Sequence[Factor]) -> str:
    """A sentence for a caption with what the labels of factors leave out; "" of nothing, and of much."""
    text = left_out(factors)
    return text if len(text) <= MAX_SHARED else ""


def shared_note(factors: Sequence[Factor]) -> list[str]:
    """The same for the top of a page, where it is too long for every caption."""
    text = left_out(factors)
    return [text] if len(text) > MAX_SHARED else []


def left_out(factors: Sequence[Factor]) -> str:
    """What no label says, since it is the same wherever it is."""
    parts = [factor.shared for factor in factors if factor.shared]
    return f"In labels of plots, {'; '.join(parts)}." if parts else ""
