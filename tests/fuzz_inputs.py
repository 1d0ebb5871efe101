"""Odd recipes, overrides, grids, ablation files, records and commands, by the kind of thing that is tried with them.

``tests/test_fuzz.py`` tries some of them, ``tools/fuzz.py`` as many as one likes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fuzz_attempts import (
    BASES,
    FILE,
    RECORD,
    RUN,
    give_command,
    line_of,
    plan_file,
    plan_grid,
    plan_json,
    plan_override,
    plan_python,
    plan_recipe,
    read_records,
    read_run_files,
    text_of,
)
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from sslcollapse.core.registry import REGISTRIES

SETTINGS: dict[str, Any] = dict(
    database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
"""Of hypothesis: inputs are made, and neither kept nor shrunk."""


def _deep(levels: int, as_dict: bool) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = {"a": value} if as_dict else [value]
    return value


def _recursive(as_dict: bool) -> Any:
    value: Any = {} if as_dict else []
    value.update(a=value) if as_dict else value.append(value)
    return value


ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3.5, 1e-320, 1e308, -1e308, math.inf, -math.inf, math.nan),
    *(2**31, 2**63, 2**64, -(2**64), 10**9, 10**18, 10**400, -(10**400), 10**5000),
    *("", " ", "x", "None", "nan", "a" * 256, "a/b", "..", "../x", "\0", "\ud800", "é‖", "[red]", "=1", "type"),
    *([], {}, [[]], [{}], [None], [1, "a"], (1, 2), {1: 2}, {"": 0}, {"a": {"b": []}}, {"type": 3}, {"type": []}),
    *({"type": "gcn"}, {"type": "werank"}, {"type": "depth", "first": 1, "last": -1}, {None: None}, {"a" * 300: 1}),
    *([1] * 1000, [0.1, 0.1, 0.8], object(), set(), b"x", 1j, Path("a"), len, ...),
]
"""Values that nobody should write at most places of a recipe."""

USUAL: list[Any] = [
    *(0, 1, 2, 3, 5, 8, 16, 0.0, 0.1, 0.5, 0.99, 1.0, 2.0, 1e-4, True, False, None),
    *("batch", "layer", "none", "relu", "prelu", "cosine", "constant", "public", "random", "output", "smaller", "auto"),
    *([8, 4], [4], [], [16, 16, 8], [0.2, 0.3], [0.4, 0.4, 0.4, 0.1], ["encoder"], ["encoder", "predictor"]),
    *(dict(type="werank"), dict(type="so", coefficient=0.1), dict(type="variance", on=["representation"])),
    *(dict(type="depth", first=1.0, last=0.1), dict(type="band", value=0.1), dict(type="schedule", base=0.1)),
    *(dict(type="rank_floor"), {"convs.*": 0.1}, {"*": 1}, dict(type="knn"), dict(type="linear", split="random")),
    *(dict(type="sgd", lr=0.1), dict(type="lars", lr=0.1, momentum=0.0), dict(type="bgrl"), dict(type="simsiam")),
    *(dict(type="lightly", loss="NTXentLoss"), dict(type="timm", name="muon", lr=0.1), dict(type="torchvision")),
]
"""Values that belong somewhere, and fit elsewhere now and then."""


def mostly(usual: st.SearchStrategy[Any], rare: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Seven of ten from the first (``one_of`` would give every branch inside it the same share)."""
    return st.integers(0, 9).flatmap(lambda number: usual if number < 7 else rare)


odd_only = st.one_of(
    st.sampled_from(range(len(ODD))).map(lambda index: copy.deepcopy(ODD[index])),
    st.builds(_deep, st.sampled_from([49, 60, 3000]), st.booleans()) | st.builds(_recursive, st.booleans()),
    st.integers(-3, 300),
    st.floats(allow_nan=True),
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)


