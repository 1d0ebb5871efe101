"""How the statistics of claims behave where the truth is known: coverage, false positives, power."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sslcollapse.ablation.claims.judge import outcome
from sslcollapse.ablation.statistics.intervals import bootstrap_spearman, correlate, student
from sslcollapse.ablation.statistics.pairing import WIDENING, choose
from sslcollapse.ablation.statistics.power import look_levels, power, regions
from sslcollapse.ablation.tables.columns import markdown
from sslcollapse.core.errors import RecipeError
from tools.evidence import RESULTS, paragraph, write_json, write_text
from tools.evidence.mechanism import ACCURACY, Pair, associate

PAGE, FIGURES = Path("docs/statistics.md"), Path("docs/statistics.json")
LEAST_TRIALS = 40
FEWER = 20
"""Of what resamples, one trial in so many is made: each is itself thousands of draws."""
SEQUENCES = ((5, 11, 17, 24, 30), (10, 18, 25, 32, 40), (5, 6, 7, 8, 9))

NOISE: dict[str, Callable[[Any, Any], Any]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed (exponential)": lambda rng, shape: rng.exponential(size=shape) - 1,
    "in steps (rounded to one standard deviation)": lambda rng, shape: np.round(rng.normal(size=shape)),
}

Row = dict[str, Any]


def _row(setting: str, what: str, nominal: str, hits: Iterable[Any]) -> Row:
    """A share of trials, in %, with its standard error."""
    made = [bool(hit) for hit in hits]
    share = sum(made) / len(made)
    error = math.sqrt(max(share * (1 - share), 1 / len(made)) / len(made))
    return {
        "setting": setting,
        "what": what,
        "nominal": nominal,
        "found": round(100 * share, 2),
        "error": round(100 * error, 2),
        "trials": len(made),
    }


def _covers(found: Any, truth: float) -> bool:
    return found is not None and found[0] <= truth <= found[1]


def coverage(rng: Any, trials: int) -> list[Row]:
    """Student's intervals of few seeds. They are right for normal noise, and miss too often where it is skewed."""
    rows = []
    for name, noise in NOISE.items():
        for n in (5, 10, 20):
            found = (student(list(row)) for row in noise(rng, (trials, n)))
            rows.append(
                _row(
                    f"{name}, n = {n}",
                    "95 % interval holds the truth",
                    "95",
                    (_covers(f.interval, 0) for f in found if f),
                )
            )
    return rows


def _values(rng: Any, cells: int, n: int, agreement: float) -> tuple[Any, Any]:
    """Validation metrics [cells, n] and test differences to a baseline that is as good as every cell."""
    validation, own = rng.normal(size=(2, cells, n))
    return validation, agreement * validation + math.sqrt(1 - agreement**2) * own - rng.normal(size=n)


def _crossed(validation: Any, test: Any) -> list[float]:
    taken = choose([(row, dict(enumerate(map(float, scores)))) for row, scores in zip(test, validation, strict=True)])
    return [] if taken is None else [float(taken.halves[seed % 2][seed]) for seed in range(test.shape[1])]  # type: ignore[index]


def selection(rng: Any, trials: int) -> list[Row]:
    """A cell that validation chooses among equal ones, which is no better than the baseline."""
    rows = []
    for cells in (2, 3, 8):
        for agreement in (0.6, 1.0):
            crossed, plain = [], []
            for _ in range(trials):
                validation, test = _values(rng, cells, 10, agreement)
                found = student(_crossed(validation, test), widening=WIDENING)
                crossed.append(found is not None and found.interval is not None and found.interval[0] > 0)
                best = student(list(test[validation.mean(axis=1).argmax()]))
                plain.append(best is not None and best.interval is not None and best.interval[0] > 0)
            setting = f"{cells} equal cells, r = {agreement:g}, n = 10"
            rows.append(_row(setting, "found better, chosen on other seeds", "at most 2.5", crossed))
            rows.append(_row(setting, "found better, chosen on the same seeds (not used)", "2.5", plain))
    return rows


