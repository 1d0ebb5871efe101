"""What an ablation runs: base recipes × axes × seeds, all resolved before the first run starts."""

from __future__ import annotations

import ast
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sslcollapse.ablation.claims.schema import Claim, check_metric, read_claim
from sslcollapse.ablation.statistics.pairing import Planned, planned
from sslcollapse.ablation.values import Cell, parse_baseline, parse_grid, plain, show
from sslcollapse.core.errors import RecipeError, quote, suggest
from sslcollapse.recipe.literals import check_nesting
from sslcollapse.recipe.schema import folder_name

MOST_CELLS, MOST_SEEDS = 10_000, 10_000
"""Far more than anybody trains; a slip of the pen makes as many."""

FIELDS = ("name", "base", "axes", "seeds", "baseline", "metrics", "claim")


@dataclass(frozen=True)
class Ablation:
    """A checked grid: every cell resolves, no two are the same recipe, each has at most one baseline.

    Attributes:
        axes: each axis as the paths that move together.
        seeds: of each cell, those that tables have.
        baselines: hash of a cell → hash of the cell it is compared with (not for baselines themselves).
        metrics: dotted paths into a record.
        settings: ``path=value`` overrides of every run.
        claim: what the file claims of its results.
        tests: what the claim is judged by.
        planned_seeds: what the file says, or more where more are asked for: a verdict of fewer is an interim one.
        baseline: as the file has it.
        claimed: the claim as the file has it.
        looks: numbers of seeds at which the claim may be judged, where ``--until-decided`` has planned several.
        judged: numbers of seeds that plans of this folder, with other seeds or other tests, had a verdict at before.
    """

    name: str
    cells: Sequence[Cell]
    axes: Sequence[tuple[str, ...]]
    seeds: int
    baselines: Mapping[str, str]
    metrics: Sequence[str]
    settings: Sequence[str]
    claim: Claim | None = None
    tests: Sequence[Planned] = ()
    planned_seeds: int = 0
    baseline: Mapping[str, Any] = field(default_factory=dict)
    claimed: Mapping[str, Any] | None = None
    looks: Sequence[int] = ()
    judged: Sequence[int] = ()

    @cached_property
    def by_hash(self) -> dict[str, Cell]:
        """Hash → cell."""
        return {cell.hash: cell for cell in self.cells}


def plan(
    target: Path,
    grid: Sequence[str],
    seeds: int | None,
    settings: Sequence[str],
    *,
    baseline: Sequence[str] = (),
    others: Sequence[Path] = (),
    name: str | None = None,
) -> Ablation:
    """The ablation that a file, or recipes with ``--grid`` and ``--seeds``, describe.

    Args:
        target: an ablation file, or a recipe.
        grid: axes of a recipe.
        seeds: in place of the file's, or of a recipe.
        settings: overrides of all runs.
        baseline: of a recipe.
        others: more base recipes, beside a recipe.
        name: of an ablation of recipes.

    Raises:
        RecipeError: for a bad file, axis or value; errors of a cell name the cell.
    """
    described = _described(target)
    if described is None:
        described = _from_grid([target, *map(Path, others)], grid, seeds, baseline, name)
    for option, given in (("--grid", grid), ("--baseline", baseline), ("--name", name), ("a second recipe", others)):
        if given and described["file"]:
            raise RecipeError(f"{option}: {target} is an ablation file, which says this itself; change it there")
    for place in ("axes", "baseline", "metrics"):
        check_nesting(described[place], place)
    axes = {_paths(key): values for key, values in described["axes"].items()}
    settings_paths = [setting.partition("=")[0].strip() for setting in settings]
    for path in [*itertools.chain.from_iterable(axes), *settings_paths]:
        if path == "seed":
            raise RecipeError("seed: an ablation runs every cell with seeds 0, 1, ...; say how many with --seeds")
    for path, axis in itertools.product(settings_paths, itertools.chain.from_iterable(axes)):
        if f"{path}.".startswith(f"{axis}."):
            what = "this is" if path == axis else f"{axis} is"
            raise RecipeError(f"{path}: {what} an axis of the ablation and cannot be overridden as well")
    cells = _cells(described["base"], axes, settings)
    name = described["name"] or "_".join(dict.fromkeys(cell.recipe["name"] for cell in cells))
    folder_name(name, f"{target}: ablation.name" if described["file"] else "--name (by default the recipes' names)")
    count = described["seeds"] if seeds is None else seeds
    for number in (count, described["seeds"]):
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST_SEEDS:
            raise RecipeError(f"seeds must be a number from 1 to {MOST_SEEDS}, got {quote(number)}")
    baselines = baselines_of(cells, list(axes), described["baseline"])
    probes = sorted({probe for cell in cells for probe in cell.recipe["evaluate"]})
    metrics = [check_metric("metrics", metric, probes) for metric in described["metrics"]]
    claim, tests = None, []
    if described["claim"] is not None:
        try:
            claim = read_claim(described["claim"], axis_values(cells, list(axes)), described["baseline"], probes)
            tests = planned(claim, cells, list(axes))
        except RecipeError as error:
            raise RecipeError(f"{target}: ablation.{error}") from None
    return Ablation(
        name,
        cells,
        list(axes),
        count,
        baselines,
        metrics,
        list(settings),
        claim,
        tests,
        max(count, described["seeds"]),
        described["baseline"],
        described["claim"],
    )


