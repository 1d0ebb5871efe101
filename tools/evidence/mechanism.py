"""The gain in accuracy beside the gain in rank, over the cells of all grids of a results folder."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sslcollapse.ablation.claims.needs import data_of
from sslcollapse.ablation.files import read_plan
from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.intervals import expanded_tail, rounded
from sslcollapse.ablation.tables.columns import Column, columns
from sslcollapse.runs.quantities import is_number, lookup

RESAMPLES = 20_000
LEAST_DATA_SETS = 10
"""Fewer clusters give no interval: of so few a bootstrap misses far more often than it says."""
ACCURACY = "accuracy"
HEADS = ("predictor", "projector")

MEASURES = {
    "representation, un-centred (RankMe)": "rank.representation.effective_rank",
    "representation, centred": "rank.representation.effective_rank_centred",
    "prediction, un-centred": "rank.prediction.effective_rank",
    "prediction, centred": "rank.prediction.effective_rank_centred",
    "outputs of the encoder's layers": "output",
    "weights of the encoder's layers": "weight",
    "α-ReQ of the representation": "rank.representation.alpha_req",
    "LiDAR of the representation": "rank.representation.lidar",
}
"""Title → path in a record, or the part of layers whose mean is taken. Ranks are in % of what is attainable."""
LEVELS = ("within", "between", "seeds")


@dataclass(frozen=True)
class Pair:
    """One run less the baseline's run of the same seed.

    Attributes:
        setting: hash of the baseline: data, network, views and budget.
        data: of the setting.
        gains: measure → difference, ``ACCURACY`` among them, in points of %.
    """

    setting: str
    data: str
    cell: str
    seed: int
    gains: Mapping[str, float]


def measured(record: Mapping[str, Any]) -> dict[str, tuple[float, Any]]:
    """Measure → its value and the number of samples that it is of, of one record."""
    found = {}
    for title, path in MEASURES.items():
        if "." not in path:
            layers = lookup(record, "rank.layers") or {}
            parts = [each[path] for name, each in layers.items() if not name.startswith(HEADS) and path in each]
            shares = [share for part in parts if (share := _share(part, "effective_rank")) is not None]
            if shares:
                found[title] = (math.fsum(shares) / len(shares), parts[0].get("n"))
            continue
        parent, _, last = path.rpartition(".")
        entry = lookup(record, parent) or {}
        value: Any = _share(entry, last) if last.startswith("effective_rank") else entry.get(last)
        if is_number(value) and math.isfinite(value):
            found[title] = (value, entry.get("n"))
    return found


def _share(entry: Mapping[str, Any], key: str) -> float | None:
    """A rank in % of what is attainable."""
    rank: Any = entry.get(key)
    attainable: Any = entry.get("attainable_centred" if key.endswith("centred") else "attainable")
    return 100 * rank / attainable if is_number(rank) and is_number(attainable) and attainable else None


@dataclass(frozen=True)
class Collected:
    """Pairs of all grids.

    Attributes:
        used: results folder → pairs that are counted from it.
        skipped: results folder → why it gives none.
        twice: pairs whose run stands in a folder before, and counts there alone.
        unfinished: folders that are used and whose plan is not finished.
    """

    pairs: Sequence[Pair]
    used: Mapping[str, int]
    skipped: Mapping[str, str]
    twice: int
    unfinished: Sequence[str]


def collect(results: Path) -> Collected:
    """Every cell with its baseline, paired by seed; each run counts once, where it stands first.

    Raises:
        RunError: a plan or a file of records is damaged.
    """
    pairs: list[Pair] = []
    used, skipped, unfinished = {}, {}, []
    seen: set[tuple[str, int, Any]] = set()
    twice = 0
    for folder in sorted(path.parent for path in results.glob("*/runs.jsonl")):
        kept = read_plan(folder)
        if kept is None:
            skipped[folder.name] = "it has no plan.json"
            continue
        ablation, records = kept[0], Records(folder / "runs.jsonl")
        if why := _unsuitable(ablation, records):
            skipped[folder.name] = why
            continue
        before = len(pairs)
        for pair, streams in _pairs(ablation, records):
            if (key := (pair.cell, pair.seed, streams)) in seen:
                twice += 1
            else:
                seen.add(key)
                pairs.append(pair)
        if len(pairs) == before:
            skipped[folder.name] = "no run with its baseline's of the same seed that no folder before has"
            continue
        used[folder.name] = len(pairs) - before
        planned = len(ablation.cells) * max(ablation.seeds, ablation.planned_seeds)
        if not ablation.looks and len(records.of(ablation.cells, ablation.seeds)) < planned:
            unfinished.append(folder.name)
    return Collected(pairs, used, skipped, twice, unfinished)


def _accuracy(ablation: Ablation, records: Records) -> Column | None:
    every = columns(ablation, records.of(ablation.cells, ablation.seeds))
    named = (column for column in every if column.path.startswith("evaluation.") and ".test_" in column.path)
    return next((column for column in named if column.metric), None)


def _unsuitable(ablation: Ablation, records: Records) -> str:
    if not ablation.baselines:
        return "it compares nothing with a baseline"
    return "" if _accuracy(ablation, records) else "its runs have no test metric"


def _pairs(ablation: Ablation, records: Records) -> Iterator[tuple[Pair, Any]]:
    column, cells = _accuracy(ablation, records), {cell.hash: cell for cell in ablation.cells}
    if column is None:
        return
    for hash_, baseline in ablation.baselines.items():
        others = {record["seed"]: record for record in records.of([cells[baseline]], ablation.seeds)}
        for record in records.of([cells[hash_]], ablation.seeds):
            other = others.get(record["seed"])
            scores = [column.of(each) for each in (record, other) if each is not None]
            if other is None or not all(is_number(score) and math.isfinite(score) for score in scores):
                continue
            gains = {ACCURACY: 100 * (scores[0] - scores[1])}
            own, base = measured(record), measured(other)
            for title in own.keys() & base.keys():
                if own[title][1] == base[title][1]:  # of one number of samples
                    gains[title] = own[title][0] - base[title][0]
            yield Pair(baseline, data_of(cells[hash_]), hash_, record["seed"], gains), record.get("streams")


def associate(pairs: Sequence[Pair], measure: str, confidence: float = 0.95) -> dict[str, Any]:
    r"""Association of the gain in accuracy with the gain in a measure, taken apart by level, and what rank mediates.

    With x the gain in the measure and y that in accuracy, ``within`` is over cells of a setting (means over seeds, less
    the setting's mean), ``between`` over settings' means, ``seeds`` over the seeds of a cell. The indirect effect is
    :math:`\bar x b`, b being a level's slope, and the share :math:`\bar x b / \bar y`; means give each setting the same
    weight. All intervals resample data sets, each with all of its settings: settings of one data set are not
    independent. ``spread`` says what a slope within settings hangs on: how many settings have several cells, and the
    share of the sum of squares that the one with the largest has, in %.

    Source: Judd, Kenny and McClelland, Estimating and testing mediation in within-subject designs, 2001; Cameron,
    Gelbach and Miller, Bootstrap-based improvements for inference with clustered errors, 2008.
    """
    known = [pair for pair in pairs if measure in pair.gains]
    groups = _by_setting(known)
    sums = np.array([_sums(group, measure) for group in groups])  # [settings, 3 levels × 3 sums + 2 means]
    names = {data: number for number, data in enumerate(dict.fromkeys(group[0].data for group in groups))}
    n = len(names)
    made: dict[str, Any] = {"pairs": len(known), "settings": len(groups), "data sets": n}
    made["cells"] = len({(p.setting, p.cell) for p in known})
    if not n:
        return made
    squares = sums[:, 0]
    several = sum(len({pair.cell for pair in group}) > 1 for group in groups)
    made["spread"] = {"settings": several, "largest": _number(100 * squares.max() / squares.sum()) if several else None}
    counts = _drawn(n)[:, [names[group[0].data] for group in groups]]
    whole, drawn = _figures(np.ones((1, len(sums))), sums), _figures(counts, sums)
    for key, values in whole.items():
        made[key] = {"estimate": _number(values[0]), "interval": None}
        good = drawn[key][np.isfinite(drawn[key])]
        if n >= LEAST_DATA_SETS and math.isfinite(values[0]) and len(good) > 0.95 * RESAMPLES:
            tail = expanded_tail(n, confidence)
            made[key]["interval"] = [_number(end) for end in np.quantile(good, [tail, 1 - tail])]
    total = made["total"]["interval"]
    if total is None or total[0] <= 0 <= total[1]:  # a share of nothing is any number
        for level in LEVELS[:2]:
            made[f"share {level}"] = {"estimate": None, "interval": None}
    return made


def _by_setting(pairs: Sequence[Pair]) -> list[list[Pair]]:
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.setting, []).append(pair)
    return list(groups.values())


def _sums(pairs: Sequence[Pair], measure: str) -> list[float]:
    """Of one setting: xx, xy, yy over its cells and over their seeds, and the means of x and y."""
    cells: dict[str, list[tuple[float, float]]] = {}
    for pair in pairs:
        cells.setdefault(pair.cell, []).append((pair.gains[measure], pair.gains[ACCURACY]))
    values = [np.array(each) for each in cells.values()]  # [seeds, 2] each
    means = np.array([each.mean(axis=0) for each in values])  # [cells, 2]
    seeds = np.concatenate([each - each.mean(axis=0) for each in values])
    middle = means.mean(axis=0)
    sums = [float(a) for part in (means - middle, seeds) for a in _moments(part)]
    return [*sums, *map(float, middle)]


def _moments(centred: Any) -> list[Any]:
    x, y = centred.T
    return [x @ x, x @ y, y @ y]


def _figures(counts: Any, sums: Any) -> dict[str, Any]:
    """Slopes, correlations, effects and shares of each resample, from how often it has each setting: [resamples, n]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        n = counts.sum(axis=1)
        x, y = counts @ sums[:, 6] / n, counts @ sums[:, 7] / n
        products = [sums[:, 6] ** 2, sums[:, 6] * sums[:, 7], sums[:, 7] ** 2]
        means = [x * x, x * y, y * y]
        moments = {
            "within": [counts @ sums[:, k] for k in (0, 1, 2)],
            "between": [counts @ p / n - m for p, m in zip(products, means, strict=True)],
            "seeds": [counts @ sums[:, k] for k in (3, 4, 5)],
        }
        found = {"total": y, "gain": x}
        for level, (xx, xy, yy) in moments.items():
            slope = np.where(xx > 1e-12, xy / xx, np.nan)
            found[f"slope {level}"] = slope
            found[f"correlation {level}"] = np.where((xx > 1e-12) & (yy > 1e-12), xy / np.sqrt(xx * yy), np.nan)
            if level != "seeds":
                found[f"indirect {level}"] = x * slope
                found[f"share {level}"] = 100 * x * slope / y
    return found


@cache
def _drawn(n: int) -> Any:
    """How often each resample has each of n data sets; always the same draws."""
    draw = random.Random(0).random  # Python's own: its numbers are the same in every version
    taken = np.array([int(draw() * n) for _ in range(RESAMPLES * n)]) + np.repeat(np.arange(RESAMPLES) * n, n)
    return np.bincount(taken, minlength=RESAMPLES * n).reshape(RESAMPLES, n).astype(float)


def _number(value: Any) -> float | None:
    return rounded(float(value)) if math.isfinite(value) else None
