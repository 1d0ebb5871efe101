"""Everything that is written beside an ablation's records, ``plan.json`` with every cell resolved among it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcollapse.ablation.claims.judge import judge
from sslcollapse.ablation.claims.overview import refresh_overview
from sslcollapse.ablation.claims.schema import check_metric, read_claim
from sslcollapse.ablation.claims.verdict import verdict_json
from sslcollapse.ablation.grid import Ablation, axis_values
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.pairing import planned
from sslcollapse.ablation.tables.latex import table_latex
from sslcollapse.ablation.tables.page import page, table_csv
from sslcollapse.ablation.values import Cell
from sslcollapse.core.errors import RunError
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
        looks_of(made.get("looks", [])),
        looks_of(made.get("judged", [])),
    )
    return ablation, " ".join(_text(made["command"]).split())


def looks_of(value: Any) -> list[int]:
    """The looks of a plan's JSON, checked."""
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