def looks(rng: Any, trials: int) -> list[Row]:
    """A sequence of looks at no effect: how often any look finds one, in either direction.

    With noise as skewed as an exponential a single look misses as often as the first part shows, and looks miss about
    as often. The levels are computed for normal noise.
    """
    rows = []
    for sequence in SEQUENCES:
        levels = look_levels(sequence, 0.05)
        for name, noise in NOISE.items():
            values = noise(rng, (10 * trials, sequence[-1]))
            rows.append(
                _row(
                    f"looks at {_list(sequence)}; {name}",
                    "any look finds an effect",
                    "5",
                    _any(values, sequence, levels),
                )
            )
        plain = _any(rng.normal(size=(10 * trials, sequence[-1])), sequence, [0.05] * len(sequence))
        rows.append(_row(f"looks at {_list(sequence)}; normal", "the same, each look at 95 % (not used)", "5", plain))
    sequence = SEQUENCES[0]
    levels, hits = look_levels(sequence, 0.05), []
    for _ in range(trials):
        validation, test = _values(rng, 3, sequence[-1], 1.0)
        found = [
            student(_crossed(validation[:, :n], test[:, :n]), 1 - own, widening=WIDENING)
            for n, own in zip(sequence, levels, strict=True)
        ]
        hits.append(any(f is not None and f.interval is not None and not _covers(f.interval, 0) for f in found))
    rows.append(
        _row(f"looks at {_list(sequence)}; 3 cells, chosen anew at each", "any look finds an effect", "at most 5", hits)
    )
    return rows


def _any(values: Any, sequence: Sequence[int], levels: Sequence[float]) -> Any:
    """Whether Student's interval leaves 0 out at any look; values are [trials, seeds]."""
    from scipy.stats import t

    found = np.zeros(len(values), dtype=bool)
    for n, own in zip(sequence, levels, strict=True):
        seen = values[:, :n]
        spread = seen.std(axis=1, ddof=1)
        far = np.abs(seen.mean(axis=1)) * math.sqrt(n) > t.isf(own / 2, n - 1) * spread
        found |= far & ((spread > 0) | (2.0 ** (1 - n) <= own))
    return found


def _list(sequence: Sequence[int]) -> str:
    return ", ".join(map(str, sequence))


def equivalence(rng: Any, trials: int) -> list[Row]:
    """A difference as large as the margin, which is not equivalent, and none at all, which is."""
    rows = []
    for n in (5, 10, 20):
        for effect, nominal in ((1.0, "at most 5"), (0.0, "power")):
            values = rng.normal(effect, 1.0, (trials, n))
            found = [student(list(row), 0.9) for row in values]
            hits = [f is not None and outcome("equivalent", 1.0, f.interval) == "supported" for f in found]
            if nominal == "power":
                nominal = f"{100 * power(n, 1.0, 0.0, [regions('equivalent', 1.0)[0]], 0.9):.1f}"
            where = "at the margin" if effect else "0"
            rows.append(
                _row(f"true difference {where}, sd = margin, n = {n}", "equivalence is supported", nominal, hits)
            )
    return rows


def planning(rng: Any, trials: int) -> list[Row]:
    """The chance of a decision that is computed before a grid runs, and how often it comes."""
    rows = []
    for n, effect, tests in ((5, 1.0, 1), (10, 1.0, 1), (10, 1.0, 8), (20, 0.7, 4)):
        confidence = 1 - 0.05 / tests
        expected = 100 * power(n, 1.0, effect, [(0.0, math.inf)], confidence)
        found = (student(list(row), confidence) for row in rng.normal(effect, 1.0, (trials, n)))
        hits = [f is not None and f.interval is not None and f.interval[0] > 0 for f in found]
        rows.append(
            _row(f"effect {effect:g} sd, n = {n}, one of {tests} tests", "found positive", f"{expected:.1f}", hits)
        )
    return rows


