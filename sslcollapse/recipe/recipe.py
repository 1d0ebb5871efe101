"""Recipes: plain dicts that say everything about a run. Load, extend, override, resolve, hash, compare.

recipe = load("recipes/bgrl_cora.py")
recipe = override(recipe, ["encoder.hidden=[64, 32]", "seed=3"])
resolved = resolve(recipe)            # validated, all defaults spelled out
recipe_hash(resolved)                 # names the folder of its runs
"""

from __future__ import annotations

import copy
import hashlib
import json
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, get_type_hints

from sslcollapse.core.errors import RecipeError, SSLCollapseError, in_words, suggest
from sslcollapse.core.registry import REGISTRIES
from sslcollapse.recipe.check import check, check_fields, check_nesting, fields_of, join, quote, stated_only
from sslcollapse.recipe.literals import literal
from sslcollapse.recipe.schema import RecipeSpec, kind_of, kinds_within

CADENCE = ("checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "log_every", "trackers")
"""Fields of ``train`` that change what is written, not what is learnt."""

NAMED = {"regularizers": "regularizer", "evaluate": "probe"}
"""Fields whose entries have free names, and what an entry is."""

_EXECUTING: ContextVar[tuple[Path, ...]] = ContextVar("files that are being executed, each for the one before")


def load(path: str | Path, variable: str = "recipe") -> dict[str, Any]:
    """The dict that a Python file defines as ``recipe``, or that a JSON file contains.

    Args:
        path: a ``.py`` file, executed once in a namespace of its own, or a ``.json`` file.
        variable: the name that a Python file has to define.

    Raises:
        RecipeError: no such file (near names are suggested), no such variable, or an error inside it.
    """
    path = Path(path)
    try:
        source = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise RecipeError(f"{path}: no such file{_nearby(path)}") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: this is a folder{_nearby(path / '*.py')}") from None
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    value = from_json(source, str(path)) if path.suffix == ".json" else _execute(path, source, variable)
    if not isinstance(value, Mapping):
        raise RecipeError(f"{path}: `{variable}` must be a dict, got {quote(value)}")
    try:
        check_nesting(value, "")
        return dict(value)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
    except Exception as error:  # a mapping of the file's own that fails
        raise RecipeError(f"{path}: `{variable}` cannot be read as a dict: {in_words(error)}") from error


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
    changes = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not all(path.strip().split(".")):
            raise RecipeError(f"override {quote(assignment)}: expected path=value, such as train.steps=500")
        changes[path.strip()] = _literal(text)
    return assign(recipe, changes)


def assign(recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with values put at dotted paths, as ``override`` does with text.

    A changed ``type`` replaces the whole dict; such changes come first, so that the order does not matter.
    None removes a regularizer or a probe, and does nothing where there is none of this name.

    Raises:
        RecipeError: an unknown path, or a value of another type than the field's.
    """
    check_nesting(recipe, "")
    for path, value in changes.items():
        if isinstance(value, (Mapping, list, tuple)):
            check_nesting(value, path)
    changed = copy.deepcopy(dict(recipe))
    for path, value in sorted(changes.items(), key=lambda item: item[0].rpartition(".")[2] != "type"):
        _assign(changed, path.split("."), copy.deepcopy(value))
    if changes:
        resolve(changed)
    return changed


def resolve(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Validate a whole recipe, without reading data, and spell every default out.

    The result is JSON-able; resolving it again changes nothing.

    Raises:
        RecipeError: names the path, quotes the value and suggests what was meant.
    """
    if isinstance(recipe, Mapping):
        check_nesting(recipe, "")
    return check(recipe, RecipeSpec, "")


def resolve_data(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Name, data root and domain of a recipe, validated; its other parts are not looked at.

    So a recipe's own objective or regularizer need not be importable to read its data.

    Raises:
        RecipeError: as ``resolve``.
    """
    check_nesting(recipe, "")
    fields = {name: field for name, field in fields_of(RecipeSpec).items() if name in ("name", "data_root", "domain")}
    return check_fields({k: v for k, v in recipe.items() if k in fields}, fields, "", "field of a recipe")


def recipe_hash(resolved: Mapping[str, Any]) -> str:
    """First 8 hex digits of the SHA-256 of what a resolved recipe learns.

    Not part of it: name, seed, data_root, monitor, how often ``train`` logs and saves, and whatever equals its
    default, so that a new option, which by default changes nothing, leaves the hashes of recorded runs as they are.
    """
    return digest(learnt(stated_only(resolve(resolved))))


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


def components(resolved: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Kind and arguments of every component that takes part in a recipe, those inside others too."""
    for part, hint in get_type_hints(RecipeSpec, include_extras=True).items():
        if (kind := kind_of(hint)) is not None:
            yield from _within(kind, resolved.get(part))


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """``"path: value here, value there"`` wherever two resolved recipes are different runs.

    Compared are name, seed and all that the hash covers. Of two components of different type, only the types
    are named.
    """
    return _differences(_identity(a), _identity(b), "")


def to_json(recipe: Mapping[str, Any]) -> str:
    """A resolved recipe as indented JSON."""
    return json.dumps(recipe, indent=2, allow_nan=False) + "\n"


def from_json(text: str, source: str = "JSON") -> Any:
    """The recipe that ``to_json`` wrote.

    Raises:
        RecipeError: not JSON, at which line of ``source``; or a key that comes twice in one object.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        raise RecipeError(f"{source}, line {error.lineno}: not valid JSON: {error.msg}") from error
    except RecursionError:
        raise RecipeError(f"{source}: nested too deeply; a recipe has about six levels") from None
    except ValueError as error:  # a number of thousands of digits, or a key that comes twice
        raise RecipeError(f"{source}: not valid JSON: {error}") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict, unless it has a key twice, of which only the last would count."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {quote(twice)} comes twice in one object")
    return made


def _execute(path: Path, source: str, variable: str) -> Any:
    file = path.resolve()
    namespace: dict[str, Any] = {"__file__": str(file), "__name__": path.stem}
    if file in _EXECUTING.get(()):
        raise RecipeError(f"{path}: extends itself, directly or through another recipe")
    outer = _EXECUTING.set((*_EXECUTING.get(()), file))
    try:
        exec(compile(source, str(file), "exec"), namespace)
    except SSLCollapseError:
        raise
    except SyntaxError as error:
        raise RecipeError(f"{path}, line {error.lineno}: {type(error).__name__}: {error.msg}") from error
    except SystemExit as error:
        raise RecipeError(
            f"{_place(path, error)}: the file ends Python (sys.exit) while it is read; a recipe only defines a dict"
        ) from error
    except RecursionError as error:
        raise RecipeError(
            f"{_place(path, error)}: something calls itself without end, or is nested too deeply ({error})"
        ) from error
    except Exception as error:
        raise RecipeError(f"{_place(path, error)}: {type(error).__name__}: {error}") from error
    finally:
        _EXECUTING.reset(outer)
    if variable not in namespace:
        defined = [name for name, value in namespace.items() if isinstance(value, dict) and name[0] != "_"]
        raise RecipeError(
            f"{path}: defines no `{variable}`{suggest(variable, defined)} "
            f"(dicts it defines: {', '.join(defined) or 'none'}); write `{variable} = dict(...)` in it"
        )
    return namespace[variable]


def _place(path: Path, error: BaseException) -> str:
    """The file, and the line of it that an error comes from."""
    file = str(path.resolve())
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__, limit=1000) if frame.filename == file]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _nearby(path: Path) -> str:
    """What else could have been meant, from the same folder."""
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {folder} either (looked from {Path.cwd()})"
    names = sorted(item.name for item in folder.iterdir() if item.suffix in (".py", ".json"))
    return suggest(path.name, names) or f" (recipes in {folder}: {', '.join(names[:20]) or 'none'})"


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
    elif above in ("regularizers", "evaluate") and not suggest(key, there):
        near += f"; a new one is set as a whole: {place}='{{\"type\": ...}}'"
    return f"{place}: {above or 'a recipe'} has no {key!r}{near}"


def _identity(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """All that tells two runs apart."""
    return {"name": resolved.get("name"), "seed": resolved.get("seed"), **learnt(resolved)}


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], path: str) -> list[str]:
    if a.get("type") != b.get("type"):
        return [f"{join(path, 'type')}: {a.get('type')!r} here, {b.get('type')!r} there"]
    lines: list[str] = []
    for key in dict.fromkeys([*a, *b]):
        where = join(path, key)
        if key in a and key in b and isinstance(a[key], Mapping) and isinstance(b[key], Mapping):
            lines += _differences(a[key], b[key], where)
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


def _within(kind: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(Kind, component) of a component and all in it, or of all in a mapping from names to components, or in a list."""
    if isinstance(value, Mapping) and isinstance(value.get("type"), str):
        yield kind, value
        for argument, inner in kinds_within(REGISTRIES[kind], value["type"]).items():
            yield from _within(inner, value.get(argument))
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _within(kind, item)
