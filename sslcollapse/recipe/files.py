"""Files that hold a recipe: Python that defines it, or JSON."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from sslcollapse.core.errors import RecipeError, SSLCollapseError, in_words, quote, suggest
from sslcollapse.recipe.literals import check_nesting

_EXECUTING: ContextVar[tuple[Path, ...]] = ContextVar("files that are being executed, each for the one before")


def load(path: str | Path, variable: str = "recipe") -> dict[str, Any]:
    """The dict that a Python file defines as ``recipe``, or that a JSON file contains.

    Args:
        path: a ``.py`` file, executed once in a namespace of its own, or a ``.json`` file; or the bare name of an
            example of this package, such as ``quickstart``, where there is no file of that name.
        variable: the name that a Python file has to define.

    Raises:
        RecipeError: no such file (near names are suggested), no such variable, or an error inside it.
    """
    path = example(path)
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


def examples() -> Path:
    """Folder of the example recipes: ``examples`` of an installed package, which is made of a clone's ``recipes``."""
    package = Path(__file__).parents[1]
    return package / "examples" if (package / "examples").is_dir() else package.parent / "recipes"


def example(path: str | Path) -> Path:
    """The example recipe of this name, where a bare name is given and there is no such file here; else the path."""
    path = Path(path)
    known = examples() / f"{path.name}.py"
    return known if len(path.parts) == 1 and not path.suffix and not path.exists() and known.is_file() else path


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
    if len(path.parts) == 1 and not path.suffix:
        known = [item.stem for item in examples().glob("*.py")]
        if near := suggest(path.name, known):
            return f"{near} (an example of this package)"
    return suggest(path.name, names) or f" (recipes in {folder}: {', '.join(names[:20]) or 'none'})"
