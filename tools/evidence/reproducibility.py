"""How far a record moves when the same run is made again elsewhere, and which runs several results folders share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from sslcollapse.ablation.records import Records, lookup
from sslcollapse.ablation.statistics.intervals import rounded
from sslcollapse.ablation.tables.columns import Column, markdown
from sslcollapse.core.errors import RecipeError, RunError
from sslcollapse.runs.quantities import RESULT, is_number, lacking
from tools.evidence import paragraph, write_json, write_text

PAGE, FIGURES = "reproducibility.md", "reproducibility.json"
WHERE = ("device", "threads", "torch", "torch_geometric", "sslcollapse", "commit", "streams")
"""What may differ between two makings of one run, as records and environments name it."""
KEPT = ("effective_rank", "effective_rank_centred")

Key = tuple[str, int]
"""Hash and seed."""


def made_runs(path: Path) -> dict[Key, dict[str, Any]]:
    """Hash and seed → record, of a file of records, a results folder, or a folder of run directories.

    Raises:
        RunError: there is nothing of the kind, or it is damaged.
    """
    file = path / "runs.jsonl" if path.is_dir() else path
    if file.is_file():
        return {(record["hash"], record["seed"]): record for record in Records(file)}
    found = {}
    for result in sorted(path.glob("**/result.json")):
        record = _json(result)
        environment = _json(result.with_name("environment.json"))
        packages = environment.get("packages") or {}
        record |= {key: environment.get(key, packages.get(key)) for key in WHERE}
        found[record["hash"], record["seed"]] = record
    if not found:
        raise RunError(f"{path}: neither a runs.jsonl nor a folder with finished runs in it")
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        fault = lacking(value, RESULT) if path.name == "result.json" else ""
        if fault or not isinstance(value, dict):
            raise ValueError(fault or "no object")
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged ({error})") from error
    return value


def _metrics(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Path and value of the metrics of all probes, of effective ranks, and of penalties, where they are finite."""
    for root in ("evaluation", "untrained"):
        for probe, scores in (record.get(root) or {}).items():
            for name in scores:
                if name.startswith(("test_", "validation_")):
                    column = Column(f"{root}.{probe}.{name}", "", "")
                    yield column.path, 100 * _finite(column.of(record))
    ranks = record["rank"]
    for name, entry in ranks.items():
        if name != "layers" and isinstance(entry, Mapping):
            yield from ((f"rank.{name}.{key}", _finite(entry.get(key))) for key in KEPT)
    for key in ("weight", "output"):
        parts = [layer[key]["effective_rank"] for layer in (ranks.get("layers") or {}).values() if key in layer]
        if parts:
            yield f"rank.layers, {key}, mean", math.fsum(parts) / len(parts)


def _finite(value: Any) -> float:
    return float(value) if is_number(value) and math.isfinite(value) else math.nan


def compare(first: Path, second: Path, label: str) -> dict[str, Any]:
    """For each metric the median and largest distance between two makings of the same runs.

    Raises:
        RunError: they have no run of the same hash and seed.
    """
    sides = made_runs(first), made_runs(second)
    common = sorted(sides[0].keys() & sides[1].keys())
    if not common:
        raise RunError(
            f"{first} and {second} have no run of the same hash and seed ({len(sides[0])} and {len(sides[1])} runs)"
        )
    distances: dict[str, list[float]] = {}
    equal = 0
    for key in common:
        values = [dict(_metrics(side[key])) for side in sides]
        own = {path: abs(values[0][path] - values[1][path]) for path in values[0].keys() & values[1].keys()}
        own = {path: distance for path, distance in own.items() if math.isfinite(distance)}
        equal += not any(own.values())
        for path, distance in own.items():
            distances.setdefault(path, []).append(distance)
    return {
        "label": label,
        "runs": len(common),
        "names": sorted({str(_name(sides[0][key])) for key in common}),
        "equal": equal,
        "sides": [_made_on([side[key] for key in common]) for side in sides],
        "metrics": {
            path: {"median": rounded(median(values)), "largest": rounded(max(values)), "n": len(values)}
            for path, values in sorted(distances.items())
        },
    }


def _name(record: Mapping[str, Any]) -> Any:
    return record.get("name") or lookup(record, "recipe.name")