odd = mostly(st.sampled_from(range(len(USUAL))).map(lambda index: copy.deepcopy(USUAL[index])), odd_only)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key and index of the first levels of a recipe, as the way to it."""
    items: Any = ()
    if len(path) > 8:
        return
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def near(draw: st.DrawFn, value: Any) -> Any:
    """A value like this one, which may well be allowed in its place."""
    if isinstance(value, bool) or value is None:
        return draw(st.sampled_from([True, False, None, 1]))
    if isinstance(value, int):
        return draw(st.sampled_from([value + 1, value - 1, 2 * value, -value, 0, float(value), 3]))
    if isinstance(value, float):
        return draw(st.sampled_from([value / 2, 2 * value, -value, 0.0, 1.0, 1, 0.5]))
    if isinstance(value, (list, tuple)):
        items = list(value)
        return draw(st.sampled_from([items + items[:1], items[1:], items[::-1], tuple(items), items * 2, items[:1]]))
    return value


NAMES = sorted({name for registry in REGISTRIES.values() for name in registry.names()})


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    """A real recipe with one to three things in it changed, added or removed."""
    recipe = copy.deepcopy(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        path = draw(st.sampled_from(list(places(recipe))))
        node: Any = recipe
        for key in path[:-1]:
            node = node[key]
        what = draw(st.sampled_from(["set", "set", "add", "remove", "type", "default", "near", "near", "near", "near"]))
        if what == "remove":
            del node[path[-1]]
        elif what == "type" and isinstance(node, dict):
            alike = [registry.names() for registry in REGISTRIES.values() if _type(node) in registry.names()]
            node["type"] = draw(st.sampled_from(alike[0] if alike and draw(st.booleans()) else NAMES))
        elif what == "default" and isinstance(node, dict):
            known = {k: p.default for r in REGISTRIES.values() if _type(node) in r.names() for k, p in _known(r, node)}
            key = draw(st.sampled_from([*known, "x"]))
            node[key] = near(draw, known.get(key)) if draw(st.booleans()) else draw(odd)
        elif what == "near":
            node[path[-1]] = near(draw, node[path[-1]])
        elif what == "add" and isinstance(node, dict):
            node[draw(st.text(max_size=6) | st.sampled_from([1, None, "type", "x"]))] = draw(odd)
        else:
            node[path[-1]] = draw(odd)
        if not list(places(recipe)):
            break
    return recipe


def _type(node: Mapping[Any, Any]) -> str:
    return node["type"] if isinstance(node.get("type"), str) else ""


def _known(registry: Any, node: Mapping[Any, Any]) -> Any:
    return registry.parameters(_type(node)).items()


SNIPPETS = (
    *("{[]}", "{1:[],[]:1}", "{{}}", "1e400", "-" * 3000 + "1", "[" * 150, "(" * 3000, "9" * 400, "9" * 5000),
    *("dict(", "dict(type='so')", "dict(1)", "dict(a=dict(b=dict()))", "None", "lambda: 0", "[i for i in ()]"),
    *("1_000", "0x1F", "1j", "b'a'", "...", "{**{}}", "*a", "a=b", "'\\ud800'", "'\\0'", "\x00", "{'a': {1}}", "''"),
    *("[1,]", "1,2", "(1,2),(3,4)", "{'type':'werank'}", "None,dict(type='werank')", "not 1", "1 if 2 else 3"),
    *("`", "\\", ",", "f'{1}'"),
)
texts = st.one_of(
    st.sampled_from(SNIPPETS),
    odd.map(text_of),
    st.text(alphabet="[]{}()'\",:=-+.eE01 \nabcdit*", max_size=12),
)
paths = st.one_of(
    st.sampled_from(sorted({".".join(map(str, place)) for base in BASES for place in places(base)})),
    st.sampled_from(
        ["regularizers.werank", "regularizers.new", "evaluate.x", "seed", "train.steps", "a.b", "", ".", "type"]
    ),
    st.text(alphabet="abct.=,[] ", max_size=8),
)
GOOD = (
    *("encoder.hidden=[8]", "optim.lr=0.1", "train.steps=5", "encoder.type=mlp", "objective.type=simsiam", "seed=3"),
    *("regularizers.werank=None", "regularizers.werank=dict(type='werank')", "evaluate=None", "monitor.every=0"),
    *("regularizers.werank.coefficient=0.1", "domain.views.strength=0.5", "encoder.norm=none", "name=other"),
)
assignments = mostly(st.sampled_from(GOOD), st.tuples(paths, texts).map("=".join))


@st.composite
def mutated(draw: st.DrawFn, base: Any, changes: int = 2) -> Any:
    """A JSON-like value with some things in it changed or removed."""
    value = copy.deepcopy(base)
    for _ in range(draw(st.integers(0, changes))):
        every = list(places(value))
        if not every:
            break
        path = draw(st.sampled_from(every))
        node = value
        for key in path[:-1]:
            node = node[key]
        what = draw(st.sampled_from(["near", "near", "near", "remove", "set", "set"]))
        if what == "remove":
            del node[path[-1]]
        else:
            node[path[-1]] = near(draw, node[path[-1]]) if what == "near" else draw(odd)
    return value


lines = mostly(
    mutated(RECORD).map(line_of),
    odd.map(line_of)
    | st.binary(max_size=20).map(lambda data: data.replace(b"\n", b""))
    | st.sampled_from([b"[" * 100_000, b'{"hash": "a", "seed": 0}']),
)
jsons = mostly(
    mutated(BASES[0], 2).map(lambda value: line_of(value).decode()),
    st.sampled_from(
        ["", "[]", "{}", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, '{"name": 1, "name": 2}', "NaN", "\0"]
    )
    | st.text(max_size=20),
)
bodies = st.one_of(
    st.sampled_from(
        [
            "import sys; sys.exit(0)",
            "def f(): return f()\nrecipe = f()",
            "from sslcollapse.recipe import load\nrecipe = load(__file__)",
            "raise Exception('[red]\\n')",
            "recipe = {}\nrecipe['a'] = recipe",
            "recipe = 10**5000",
            "x = [0]\nfor _ in range(60): x = [x, x]\nrecipe = dict(name=x)",
            "class A(dict):\n    def items(self): raise KeyError(1)\nrecipe = dict(encoder=A(type='gcn'))",
            "class A:\n    def __repr__(self): raise KeyError(1)\nrecipe = dict(name=A())",
            "recipe = dict(",
            "\0",
            "raise KeyboardInterruption",
            "assert False",
        ]
    ),
    recipes().map(lambda recipe: f"from math import nan, inf\nrecipe = {text_of(recipe)}"),
)

GOOD_AXES = (
    *("encoder.hidden=[8],[4]", "optim.lr=0.1,0.2,0.3", "regularizers.werank=None,dict(type='werank')"),
    *("train.steps,optim.lr=(1,0.1),(2,0.2)", "encoder.type=mlp,gcn", "evaluate.knn=None", "monitor.every=1,2"),
)
axes = mostly(
    st.sampled_from(GOOD_AXES),
    st.tuples(paths, st.lists(texts, min_size=1, max_size=3).map(",".join)).map("=".join),
)
indices = st.integers(0, len(BASES) - 1)
INPUTS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "recipe": (plan_recipe, st.tuples(recipes())),
    "override": (plan_override, st.tuples(indices, st.lists(assignments, min_size=1, max_size=3))),
    "grid": (
        plan_grid,
        st.tuples(
            st.lists(indices, min_size=1, max_size=2, unique=True),
            st.lists(axes, min_size=1, max_size=2),
            mostly(st.just([]), st.lists(assignments, max_size=1)),
            mostly(st.just([]), st.lists(assignments, max_size=1)),
        ),
    ),
    "ablation file": (plan_file, st.tuples(mutated(FILE))),
    "JSON file": (plan_json, st.tuples(jsons)),
    "Python file": (plan_python, st.tuples(bodies)),
    "command": (give_command, st.tuples(st.lists(assignments | st.text(max_size=6), min_size=1, max_size=2))),
    "run files": (read_run_files, st.tuples(mutated(RUN))),
    "records": (read_records, st.tuples(st.lists(lines, min_size=1, max_size=2))),
}
"""Kind of input → what is done with it, and how inputs of this kind are made."""
