"""``bench speedrun``: the board of docs/speedrun.md, from runs that wrote down their accuracy over time.

``--runs DIR`` takes a record of every such run below a folder into docs/benchmarks/speedrun, one JSON file a run; with
and without it the tables of the page are written anew from the files that are there.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcollapse.core.files import write_atomic
from sslcollapse.runs.directory import read_metrics

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES, PAGE = REPOSITORY / "recipes/speedrun", REPOSITORY / "docs/speedrun.md"
RECORDS = REPOSITORY / "docs/benchmarks/speedrun"
AIMS = (84.8, 90.0)
"""Percent of the test images that nearest neighbours classify rightly: lightly's SimCLR after 200 epochs, and more."""
PROBE = "timed/knn/test_accuracy"
IMAGES = 50_000
NONE = "–"


def main(runs: Path | None = None) -> dict[str, Any]:
    """Take in the runs of a folder, write the page, print the board, return the records."""
    found = records_below(runs) if runs is not None else []
    for record in found:
        write_atomic(RECORDS / file_name(record), (json.dumps(record, indent=2) + "\n").encode())
    records = stored()
    write_atomic(PAGE, page(PAGE.read_text(encoding="utf-8"), records).encode())
    print(board(records))
    if runs is not None:
        print(f"\n{len(found)} runs of {runs} are in {RECORDS}")
    return {"benchmark": "speedrun", "records": records}


def part(name: str, *, smoke: bool, seconds: float, folder: Path) -> dict[str, Any]:
    """A part of ``bench gpu``: one run of the board, and its record, also where its time is over before its end."""
    from tools.bench.gpu_runs import CIFAR10, RUNS, called

    planned, out = RUNS[name], folder / "runs" / name
    data = Path(os.environ.get("SSLCOLLAPSE_DATA") or "data") / "vision/cifar-10-batches-py"
    copied = [] if data.exists() else [f"domain.dataset={CIFAR10}"]
    words = [*(planned.smaller if smoke else (*planned.words, *copied)), "--out", str(out), "--overwrite"]
    code = called([sys.executable, "-m", "sslcollapse.cli", "train", *words], seconds - 20)
    found = records_below(out)
    if not found:
        raise RuntimeError(f"no accuracy was measured; exit code {code}; see {name}.log")
    record = max(found, key=lambda each: str(each["time"]))
    ends = [
        f"{aim} % " + (f"after {point['training'] / 60:.1f} min" if point else "not reached")
        for aim, point in record["reached"].items()
    ]
    last = record["curve"][-1]
    shown = f"kNN {last['test']:.3f} after {last['training'] / 60:.1f} min, {last['step']} of {record['steps']} steps"
    return {"exit_code": code, "speedrun": record, "headline": f"{', '.join(ends)}; {shown}"}


def records_below(folder: Path) -> list[dict[str, Any]]:
    """A record of every run below a folder that wrote down its accuracy over time."""
    made = [record_of(path.parent) for path in sorted(folder.rglob("metrics.jsonl"))]
    return [record for record in made if record is not None]


def record_of(run: Path) -> dict[str, Any] | None:
    """What is kept of a run, also of one that was stopped; None where it has no accuracy over time.

    Times are of one process, so a run that was resumed has none either.
    """
    lines, _ = read_metrics(run / "metrics.jsonl")
    recipe, environment = (json.loads((run / name).read_text()) for name in ("recipe.json", "environment.json"))
    curve = [
        {
            "step": line["step"],
            "test": line[PROBE],
            "validation": line.get(PROBE.replace("test", "validation")),
            "training": line["seconds"] - line["seconds_probing"],
            "seconds": line["seconds"],
        }
        for line in lines
        if PROBE in line
    ]
    times = [point["seconds"] for point in curve]
    if not curve or times != sorted(times) or "resuming after" in (run / "train.log").read_text(encoding="utf-8"):
        return None
    dataset, batch = recipe["domain"]["dataset"], recipe["domain"]["batch_size"]
    return {
        "name": recipe["name"],
        "hash": run.parent.name,
        "seed": recipe["seed"],
        "data": dataset.get("name") or dataset["type"],
        "encoder": recipe["encoder"]["type"],
        "batch": batch,
        "steps": recipe["train"]["steps"],
        "epochs": recipe["train"]["steps"] * batch * recipe["train"]["accumulate"] / IMAGES,
        "finished": (run / "result.json").exists(),
        "overrides": [word for word in environment["command"] if re.match(r"[a-z_.]+=", word)],
        "device": environment["device"],
        "commit": environment["commit"],
        "time": environment["time"],
        "packages": environment["packages"],
        "curve": curve,
        "reached": {f"{aim:g}": reached(curve, aim) for aim in AIMS},
    }


