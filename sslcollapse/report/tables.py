"""Tables of a page: what is shown, and the same unrounded for a CSV file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sslcollapse.core.texts import in_html
from sslcollapse.report.plot import to_csv
from sslcollapse.report.plots_run import FEATURES, NamedRun
from sslcollapse.report.runs import Run, brief, differences
from sslcollapse.runs.quantities import PARTS, TRAINED, attainable, encoder_title, encoders, is_number, lacking

_NUMBER = re.compile(r"\[?[+−-]?\d[\d.,]*(e[+-]?\d+)?[%°]?(\s.*)?|–|no change|")
_ROW = re.compile(r"<tr>(.*?)</tr>", re.DOTALL)
_CELL = re.compile(r"<t[dh][^>]*>(.*?)</t[dh]>", re.DOTALL)
_HYPHEN = re.compile(r"(?<![\w.])-(?=\d)")
"""A minus sign as programs write it."""


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        name: stem of its CSV file.
        heads: titles of the columns.
        rows: values as they are; floats are rounded where they are shown.
        note: one line below it.
        formats: column → how its floats are shown, such as ``".3f"``.
    """

    name: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    formats: Mapping[str, str] = field(default_factory=dict)

    def csv(self) -> bytes:
        """Unrounded."""
        return to_csv(self.heads, self.rows)

    def html(self) -> str:
        """A table that scrolls sideways where it is wider than the page."""
        head = "".join(f"<th>{in_html(title)}</th>" for title in self.heads)
        forms = [self.formats.get(head, "") for head in self.heads]
        rows = "".join(f"<tr>{''.join(map(_cell, row, forms))}</tr>" for row in self.rows)
        return scrolling(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")


def scrolling(table: str) -> str:
    """A table in a box that scrolls; the keyboard reaches it too.

    Columns of numbers are aligned at the right; names of layers are names, also where they are numbers.
    """
    lines = [_CELL.findall(row) for row in _ROW.findall(table)]
    columns = list(zip(*lines[1:], strict=True))
    numeric = {
        k
        for k, column in enumerate(columns)
        if any(column) and all(map(_NUMBER.fullmatch, column)) and lines[0][k] != "layer"
    }
    made = []
    for row, cells in enumerate(lines):
        tag = "td" if row else "th"
        shown = [_HYPHEN.sub("−", cell) if k in numeric and row else cell for k, cell in enumerate(cells)]
        kinds = [' class="n"' if k in numeric else "" for k in range(len(cells))]
        made.append("".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, shown, strict=True)))
    body = "".join(f"<tr>{row}</tr>" for row in made[1:])
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{made[0]}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def accuracy(runs: Sequence[NamedRun]) -> Table:
    """Every test metric of every probe: a row for each baseline, the untrained encoder and the trained one."""
    rows: list[list[Any]] = []
    for label, run in runs:
        result: Any = run.result or {"evaluation": {}, "untrained": {}}
        several = encoders(result)
        for probe, metrics in result["evaluation"].items():
            for key, trained in metrics.items():
                if not key.startswith("test_") or not isinstance(trained, Mapping):
                    continue
                what = key.removeprefix("test_")
                for name, probes in several.items():
                    found = probes.get(probe, {})
                    if key in found:
                        row = [label] if len(runs) > 1 else []
                        row += [probe, what.replace("_", " "), encoder_title(name)]
                        row += _score_cells(found, what, _number(trained, "mean") if name != TRAINED else None)
                        rows.append([*row, _rank(result, name)])
    heads = ["probe", "metric", "encoder", "solver", "test", "std", "splits", "validation", "trained less it"]
    note = (
        "Metrics in %; std is over splits. The untrained encoder is the same network before training; the random one "
        "has in each layer the singular values of the trained one, and random singular vectors; what has no encoder is "
        "features of the data. Effective rank is un-centred, of the representation or of these features."
    )
    formats = dict.fromkeys(("test", "std", "validation"), ".2f")
    formats |= {"trained less it": "+.2f", "effective rank": ".1f"}
    heads = [*(["run"] if len(runs) > 1 else []), *heads, "effective rank"]
    return Table("evaluation", heads, rows, note, formats)


def _score_cells(metrics: Mapping[str, Any], what: str, trained: float | None) -> list[Any]:
    """Solver, test metric with its deviation, splits, validation metric, and how much the trained encoder is above."""
    test = metrics[f"test_{what}"]
    mean, values = _number(test, "mean"), test.get("values") if isinstance(test, Mapping) else None
    splits = len(values) if isinstance(values, list) else 0
    validation = _number(metrics.get(f"validation_{what}"), "mean")
    scores = [_percent(mean), _percent(_number(test, "std")), splits, _percent(validation)]
    return [metrics.get("solver"), *scores, _percent(_minus(trained, mean))]


def _rank(result: Mapping[str, Any], encoder: str) -> float | None:
    """Effective rank of what an encoder or a baseline gives the probes."""
    found = result.get("rank", {}) if encoder == TRAINED else (result.get("baseline_ranks") or {}).get(encoder, {})
    return _number(found.get("representation"), "effective_rank")