def axis_values(cells: Sequence[Cell], axes: Sequence[tuple[str, ...]]) -> dict[str, list[Any]]:
    """Path → the values that cells have there, each once, in the file's order; the bases' labels under ``base``."""
    found: dict[str, dict[str, Any]] = {path: {} for path in ("base", *itertools.chain.from_iterable(axes))}
    for cell in cells:
        for path, seen in found.items():
            seen.setdefault(plain(cell.at(path)), cell.at(path))
    return {path: list(seen.values()) for path, seen in found.items()}


def _described(target: Path) -> dict[str, Any] | None:
    """The checked fields of an ablation file, base recipes found relative to it; None for a recipe."""
    from sslcollapse.recipe import load

    if not _defines_ablation(target):
        return None
    ablation = load(target, "ablation")
    for key in ablation:
        if key not in FIELDS:
            known = list(FIELDS)
            raise RecipeError(f"{target}: ablation.{key}: unknown field{suggest(key, known)} ({', '.join(known)})")
    fields = {"axes": {}, "seeds": 10, "baseline": {}, "metrics": [], "claim": None, **ablation}
    kinds: dict[str, Any] = {
        "name": str,
        "base": (str, os.PathLike, Mapping),
        "axes": Mapping,
        "baseline": Mapping,
        "metrics": list,
    }
    for key, kind in kinds.items():
        if not isinstance(fields.get(key), kind) or (key in ("name", "base") and not fields[key]):
            raise RecipeError(f"{target}: ablation.{key} is missing or of the wrong type: {quote(fields.get(key))}")
    base = fields["base"]
    bases = base if isinstance(base, Mapping) else {Path(base).stem: base}
    for label, path in bases.items():
        if not isinstance(label, str) or not isinstance(path, (str, os.PathLike)):
            raise RecipeError(f"{target}: ablation.base: expected label → path of a recipe, got {quote({label: path})}")
    return {**fields, "base": {str(label): target.parent / path for label, path in bases.items()}, "file": True}


def _defines_ablation(target: Path) -> bool:
    try:
        body = ast.parse(target.read_text(encoding="utf-8")).body if target.suffix == ".py" else []
    except (OSError, SyntaxError, UnicodeDecodeError):
        return False  # loading it as a recipe says what is wrong
    names = [name for node in body if isinstance(node, ast.Assign) for name in node.targets]
    return any(isinstance(name, ast.Name) and name.id == "ablation" for name in names)


def _from_grid(
    targets: Sequence[Path], grid: Sequence[str], seeds: int | None, baseline: Sequence[str], name: str | None
) -> dict[str, Any]:
    from sslcollapse.recipe import load

    if not grid and len(targets) == 1:
        load(targets[0])  # a file that is not there is said to be so
        raise RecipeError(f"{targets[0]} is a recipe, not an ablation file: give at least one --grid path=v1,v2,...")
    if seeds is None:
        raise RecipeError(f"{targets[0]}: say how many seeds each cell has with --seeds N")
    if name is not None:
        folder_name(name, "--name")
    axes: dict[Any, list[Any]] = {}
    for path, values in map(parse_grid, grid):
        if set(_paths(path)) & set(itertools.chain.from_iterable(map(_paths, axes))):
            shown = ",".join(_paths(path))
            raise RecipeError(f"--grid {shown}: given twice; list all values in one (--grid {shown}=v1,v2,v3)")
        axes[path] = values
    bases: dict[str, Path] = {}
    for target in targets:
        if target.stem in bases:
            raise RecipeError(f"{target} and {bases[target.stem]}: two recipes of one name; rename one of the files")
        bases[target.stem] = target
    return {
        "name": name,
        "base": bases,
        "axes": axes,
        "seeds": seeds,
        "baseline": parse_baseline(baseline),
        "metrics": [],
        "claim": None,
        "file": False,
    }


