"""``bench plan``: what planning an ablation, recording its runs and rebuilding its tables and report cost as it grows.

Each is done at two sizes; the exponent says how seconds grow with the size: 1 is in proportion, 2 is quadratic. Two
have a naive reference beside them that does the same on the same input: every cell compared with every other to find
its baseline, and the whole file read for the end of its last line.
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sslcollapse.ablation.files import write_files
from sslcollapse.ablation.grid import Ablation, baselines_of, plan
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.values import Cell, plain
from sslcollapse.recipe import learnt

BASE = Path(__file__).resolve().parents[2] / "recipes" / "bgrl_werank_cora.py"
CELLS = (200, 1000)
RUNS = ((40, 10), (200, 10))
"""Cells and seeds of the tables."""
LARGE_CELLS, LARGE_RUNS, LARGE_REPORT = 5000, (2000, 10), (2000, 10)
APPENDED = 50


def main(*, large: bool = False) -> dict[str, Any]:
    """Time all at both sizes, print seconds (of the processor), exponents and ratios.

    Args:
        large: also the third sizes: 5,000 cells, 20,000 records.
    """
    from sslcollapse.core.console import Console, Table
    from sslcollapse.runs.directory import environment
    from tools.bench.graph_step import device

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _timed(lambda: grid(root, 2))  # imports
        made = {cells: _timed(lambda cells=cells: grid(root, cells)) for cells in (*CELLS, *([LARGE_CELLS] * large))}
        rows += _rows("plan, cells", {cells: seconds for cells, (seconds, _) in made.items()})
        plans = {cells: ablation for cells, (_, ablation) in made.items()}
        own = {cells: _timed(lambda a=a: _found(a))[0] for cells, a in plans.items()}
        naive = {cells: _timed(lambda a=a: naive_baselines(a))[0] for cells, a in plans.items() if cells in CELLS}
        rows += _rows("of it baselines, cells", own, naive)
        tables, appends, whole, reports = {}, {}, {}, {}
        for cells, seeds in (*RUNS, *([LARGE_RUNS] * large)):
            place = root / f"records{cells}"
            ablation = grid(root, cells, seeds)
            write_records(place, ablation)
            tables[cells * seeds] = _timed(lambda a=ablation, p=place: rebuild(p, a))[0]
            reports[cells * seeds] = _timed(lambda a=ablation, p=place: report(p, a))[0]
            appends[cells * seeds] = _timed(lambda a=ablation, p=place: append(p, a, APPENDED))[0] / APPENDED
            whole[cells * seeds] = _timed(lambda p=place: naive_append(p, APPENDED))[0] / APPENDED
        rows += _rows("tables, records", tables)
        rows += _rows("report, records", reports)
        rows += _rows("append one record, records before", appends, whole)
    table = Table(title="seconds of the processor; how they grow with the size; beside a naive way")
    for column in ("", "size", "seconds", "exponent", "naive, s", "naive / ours"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        numbers = (row["seconds"], row["exponent"], row["naive"], row["ratio"])
        shown = ["" if value is None else f"{value:.3g}" for value in numbers]
        table.add_row(row["what"], f"{row['size']:,}", *shown)
    Console().print(table)
    return {"benchmark": "plan", "environment": environment(1, device(), sys.argv), "rows": rows}


def grid(root: Path, cells: int, seeds: int = 10) -> Ablation:
    """The plan of so many cells, half of which have a baseline each."""
    rates = max(1, cells // 2)
    values = [1e-4 * (1 + k) for k in range(rates)]
    target = root / f"grid{cells}.py"
    target.write_text(
        f"ablation = dict(name='grid{cells}', base={str(BASE)!r}, seeds={seeds},"
        f" axes={{'regularizers.werank.coefficient': [0.0, 0.01], 'optim.lr': {values}}},"
        " baseline={'regularizers.werank.coefficient': 0.0})\n"
    )
    return plan(target, [], None, [])


def write_records(folder: Path, ablation: Ablation) -> None:
    """A record of every run of a plan, with random scores and ranks, drawn from one seed."""
    draw = random.Random(0)
    folder.mkdir(parents=True)
    with open(folder / "runs.jsonl", "w", encoding="utf-8") as file:
        for cell in ablation.cells:
            for seed in range(ablation.seeds):
                file.write(json.dumps(record(cell, seed, draw)) + "\n")


def record(cell: Cell, seed: int, draw: random.Random) -> dict[str, Any]:
    """One record as ``ablate`` writes it."""

    def metric() -> dict[str, Any]:
        value = round(0.7 + 0.1 * draw.random(), 4)
        return {"values": [value], "mean": value, "std": None, "n": 1}

    def ranks() -> dict[str, Any]:
        value = 100 + 50 * draw.random()
        return {
            "effective_rank": value,
            "numerical_rank": 256,
            "rtol": 0.001,
            "attainable": 256,
            "n": 2708,
            "effective_rank_centred": value + 1,
            "attainable_centred": 256,
        }

    def scores() -> dict[str, Any]:
        return {
            probe: {"solver": "lbfgs", "test_accuracy": metric(), "validation_accuracy": metric()}
            for probe in ("public", "random")
        }

    layers = ("convs.0", "convs.1", "predictor.layers.0", "predictor.layers.1")
    return {
        "hash": cell.hash,
        "seed": seed,
        "name": cell.recipe["name"],
        "base": cell.base,
        "overrides": dict(cell.values),
        "settings": [],
        "recipe": learnt(cell.recipe),
        "steps": cell.recipe["train"]["steps"],
        "evaluation": scores(),
        "untrained": scores(),
        "rank": {
            **{name: ranks() for name in ("representation", "embedding", "prediction")},
            "layers": {name: {"weight": ranks(), "output": ranks()} for name in layers},
        },
        "regularizers": {"werank": {name: {"penalty": draw.random(), "floor": 0.0} for name in layers}},
        "seconds": {"training": 1.0, "evaluation": 1.0},
        **dict(sslcollapse="0.2.0", plugins={}, commit="0", device="cpu", torch="2", threads=1, streams=2),
    }


def rebuild(folder: Path, ablation: Ablation) -> None:
    """Everything that ``ablate --tables`` does after the plan."""
    write_files(folder, ablation, Records(folder / "runs.jsonl"), {}, "sslcollapse ablate")


def report(folder: Path, ablation: Ablation) -> None:
    """The page that ``report`` makes of a folder of records."""
    from sslcollapse.ablation.files import write_plan
    from sslcollapse.report.ablation_page import write_report

    write_plan(folder, ablation, "sslcollapse ablate")
    write_report([folder], out=folder.parent / "report")


def append(folder: Path, ablation: Ablation, count: int) -> None:
    """Append so many new records, one after the other."""
    records, draw = Records(folder / "runs.jsonl"), random.Random(1)
    for number in range(count):
        records.add(record(ablation.cells[0], 1000 + number, draw))


def naive_append(folder: Path, count: int) -> None:
    """The same, where each reads the whole file, to see whether its last line has an end."""
    path = folder / "runs.jsonl"
    Records(path)
    for _ in range(count):
        with open(path, "a+b") as file:
            file.seek(0)
            data = file.read()
            file.write(data[data.rfind(b"\n") + 1 :])
            file.flush()


def _found(ablation: Ablation) -> dict[str, str]:
    return baselines_of(ablation.cells, ablation.axes, ablation.baseline)


def naive_baselines(ablation: Ablation) -> dict[str, str]:
    """Each cell's baseline, every other cell looked at."""
    wanted = {path: plain(value) for path, value in ablation.baseline.items()}
    free = [path for paths in ablation.axes for path in paths if path not in wanted]
    found = {}
    for cell in ablation.cells:
        place = {**{path: plain(cell.at(path)) for path in ["base", *free]}, **wanted}
        (match,) = [c for c in ablation.cells if all(plain(c.at(path)) == value for path, value in place.items())]
        if match is not cell:
            found[cell.hash] = match.hash
    return found


def _timed(make: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    result = make()
    return time.process_time() - began, result


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float | None:
    """By what power seconds have grown between the last two sizes; None of one size."""
    if len(sizes) < 2 or min(seconds) <= 0:
        return None
    return math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1] / sizes[-2])


def _rows(what: str, seconds: dict[int, float], naive: dict[int, float] | None = None) -> list[dict[str, Any]]:
    rows, sizes = [], sorted(seconds)
    for k, size in enumerate(sizes):
        beside = (naive or {}).get(size)
        rows.append(
            {
                "what": what,
                "size": size,
                "seconds": seconds[size],
                "exponent": exponent(sizes[: k + 1], [seconds[each] for each in sizes[: k + 1]]),
                "naive": beside,
                "ratio": beside / seconds[size] if beside and seconds[size] > 0 else None,
            }
        )
    return rows
