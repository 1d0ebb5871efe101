"""Everything that is written beside an ablation's records, ``plan.json`` with every cell resolved among it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sslcollapse.ablation.claims.judge import judge
from sslcollapse.ablation.claims.schema import check_metric, read_claim
from sslcollapse.ablation.claims.verdict import refresh_overview, verdict_json
from sslcollapse.ablation.grid import Ablation, axis_values
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.pairing import planned
from sslcollapse.ablation.statistics.power import FEWEST_SEEDS, planned_looks
from sslcollapse.ablation.tables.latex import table_latex
from sslcollapse.ablation.tables.page import page, table_csv
from sslcollapse.ablation.values import Cell
from sslcollapse.core.errors import RecipeError, RunError
from sslcollapse.recipe.schema import folder_name

PREFIX = ("sslcollapse", "ablate")

RESULTS = Path("docs/results")
"""Where records and tables are kept unless ``--results`` says otherwise."""


def write_files(folder: Path, ablation: Ablation, records: Records, failures: Mapping[str, str], command: str) -> None:
    """``README.md``, ``table.csv``, ``table.tex`` and, of a claim, ``claim.json``; then the overview of all claims.

    Args:
        folder: of the ablation's records; the overview is in the folder above.
        ablation: what was planned.
        records: what is finished.
        failures: a run's name → its error.
        command: what makes the page.
    """
    from sslcollapse.core.files import write_atomic

    texts = {
        "README.md": page(ablation, records, failures, command),
        "table.csv": table_csv(ablation, records),
        "table.tex": table_latex(ablation, records, failures),
    }
    if ablation.claim is not None:
        texts["claim.json"] = verdict_json(judge(ablation, records))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomic(folder / name, text.encode())
    if ablation.claim is None:
        (folder / "claim.json").unlink(missing_ok=True)
    refresh_overview(folder.parent)


NAME = "plan.json"
FORMAT = 1


def write_plan(folder: Path, ablation: Ablation, command: str) -> None:
    """Write the plan of an ablation beside its records."""
    from sslcollapse.core.files import write_atomic

    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / NAME, plan_json(ablation, command).encode())


def plan_json(ablation: Ablation, command: str) -> str:
    """A plan as JSON: of each base its recipe, of each cell what it changes in it."""
    bases: dict[str, dict[str, Any]] = {}
    for cell in ablation.cells:
        bases.setdefault(cell.base, {"source": shown_path(cell.source), "recipe": dict(cell.recipe)})
    made: dict[str, Any] = {
        "format": FORMAT,
        "name": ablation.name,
        "command": command,
        "seeds": ablation.seeds,
        "planned_seeds": ablation.planned_seeds,
        "settings": list(ablation.settings),
        "metrics": list(ablation.metrics),
        "axes": [list(axis) for axis in ablation.axes],
        "baseline": dict(ablation.baseline),
        "bases": bases,
        "cells": [
            {
                "base": cell.base,
                "hash": cell.hash,
                "streams": cell.streams,
                "values": dict(cell.values),
                "changes": _changes(bases[cell.base]["recipe"], cell.recipe),
            }
            for cell in ablation.cells
        ],
        "baselines": dict(ablation.baselines),
        "claim": ablation.claimed,
        **({"looks": list(ablation.looks)} if ablation.looks else {}),
        **({"judged": list(ablation.judged)} if ablation.judged else {}),
    }
    lines = [
        f"{json.dumps(key)}: {_listed(value) if key == 'cells' else json.dumps(value, ensure_ascii=False)}"
        for key, value in made.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_plan(folder: Path) -> tuple[Ablation, str] | None:
    """The plan that is kept in a results folder and the command that it was made by; None without one.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from error
    try:
        return _ablation(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise RunError(
            f"{path}: not the plan of an ablation ({type(error).__name__}: {error}); delete it, or write it again with "
            "'sslcollapse ablate FILE --tables'"
        ) from error


def _ablation(made: Mapping[str, Any]) -> tuple[Ablation, str]:
    if made["format"] != FORMAT:
        raise ValueError(f"format {made['format']!r}, and {FORMAT} is the one that is known here")
    bases = {label: (Path(base["source"]), base["recipe"]) for label, base in made["bases"].items()}
    axes = [tuple(map(_text, axis)) for axis in made["axes"]]
    paths = {path for axis in axes for path in axis}
    cells = []
    for cell in made["cells"]:
        source, recipe = bases[cell["base"]]
        if set(cell["values"]) != paths:
            raise ValueError(f"cell {cell['hash']} has other paths than the axes")
        recipe = _changed(recipe, cell["changes"])
        cells.append(
            Cell(cell["base"], source, cell["values"], recipe, folder_name(cell["hash"], "hash"), cell["streams"])
        )
    hashes = [cell.hash for cell in cells]
    if not cells or len(set(hashes)) < len(hashes) or not set(made["baselines"]) <= {*hashes}:
        raise ValueError("its cells are none, or have equal hashes, or not those of its baselines")
    if not set(made["baselines"].values()) <= {*hashes}:
        raise ValueError("a baseline is none of its cells")
    probes = sorted({probe for cell in cells for probe in cell.recipe["evaluate"]})
    metrics = [check_metric("metrics", metric, probes) for metric in made["metrics"]]
    claim, tests = None, []
    if made["claim"] is not None:
        claim = read_claim(made["claim"], axis_values(cells, axes), made["baseline"], probes)
        tests = planned(claim, cells, axes)
    ablation = Ablation(
        folder_name(made["name"], "name"),
        cells,
        axes,
        _count(made["seeds"]),
        dict(made["baselines"]),
        metrics,
        list(map(_text, made["settings"])),
        claim,
        tests,
        max(_count(made["seeds"]), _count(made["planned_seeds"])),
        dict(made["baseline"]),
        made["claim"],
        _looks(made.get("looks", [])),
        _looks(made.get("judged", [])),
    )
    return ablation, " ".join(_text(made["command"]).split())


def _looks(value: Any) -> list[int]:
    looks = [_count(look) for look in value]
    if looks != sorted(set(looks)):
        raise ValueError(f"looks should be growing numbers of seeds, got {looks}")
    return looks


def _changes(base: Mapping[str, Any], recipe: Mapping[str, Any], path: Sequence[str] = ()) -> list[list[Any]]:
    """``[keys, value]`` of each place that differs, ``[keys]`` of what is left out."""
    found: list[list[Any]] = [[[*path, key]] for key in base if key not in recipe]
    for key, value in recipe.items():
        old = base.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and value.get("type") == old.get("type"):
            found += _changes(old, value, (*path, key))
        elif key not in base or old != value:
            found.append([[*path, key], value])
    return found


def _changed(base: Mapping[str, Any], changes: Sequence[Sequence[Any]]) -> dict[str, Any]:
    recipe = json.loads(json.dumps(base))
    for keys, *value in changes:
        node = recipe
        for key in keys[:-1]:
            node = node[key]
        if value:
            (node[keys[-1]],) = value
        else:
            del node[keys[-1]]
    return recipe


def _listed(rows: Sequence[Any]) -> str:
    return "[\n" + ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in rows) + "\n]"


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} should be text")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 100_000:
        raise ValueError(f"{value!r} should be a number of seeds")
    return value


