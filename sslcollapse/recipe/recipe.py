"""Recipes: plain dicts that say everything about a run. Extend, override, resolve.

recipe = extend("recipes/bgrl_cora.py", dict(seed=3))
recipe = override(recipe, ["encoder.hidden=[64, 32]", "seed=3"])
resolved = resolve(recipe)            # validated, all defaults spelled out
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from sslcollapse.core.errors import RecipeError, quote, suggest
from sslcollapse.core.registry import REGISTRIES
from sslcollapse.recipe.check import Resolved, check, check_fields, fields_of, join
from sslcollapse.recipe.files import load
from sslcollapse.recipe.literals import check_nesting, literal
from sslcollapse.recipe.schema import kind_of, kinds_within
from sslcollapse.recipe.spec import RecipeSpec

NAMED = {"regularizers": "regularizer", "constraints": "constraint", "evaluate": "probe"}
"""Fields whose entries have free names, and what an entry is."""


def extend(base: str | Path | Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe merged with changes; neither is modified.

    Dicts merge deeply. A changed ``type`` replaces the whole dict, so no argument of the former component is
    left. Lists replace, and so does whatever stands under ``coefficient``. None deletes; where there is nothing
    to delete it does nothing.

    Args:
        base: a recipe, or the path of its file.
        changes: what differs.

    Raises:
        RecipeError: None for a name that is plainly a misspelling of one that the base has.
    """
    recipe = base if isinstance(base, Mapping) else load(base)
    check_nesting(recipe, "")
    check_nesting(changes, "")
    return _merge(recipe, changes, "")