def _made_on(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    return {key: sorted({str(record[key]) for record in records if record.get(key) is not None}) for key in WHERE}


def shared(results: Path) -> list[dict[str, Any]]:
    """Runs that stand in more than one results folder, joined where hash and folders are the same.

    Raises:
        RunError: a file of records is damaged.
    """
    folders: dict[tuple[str, int, Any], list[str]] = {}
    names: dict[str, str] = {}
    for path in sorted(results.glob("*/runs.jsonl")):
        for record in Records(path):
            folders.setdefault((record["hash"], record["seed"], record.get("streams")), []).append(path.parent.name)
            names.setdefault(record["hash"], str(_name(record)))
    joined: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for (hash_, seed, _), places in folders.items():
        if len(set(places)) > 1:
            joined.setdefault((hash_, tuple(dict.fromkeys(places))), []).append(seed)
    return [
        {"hash": hash_, "name": names[hash_], "seeds": sorted(set(seeds)), "folders": list(places)}
        for (hash_, places), seeds in sorted(joined.items(), key=lambda item: (item[0][1], item[0][0]))
    ]


def page(comparisons: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]) -> str:
    """The Markdown page."""
    lines = ["# Reproducibility", "", "    python tools/evidence.py reproducibility", ""]
    lines += paragraph(
        "The same recipe, seed, processor, thread count and versions give the same numbers. With another "
        "processor, thread count or version sums are added up in another order, and training carries that on. How far "
        "records then move is measured here by runs that were made twice, for what is listed and nothing else: a "
        "longer run may move further than a short one. A difference of that size between two single runs says nothing; "
        "a mean over seeds moves less. What another processor does to images is not measured: none is at hand."
    )
    lines += ["## How far records move", "", *_summary(comparisons)]
    for made in comparisons:
        lines += [f"### {made['label']}", ""]
        differing = [f"{key} {' / '.join(map(_list, pair))}" for key, pair in _differing(made).items()]
        lines += paragraph(
            f"{made['runs']} run{'s' if made['runs'] > 1 else ''} ({_list(made['names'])}) made twice, "
            f"{made['equal']} of them with equal numbers. "
            f"Differs: {'; '.join(differing) or 'nothing that is recorded'}. Metrics are in points of %, ranks in "
            "dimensions."
        )
        rows = [[path, _show(d["median"]), _show(d["largest"]), str(d["n"])] for path, d in made["metrics"].items()]
        lines += [*markdown(["metric", "median distance", "largest", "runs"], rows), ""]
    if not comparisons:
        lines += ["Nothing has been compared yet.", ""]
    lines += ["    python tools/evidence.py reproducibility A B --label 'what differs'", ""]
    lines += paragraph("adds a comparison of two `runs.jsonl`, results folders or folders of run directories.")
    lines += ["## Runs that several folders share", ""]
    lines += paragraph(
        "A run that is recorded in several folders is one sample, however many tables show it: tests that use it are "
        "not independent. [Claim 13](claim_13_mechanism/README.md) counts each with its baseline once."
    )
    rows = [[f"`{each['hash']}`", each["name"], _list(each["seeds"]), ", ".join(each["folders"])] for each in runs]
    lines += markdown(["run", "recipe", "seeds", "folders"], rows) if rows else ["There are none."]
    return "\n".join(lines)


def _differing(made: Mapping[str, Any]) -> dict[str, tuple[list[str], list[str]]]:
    """What differs between the two sides of a comparison, as far as it is recorded."""
    first, second = made["sides"]
    both = {key: (first.get(key, []), second.get(key, [])) for key in WHERE}
    return {key: pair for key, pair in both.items() if pair[0] != pair[1]}


def _summary(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a table with a row a comparison, and a sentence on what none of them has varied."""
    if not comparisons:
        return []
    rows = []
    for made in comparisons:
        known = {key: pair for key, pair in _differing(made).items() if all(pair)}
        accuracy = _largest(made, lambda path: path.startswith("evaluation.") and ".test_" in path)
        rank = _largest(made, lambda path: path == "rank.representation.effective_rank")
        rows.append(
            [made["label"], ", ".join(known) or "nothing", f"{made['equal']} of {made['runs']}", accuracy, rank]
        )
    lines = markdown(["runs", "differs", "equal", "test accuracy, largest", "rank, largest"], rows)
    never = [key for key in WHERE if not any(key in _differing(made) for made in comparisons)]
    text = f"Not varied in any of them: {_list(never)}. " if never else ""
    return [*lines, "", *paragraph(f"{text}Accuracy is that of any probe, rank that of the representation.")]


def _largest(made: Mapping[str, Any], wanted: Callable[[str], bool]) -> str:
    found = [distances["largest"] for path, distances in made["metrics"].items() if wanted(path)]
    return _show(max(found)) if found else "–"


def _show(value: float) -> str:
    return f"{value:.3g}"


def _list(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values)) or "not recorded"


def write_reproducibility(results: Path, sides: Sequence[Path], label: str | None) -> Path:
    """Add a comparison, if two sides are given, and write the page and its JSON; returns the page.

    Raises:
        RecipeError: not two sides, or no label.
        RunError: what should be compared cannot be.
    """
    if len(sides) not in (0, 2):
        raise RecipeError(f"reproducibility: give two sides to compare, or none to write the page; got {len(sides)}")
    if bool(sides) != bool(label):
        raise RecipeError("--label: two sides have one, which says what differs between them")
    figures = results / FIGURES
    known = _comparisons(figures)
    if sides and label:
        made = compare(sides[0], sides[1], label)
        known = [*(each for each in known if each["label"] != label), made]
    runs = shared(results)
    write_json(figures, {"comparisons": known, "shared": runs})
    return write_text(results / PAGE, page(known, runs))


def _comparisons(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    found = _json(path).get("comparisons")
    if not isinstance(found, list) or not all(isinstance(each, dict) and "metrics" in each for each in found):
        raise RunError(f"{path}: its 'comparisons' are no list of comparisons; restore the file")
    return found