def with_looks(ablation: Ablation, records: Records, most: int | None, seeds: int | None) -> Ablation:
    """The ablation with the looks that its folder's plan has, or with those that are planned now, or already seen.

    Args:
        records: of its results folder.
        most: seeds of the last look, if the command asks for looks.
        seeds: what the command asks for otherwise.

    Raises:
        RecipeError: looks are not possible, or others have been spent already.
    """
    stored = _stored_looks(records.path.parent)
    if most is None and not stored:
        return _judged_before(ablation, records)
    if ablation.claim is None:
        raise RecipeError(f"--until-decided: {ablation.name} has no claim that could be decided; give its file one")
    if seeds is not None:
        raise RecipeError(
            f"--seeds {seeds}: the looks of {ablation.name} are planned, and another number of seeds would be a look "
            f"more; --until-decided {most or stored[-1]} goes on"
        )
    looks = stored or planned_looks(ablation.seeds, most or 0)
    made = replace(ablation, looks=looks, planned_seeds=looks[-1])
    if stored:
        _check_same_tests(made, records)
    if stored and most not in (None, stored[-1]):
        if any(result.look for result in judge(made, records).results):
            raise RecipeError(
                f"--until-decided {most}: looks at {', '.join(map(str, stored))} seeds are planned and some are spent; "
                f"others would not keep the error of 5 %. --until-decided {stored[-1]} goes on"
            )
        looks = planned_looks(ablation.seeds, most or 0)
        made = replace(ablation, looks=looks, planned_seeds=looks[-1])
    if not stored:
        _check_not_judged(ablation, records)
    return grown(made, records)