def override(recipe: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A recipe with ``"a.b.c=value"`` applied; the value is a Python literal, a bare word is a string.

    Names with dots inside a mapping go in a literal: ``regularizers.werank.coefficient={"convs.0": 0.1}``.
    The result is validated but left without defaults, as the recipe was.

    Raises:
        RecipeError: not of that form, an unknown path, or a value of another type than the field's.
    """
    return assign(recipe, _parsed(assignments))


def assign(recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with values put at dotted paths, as ``override`` does with text.

    A changed ``type`` replaces the whole dict; such changes come first, so that the order does not matter.
    None removes a regularizer or a probe, and does nothing where there is none of this name.

    Raises:
        RecipeError: an unknown path, or a value of another type than the field's.
    """
    changed = assigned(recipe, changes)
    if changes:
        resolve(changed)
    return changed


def resolve(recipe: Mapping[str, Any], assignments: Sequence[str] = ()) -> Resolved:
    """Validate a whole recipe, without reading data, and spell every default out.

    The result is JSON-able; resolving it again changes nothing.

    Args:
        recipe: as it is written.
        assignments: ``path=value``, put into it first, as ``override`` does.

    Raises:
        RecipeError: names the path, quotes the value and suggests what was meant.
    """
    if assignments:
        recipe = assigned(recipe, _parsed(assignments))
    if isinstance(recipe, Mapping):
        check_nesting(recipe, "")
    resolved: Resolved = check(recipe, RecipeSpec, "")
    known = list(resolved["evaluate"])
    for name in resolved["monitor"]["timed"]:
        if name not in known:
            there = f"{suggest(name, known)} (known: {', '.join(known)})" if known else ", which has none"
            raise RecipeError(f"monitor.timed: {name!r} is no probe of evaluate{there}")
    return resolved


def resolve_data(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Name, data root and domain of a recipe, validated; its other parts are not looked at.

    So a recipe's own objective or regularizer need not be importable to read its data.

    Raises:
        RecipeError: as ``resolve``.
    """
    check_nesting(recipe, "")
    fields = {name: field for name, field in fields_of(RecipeSpec).items() if name in ("name", "data_root", "domain")}
    return check_fields({k: v for k, v in recipe.items() if k in fields}, fields, "", "field of a recipe")


def components(resolved: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Kind and arguments of every component that takes part in a recipe, those inside others too."""
    for part, hint in get_type_hints(RecipeSpec, include_extras=True).items():
        if (kind := kind_of(hint)) is not None:
            yield from _within(kind, resolved.get(part))


def _parsed(assignments: Sequence[str]) -> dict[str, Any]:
    """Path → value of each ``path=value``."""
    changes = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not all(path.strip().split(".")):
            raise RecipeError(f"override {quote(assignment)}: expected path=value, such as train.steps=500")
        changes[path.strip()] = _literal(text)
    return changes


def assigned(recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with values at dotted paths; the result is not validated."""
    check_nesting(recipe, "")
    for path, value in changes.items():
        if isinstance(value, (Mapping, list, tuple)):
            check_nesting(value, path)
    changed = copy.deepcopy(dict(recipe))
    for path, value in sorted(changes.items(), key=lambda item: item[0].rpartition(".")[2] != "type"):
        _assign(changed, path.split("."), copy.deepcopy(value))
    return changed


def _literal(text: str) -> Any:
    try:
        return literal(text)
    except ValueError:
        return text


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any], path: str) -> dict[str, Any]:
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        where, old = join(path, key), merged.get(key)
        if value is None:
            if key not in merged and (near := _misspelt(key, list(merged))):
                raise RecipeError(f"{where}: None deletes, but the base has no {key!r}{near}")
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(old, Mapping) and not _replaces(key, value, old):
            merged[key] = _merge(old, value, where)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _replaces(key: str, value: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    return key == "coefficient" or ("type" in value and value["type"] != old.get("type"))


def _assign(recipe: dict[str, Any], keys: list[str], value: Any) -> None:
    node: dict[str, Any] = recipe
    for depth, key in enumerate(keys[:-1]):
        last = depth == len(keys) - 2
        if last and keys[-1] == "type" and isinstance(node.get(key, {}), Mapping):
            if node.get(key, {}).get("type") != value:
                node[key] = {"type": value}
            return
        if not isinstance(node.get(key), Mapping):
            # Not spelled out; there is still a dict here if the resolved recipe has one by default.
            node[key] = _resolved_part(recipe, keys[: depth + 1])
            if not isinstance(node[key], Mapping):
                place = ".".join(keys[: depth + 1])
                raise RecipeError(
                    f"{'.'.join(keys)}: {place} is {quote(node[key])}, so nothing in it can be set; "
                    f"names with dots go in a literal: {place}='{{\"name\": value}}'"
                )
        node = node[key]
    if value is None and keys[-1] not in node:
        if len(keys) == 2 and keys[0] in NAMED and not _misspelt(keys[1], list(node)):
            return
        _resolved_part(recipe, keys)
    node[keys[-1]] = value


def _misspelt(key: Any, there: list[Any]) -> str:
    """``"; did you mean 'x'?"`` for a name that nobody can have meant but for x; "" for any other."""
    components = [name for kind in NAMED.values() for name in REGISTRIES[kind].names()]
    return "" if key in components else suggest(str(key), [str(name) for name in there], cutoff=0.8)


def _resolved_part(recipe: Mapping[str, Any], keys: list[str]) -> Any:
    """What the resolved recipe has at a place; an empty dict where the recipe cannot be resolved as it is."""
    try:
        node: Any = resolve(recipe)
    except RecipeError:
        return {}
    for depth, key in enumerate(keys):
        if not isinstance(node, Mapping) or key not in node:
            raise RecipeError(_unknown_place(keys[: depth + 1], node))
        node = node[key]
    return node


def _unknown_place(keys: list[str], parent: Any) -> str:
    """Message for a path whose last key is not in ``parent``, the part of the resolved recipe before it."""
    place, above, key = ".".join(keys), ".".join(keys[:-1]), keys[-1]
    there = list(parent) if isinstance(parent, Mapping) else []
    near = suggest(key, there) or f" (it has: {', '.join(there) or 'nothing'})"
    if "coefficient" in keys[:-1]:
        near = f"; names with dots go in a literal: {above}='{{\"name\": value}}'"
    elif above in NAMED and not suggest(key, there):
        near += f"; a new one is set as a whole: {place}='{{\"type\": ...}}'"
    return f"{place}: {above or 'a recipe'} has no {key!r}{near}"


def _within(kind: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(Kind, component) of a component and all in it, or of all in a mapping from names to components, or in a list."""
    if isinstance(value, Mapping) and isinstance(value.get("type"), str):
        yield kind, value
        for argument, inner in kinds_within(REGISTRIES[kind], value["type"]).items():
            yield from _within(inner, value.get(argument))
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _within(kind, item)