def _cells(
    bases: Mapping[str, Path], axes: Mapping[tuple[str, ...], Sequence[Any]], settings: Sequence[str]
) -> list[Cell]:
    from sslcollapse.recipe import identify, load, override
    from sslcollapse.recipe.recipe import assigned
    from sslcollapse.runs.directory import streams_of

    choices = [_choices(paths, values) for paths, values in axes.items()]
    count = len(bases) * math.prod(map(len, choices))
    if count > MOST_CELLS:
        raise RecipeError(f"axes: they make {count:,} cells, and {MOST_CELLS:,} are the most; leave values out")
    cells: list[Cell] = []
    known: dict[str, Cell] = {}
    for label, source in bases.items():
        recipe = override(load(source), settings)
        for combination in itertools.product(*choices):
            values = {path: value for choice in combination for path, value in choice.items()}
            cell = Cell(label, source, values, {}, "")
            try:
                resolved, hash_ = identify(assigned(recipe, values))
            except ValueError as error:
                raise RecipeError(f"cell {cell.name}: {error}") from error
            cell = Cell(label, source, values, resolved, hash_, streams_of(resolved))
            if (other := known.setdefault(cell.hash, cell)) is not cell:
                raise RecipeError(f"cells {other.name} and {cell.name} are the same recipe; remove one of them")
            cells.append(cell)
    return cells


def _choices(paths: tuple[str, ...], values: Sequence[Any]) -> list[dict[str, Any]]:
    axis = ", ".join(paths)
    if not isinstance(values, (list, tuple)) or not values:
        raise RecipeError(f"axis {axis}: give a list of at least one value, got {quote(values)}")
    if len(paths) == 1:
        return [{paths[0]: value} for value in values]
    for value in values:
        if not isinstance(value, (list, tuple)) or len(value) != len(paths):
            raise RecipeError(f"axis {axis}: each entry needs {len(paths)} values, one a path, got {quote(value)}")
    return [dict(zip(paths, value, strict=True)) for value in values]


def baselines_of(cells: Sequence[Cell], axes: Sequence[tuple[str, ...]], baseline: Mapping[str, Any]) -> dict[str, str]:
    """Hash of a cell → hash of the one with the baseline's values and, on axes the baseline does not name, its own.

    Raises:
        RecipeError: the baseline names no axis, or of some cell no other, or several.
    """
    known = ["base", *itertools.chain.from_iterable(axes)]
    for path in baseline:
        if path not in known:
            raise RecipeError(f"baseline: {path!r} is no axis{suggest(path, known)} (axes: {', '.join(known)})")
    if not baseline:
        return {}
    free = [path for paths in axes if not set(paths) & set(baseline) for path in paths]
    wanted = {path: plain(value) for path, value in baseline.items()}
    named = ["base", *free] if "base" not in baseline else free
    there: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        if all(plain(cell.at(path)) == value for path, value in wanted.items()):
            there.setdefault(_place(cell, named), []).append(cell)
    found = {}
    for cell in cells:
        matches = there.get(_place(cell, named), [])
        if len(matches) != 1:
            shown = " ".join(f"{path}={show(value)}" for path, value in baseline.items())
            problem = "no cell" if not matches else f"{len(matches)} cells"
            raise RecipeError(
                f"baseline: {problem} with {shown} to compare {cell.name} with; name a value of each axis"
            )
        if matches[0] is not cell:
            found[cell.hash] = matches[0].hash
    return found


def _place(cell: Cell, paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(plain(cell.at(path)) for path in paths)


def _paths(key: Any) -> tuple[str, ...]:
    paths = key if isinstance(key, tuple) else (key,)
    if not paths or not all(isinstance(path, str) for path in paths):
        raise RecipeError(f"axes: {quote(key)} must be a recipe path or a tuple of paths")
    return paths