def reached(curve: Sequence[Mapping[str, Any]], aim: float) -> dict[str, Any] | None:
    """The first point of a curve that is as high as an aim in percent; None where there is none."""
    return next((dict(point) for point in curve if 100 * point["test"] >= aim), None)


def file_name(record: Mapping[str, Any]) -> str:
    """Of a record, one for each run that was ever made."""
    return f"{record['name']}-{record['hash']}-seed{record['seed']}-{re.sub('[^0-9]', '', record['time'])[:14]}.json"


def stored() -> list[dict[str, Any]]:
    """The records in the repository, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(RECORDS.glob("*.json"))]


def titles() -> dict[str, str]:
    """Name of each recipe of the speedrun → the first line of what it says of itself."""
    made = {}
    for path in sorted(RECIPES.glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        made[f"speedrun_{path.stem}"] = text.partition("\n")[0]
    return made


def counts(record: Mapping[str, Any]) -> bool:
    """Whether a run is one of the board: a recipe of it, with its network, on CIFAR-10."""
    known = re.sub(r"[^a-z0-9]", "", record["data"].lower()).startswith("cifar10")
    return record["name"] in titles() and record["encoder"] == "resnet18" and known and "100" not in record["data"]


def board(records: Iterable[Mapping[str, Any]]) -> str:
    """The table of final runs; a recipe that nobody has run has a row without figures."""
    runs: dict[str, list[Mapping[str, Any]]] = {name: [] for name in titles()}
    for record in filter(counts, records):
        runs[record["name"]].append(record)
    heads = ["recipe", *(f"min to {aim:g} %" for aim in AIMS), "kNN at the end, %", "epochs"]
    heads += ["data", "device", "commit", "date", "what makes it fast"]
    rows = []
    for name, title in titles().items():
        file = f"[{name.removeprefix('speedrun_')}](../recipes/speedrun/{name.removeprefix('speedrun_')}.py)"
        several = sorted(runs[name], key=lambda r: (_first(r), r["time"]))
        rows += [[file, *_cells(record), _with_overrides(title, record)] for record in several]
        if not several:
            rows.append([file, *[NONE] * (len(heads) - 2), title])
    return _table(heads, rows)


def leads(records: Iterable[Mapping[str, Any]]) -> str:
    """The table of all other runs: directions, tried on a small scale."""
    heads = ["recipe", "changes", "steps", "kNN at the end, %: validation", "test", "s of training", "device", "commit"]
    rows = []
    for record in records:
        if counts(record):
            continue
        last = record["curve"][-1]
        changes = ", ".join(f"`{word}`" for word in record["overrides"]) or "none"
        accuracy = [NONE if last[part] is None else f"{100 * last[part]:.1f}" for part in ("validation", "test")]
        where = [record["device"], record["commit"] or "not known"]
        rows.append([record["name"], changes, str(last["step"]), *accuracy, f"{last['training']:.0f}", *where])
    return _table(heads, rows) if rows else "None has been recorded."


def page(text: str, records: Sequence[Mapping[str, Any]]) -> str:
    """The page with its two tables as the records give them.

    Raises:
        ValueError: the page has no place for one of them.
    """
    for name, table in (("board", board(records)), ("leads", leads(records))):
        text, times = re.subn(
            rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", lambda m, t=table: m[1] + t + m[2], text, flags=re.S
        )
        if times != 1:
            raise ValueError(f"{PAGE}: needs one <!-- {name} --> that is followed by <!-- end -->, has {times}")
    return text


def _first(record: Mapping[str, Any]) -> float:
    point = record["reached"][f"{AIMS[0]:g}"]
    return float("inf") if point is None else float(point["training"])


def _cells(record: Mapping[str, Any]) -> list[str]:
    minutes = [record["reached"][f"{aim:g}"] for aim in AIMS]
    shown = [
        "not reached" if point is None else f"{point['training'] / 60:.1f} ({point['seconds'] / 60:.1f})"
        for point in minutes
    ]
    last = f"{100 * record['curve'][-1]['test']:.2f}" + ("" if record["finished"] else ", stopped")
    epochs = f"{record['curve'][-1]['step'] * record['epochs'] / record['steps']:.0f} of {record['epochs']:.0f}"
    return [
        *shown,
        last,
        epochs,
        record["data"],
        record["device"],
        record["commit"] or "not known",
        record["time"][:10],
    ]


def _with_overrides(title: str, record: Mapping[str, Any]) -> str:
    others = [f"`{word}`" for word in record["overrides"] if not word.startswith(("domain.dataset", "seed="))]
    return f"{title} Changed: {', '.join(others)}." if others else title


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---"] * len(heads), *rows])