def correlations(rng: Any, trials: int) -> list[Row]:
    """Spearman's correlation over cells: Fisher's interval over cells, and the bootstrap over seeds.

    Noise of the means pulls the latter towards 0, so a perfect correlation is missed too often, on the cautious side.
    """
    rows = []
    for rho in (0.0, 0.6):
        truth = 6 / math.pi * math.asin(rho / 2)
        for cells in (8, 20):
            x, own = rng.normal(size=(2, trials, cells))
            found = (correlate(list(a), list(rho * a + math.sqrt(1 - rho**2) * b)) for a, b in zip(x, own, strict=True))
            hits = [_covers(f.spearman_interval, truth) for f in found if f is not None]
            rows.append(_row(f"{cells} cells drawn, r = {truth:.2f}", "Fisher's 95 % interval holds it", "95", hits))
    middle = np.linspace(0, 3, 8)
    for mixed in (0, 3):
        means = np.array([middle, np.roll(middle, mixed)])[:, :, None]
        truth = float(np.corrcoef(means[:, :, 0])[0, 1])  # equally spaced, so Pearson's is Spearman's
        drawn = [bootstrap_spearman(*(means + rng.normal(size=(2, 8, 10)))) for _ in range(max(trials // FEWER, 2))]
        hits = [_covers(f and f[1], truth) for f in drawn]
        rows.append(
            _row(f"8 fixed cells, r = {truth:.2f}, n = 10 seeds", "bootstrap's 95 % interval holds it", "95", hits)
        )
    return rows


def clusters(rng: Any, trials: int) -> list[Row]:
    """The association of two gains as claim 13 computes it, with slopes that differ from data set to data set.

    Unequal data sets are as in claim 13: three have most settings, and most settings have one cell.
    """
    rows = []
    for name, sizes in DESIGNS.items():
        hits: dict[str, list[bool]] = {key: [] for key in ("slope within", "slope between", "share within")}
        for _ in range(max(trials // FEWER, 2)):
            made = associate(_pairs(rng, sizes), "rank")
            for key, truth in zip(hits, (0.5, 0.5, 50.0), strict=True):
                interval = made[key]["interval"]
                if interval is not None:
                    hits[key].append(_covers(interval, truth))
        for key, found in hits.items():
            if found:
                rows.append(_row(name, f"{key}: 95 % interval holds the truth", "95", found))
    return rows


DESIGNS = {
    "10 data sets of 2 settings, 4 cells, 5 seeds": [[4, 4]] * 10,
    "20 data sets of 2 settings, 4 cells, 5 seeds": [[4, 4]] * 20,
    "40 data sets of 2 settings, 4 cells, 5 seeds": [[4, 4]] * 40,
    "12 unequal data sets, 5 seeds": [
        [10, 7, 5, 5, 4, 4, *[2] * 8, *[1] * 16],
        [5, 5, 4, *[2] * 4, *[1] * 7],
        [9, 5, *[2] * 3, *[1] * 6],
        [4, 1],
        [6],
        *[[1]] * 6,
        [2],
    ],
}
"""Of each data set the number of cells of each of its settings."""


def _pairs(rng: Any, sizes: Sequence[Sequence[int]]) -> list[Pair]:
    """Gains with a slope of about 0.5 and a direct effect, so that half of the gain in accuracy is mediated."""
    pairs = []
    for data, settings in enumerate(sizes):
        slope, direct = 0.5 + 0.2 * rng.normal(), 2 + 0.5 * rng.normal()
        for setting, cells in enumerate(settings):
            base = 4 + rng.normal()
            for cell in range(cells):
                middle = base + rng.normal()
                for seed in range(5):
                    rank = middle + 0.5 * rng.normal()
                    gain = direct + base * 0.5 + slope * (rank - base) + 0.5 * rng.normal()
                    gains = {"rank": rank, ACCURACY: gain}
                    pairs.append(Pair(f"{data}/{setting}", f"{data}", f"{data}/{setting}/{cell}", seed, gains))
    return pairs


PARTS = {
    "Intervals over seeds": coverage,
    "Choice by validation": selection,
    "Looks one after the other": looks,
    "Equivalence": equivalence,
    "Power": planning,
    "Correlations": correlations,
    "Associations clustered by setting": clusters,
}


def simulate(trials: int, seed: int) -> dict[str, Any]:
    """All figures of the page; each part has random numbers of its own."""
    made: dict[str, Any] = {"trials": trials, "seed": seed, "parts": {}}
    for number, (title, part) in enumerate(PARTS.items()):
        began = time.perf_counter()
        made["parts"][title] = part(np.random.default_rng([seed, number]), trials)
        print(f"{title}: {time.perf_counter() - began:.1f} s", flush=True)
    return made


def page(made: dict[str, Any]) -> str:
    """The Markdown page, from what its JSON has."""
    command = f"    python tools/evidence.py simulate --trials {made['trials']} --seed {made['seed']}"
    lines = ["# How the statistics behave", "", command, ""]
    lines += paragraph(
        "[Claims](claims.md) are judged by intervals over seeds. Here the same functions are tried where the truth is "
        "known: numbers are drawn, and a table says in what share of the trials something came out, in %, with its "
        'standard error, beside what it should be. Lines with "not used" show what would happen without the rule.'
    )
    for title, rows in made["parts"].items():
        doc = " ".join((PARTS[title].__doc__ or "").split())
        shown = [
            [r["setting"], r["what"], r["nominal"], f"{r['found']:.2f} ± {r['error']:.2f}", str(r["trials"])]
            for r in rows
        ]
        lines += [f"## {title}", "", *paragraph(doc)]
        lines += [*markdown(["setting", "what", "should be", "is", "trials"], shown), ""]
    return "\n".join(lines)


def write_simulations(results: Path, trials: int, seed: int) -> Path:
    """Simulate, and write the page and its JSON beside the results folder; returns the page.

    Raises:
        RecipeError: too few trials, or a negative seed.
    """
    if trials < LEAST_TRIALS:
        raise RecipeError(f"--trials must be at least {LEAST_TRIALS}, got {trials}")
    if seed < 0:
        raise RecipeError(f"--seed must be at least 0, got {seed}")
    made = simulate(trials, seed)
    folder = PAGE.parent if results == RESULTS else results
    write_json(folder / FIGURES.name, made)
    return write_text(folder / PAGE.name, page(made))