def ranks(runs: Sequence[NamedRun]) -> Table:
    """Final effective ranks of features and of every layer; of an unfinished run those of the last measured step."""
    if len(runs) > 1:
        return _ranks_beside(runs)
    heads = ["of", "part", "effective rank", "attainable", "fraction", "centred", "stable rank", "numerical rank", "N"]
    note = "Effective rank is un-centred unless it says centred; fraction is of the attainable rank."
    formats = {**dict.fromkeys(("effective rank", "centred", "stable rank"), ".1f"), "fraction": ".3f"}
    return Table("ranks", heads, list(_rank_rows(runs[0].run)), note, formats)


def penalties(runs: Sequence[NamedRun]) -> Table:
    """Final penalty of every regularizer on every layer, its floor and coefficient."""
    heads = ["regularizer", "on", "coefficient", "penalty", "floor", "excess"]
    rows = []
    for label, run in runs:
        for name, places in (run.result or {}).get("regularizers", {}).items():
            for place, values in places.items():
                row = [name, place, *(values.get(head) for head in heads[2:])]
                rows.append([label, *row] if len(runs) > 1 else row)
    return Table("regularizers", [*(["run"] if len(runs) > 1 else []), *heads], rows)


def recipe_differences(runs: Sequence[NamedRun]) -> Table:
    """Where the recipes of several runs differ."""
    rows = [[path, *map(brief, values)] for path, values in differences([run for _, run in runs])]
    return Table("recipe_differences", ["path", *(label for label, _ in runs)], rows)


def recipe(run: Run) -> Table:
    """The resolved recipe, a row a value."""
    return Table("recipe", ["path", "value"], list(_flat(run.recipe, "")))


def environments(runs: Sequence[NamedRun]) -> Table:
    """Where and how each run was made."""
    facts: dict[str, list[str]] = {}
    for index, (_, run) in enumerate(runs):
        shown = {"run directory": f"{run.recipe['name']}/{run.hash}/seed{run.recipe['seed']}"}
        shown["status"] = "finished" if run.result else "unfinished"
        seconds = (run.result or {}).get("seconds", {})
        shown |= {f"seconds of {key}": f"{value:.1f}" for key, value in seconds.items() if key != "steps_trained"}
        shown |= {path: str(value) for path, value in _flat(run.environment, "") if value is not None}
        if isinstance(command := run.environment.get("command"), list):
            shown["command"] = " ".join(map(str, command))
        for key, value in shown.items():
            facts.setdefault(key, [""] * len(runs))[index] = value
    rows = [[key.removeprefix("packages."), *values] for key, values in facts.items()]
    return Table("environment", ["", *(label for label, _ in runs)] if len(runs) > 1 else ["", "value"], rows)


def _ranks_beside(runs: Sequence[NamedRun]) -> Table:
    """Effective ranks, a column a run."""
    found: dict[tuple[str, str], list[Any]] = {}
    for index, (_, run) in enumerate(runs):
        for of, part, rank, *_ in _rank_rows(run):
            found.setdefault((of, part), [None] * len(runs))[index] = rank
    names = [label for label, _ in runs]
    rows = [[*key, *values] for key, values in found.items()]
    return Table("ranks", ["of", "part", *names], rows, "Effective rank, un-centred.", dict.fromkeys(names, ".1f"))


def _rank_rows(run: Run) -> Iterator[list[Any]]:
    found = (run.result or {}).get("rank") or _last_ranks(run)
    for name in FEATURES:
        shared = name == "embedding" and found.get(name) == found.get("representation")  # no projector
        if found.get(name) and not shared:
            yield [name, "", *_rank_cells(found[name], _number(found[name], "attainable"))]
    for layer, parts in found.get("layers", {}).items():
        for part in PARTS:
            if part in parts:
                yield [layer, part, *_rank_cells(parts[part], attainable(parts, part))]


def _rank_cells(entry: Mapping[str, Any], limit: float | None) -> list[Any]:
    rank = entry["effective_rank"]
    share = rank / limit if limit else None
    rest = [entry.get(key) for key in ("effective_rank_centred", "stable_rank", "numerical_rank", "n")]
    return [rank, limit, share, *rest]


def _last_ranks(run: Run) -> dict[str, Any]:
    """The last measured ranks, in the form of ``result.json``."""
    measured = [record for record in run.metrics if "rank/representation/effective_rank" in record]
    record = measured[-1] if measured else {}
    found: dict[str, Any] = {"layers": {}}
    for key, value in record.items():
        words = key.split("/")
        if words[0] == "rank" and len(words) == 3 and words[1] in FEATURES:
            found.setdefault(words[1], {})[words[2]] = value
        elif words[0] == "rank" and len(words) > 4:
            found["layers"].setdefault("/".join(words[2:-2]), {}).setdefault(words[-2], {})[words[-1]] = value
    return {} if lacking({"rank": found}, {"rank": dict}) else found


def _flat(value: Any, path: str) -> Iterator[list[Any]]:
    if isinstance(value, Mapping) and (value or not path):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    else:
        yield [path, brief(value)]


def _number(entry: Any, key: str) -> float | None:
    """A number of a dict; None where there is no dict, or no number in it."""
    value = entry.get(key) if isinstance(entry, Mapping) else None
    return value if is_number(value) else None


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, float):
        value = f"{value:{form or '.4g'}}" if math.isfinite(value) else "not finite"
    return f"<td>{in_html(str(value))}</td>"