def _check_same_tests(ablation: Ablation, records: Records) -> None:
    """Tests that are chosen after a look has been seen do not keep the error that looks share out.

    Raises:
        RecipeError: a look is spent on the tests of the plan that is kept, and these are others.
    """
    kept = read_plan(records.path.parent)
    if kept is None or kept[0].claim is None or _tested(kept[0]) == _tested(ablation):
        return
    if any(result.look for result in judge(kept[0], records).results):
        raise RecipeError(
            f"{ablation.name}: its claim's tests are not those of {records.path.parent / NAME}, whose looks at "
            f"{', '.join(map(str, ablation.looks))} seeds are planned and some are spent; tests that are changed after "
            "a look would not keep the error of 5 %. Restore the file, or give the new one another name and other runs"
        )


def _tested(ablation: Ablation) -> str:
    """What decides every test, as JSON: its check, but for the name, and the cells of its points."""
    tests = [
        (
            {**vars(test.check), "name": ""},
            [([c.hash for c in point.cells], [c.hash for c in point.against], point.position) for point in test.points],
        )
        for test in ablation.tests
    ]
    return json.dumps(
        tests, sort_keys=True, default=lambda value: dict(value) if isinstance(value, Mapping) else str(value)
    )


def _judged_before(ablation: Ablation, records: Records) -> Ablation:
    """With the numbers of seeds that other plans of this folder were judged at: each was a look at the same records."""
    try:
        kept = read_plan(records.path.parent)
    except RunError:  # the plan is written again
        return ablation
    if ablation.claim is None or kept is None or kept[0].claim is None:
        return ablation
    old, now = kept[0], max(ablation.seeds, ablation.planned_seeds)
    before = set(old.judged)
    if old.planned_seeds >= FEWEST_SEEDS and (old.planned_seeds != now or _tested(old) != _tested(ablation)):
        whole = len(records.of(old.cells, old.planned_seeds)) == len(old.cells) * old.planned_seeds
        before |= {old.planned_seeds} if whole else set()
    return replace(ablation, judged=sorted(before))


def grown(ablation: Ablation, records: Records) -> Ablation:
    """With as many seeds in its tables as there are records of, where seeds come look by look."""
    if not ablation.looks:
        return ablation
    found = records.of(ablation.cells, ablation.looks[-1])
    return replace(ablation, seeds=max([ablation.looks[0], *(record["seed"] + 1 for record in found)]))


def _check_not_judged(ablation: Ablation, records: Records) -> None:
    """A verdict on the whole of a plan without looks has spent all of the error.

    Raises:
        RecipeError: there was one.
    """
    kept = read_plan(records.path.parent)
    planned = max(ablation.planned_seeds, kept[0].planned_seeds if kept else 0)
    whole = len(records.of(ablation.cells, planned)) == len(ablation.cells) * planned
    if whole and planned >= FEWEST_SEEDS:
        raise RecipeError(
            f"--until-decided: {ablation.name} has its verdict at the {planned} seeds that were planned, and that look "
            "has spent the whole error of 5 %; looks are planned before the first verdict, so another question needs a "
            "new plan and runs of its own"
        )


def _stored_looks(folder: Path) -> list[int]:
    """The looks that the plan in a results folder has; none without a plan, or where it has none.

    Raises:
        RunError: the plan is damaged and has looks: which are spent can then not be known.
    """
    path = folder / NAME
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    try:
        return _looks(json.loads(text).get("looks", []))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        if '"looks"' not in text:
            return []  # the plan is written again
        raise RunError(f"{path}: damaged ({error}), and it has the looks that were planned; restore it") from error


def command_line(
    targets: Sequence[Path],
    grid: Sequence[str],
    seeds: int | None,
    baseline: Sequence[str],
    name: str | None,
    overrides: Sequence[str],
    results: Path = RESULTS,
    looks: Sequence[int] = (),
) -> str:
    """What rebuilds the page, as it is typed in the current folder."""
    words = list(PREFIX)
    words += map(shown_path, targets)
    words += [word for axis in grid for word in ("--grid", axis)]
    words += [word for value in baseline for word in ("--baseline", value)]
    words += [] if seeds is None else ["--seeds", str(seeds)]
    words += ["--until-decided", str(looks[-1])] if looks else []
    words += [] if name is None else ["--name", name]
    words += [] if results.resolve() == RESULTS.resolve() else ["--results", shown_path(results)]
    return shlex.join([*words, *overrides])


def shown_path(path: Path) -> str:
    """A file as it is typed in the current folder; its name alone where it is elsewhere."""
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else path.name
