"""The fields of a claim in an ablation file, checked before anything runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sslcollapse.ablation.values import plain, short
from sslcollapse.core.errors import RecipeError, suggest
from sslcollapse.probes import METRICS
from sslcollapse.recipe.schema import folder_name
from sslcollapse.runs.quantities import FEATURES, FRACTION, MEASURES, RANKS, is_number

EXPECTATIONS = ("positive", "negative", "none", "not positive", "not negative", "equivalent")
WITHIN = EXPECTATIONS[2:]
"""Those that hold of an effect of 0, and need a margin."""

CLAIM_FIELDS = ("number", "statement", "checks", "note", "variances", "most_seeds")
MOST_SEEDS = 100
"""That a test may take to be settled, where a claim does not say it."""
_COMMON = ("name", "kind", "metric", "expect", "margin", "where", "effect")
_CHOICE = ("select", "probe")
CHECK_FIELDS = {
    "difference": (*_COMMON, *_CHOICE, "cell", "against"),
    "slope": (*_COMMON, *_CHOICE, "cell", "against", "along", "along_values"),
    "trend": (*_COMMON, "along", "along_values"),
    "correlation": (*_COMMON, "with_metric"),
}
LEAST_CELLS = 6
"""Cells that differ: a correlation of fewer can hardly come out otherwise than near ±1."""

METRIC_ROOTS = ("evaluation", "untrained", "baselines", "rank", "baseline_ranks", "target", "regularizers", "seconds")

Choice = Mapping[str, Sequence[Any]]
"""Axis path → the values that it may have."""


@dataclass(frozen=True)
class Check:
    """One quantity that a claim makes a prediction of; ``docs/claims.md`` has the meaning of each field.

    Attributes:
        margin: smallest effect that counts, in the metric's unit; None is the default of the metric.
        effect: the smallest that matters, for which the number of seeds is computed; None where none is stated.
        positions: ``along_values``: value of the axis ``along``, as ``values.plain`` has it → number.
    """

    name: str
    metric: str
    expect: str
    kind: str = "difference"
    margin: float | None = None
    cell: Choice = field(default_factory=dict)
    against: Choice = field(default_factory=dict)
    where: Choice = field(default_factory=dict)
    select: str | None = None
    probe: str | None = None
    along: str = ""
    positions: Mapping[str, float] = field(default_factory=dict)
    with_metric: str = ""
    effect: float | None = None


@dataclass(frozen=True)
class Claim:
    """A numbered statement and the checks that it must pass.

    Attributes:
        variances: results folder of an earlier grid, beside this one's, whose records say how much seeds differ.
        most_seeds: beyond which a test counts as one that cannot be settled.
    """

    number: int
    statement: str
    checks: Sequence[Check]
    note: str = ""
    variances: str = ""
    most_seeds: int = MOST_SEEDS


def read_claim(
    described: Any, axes: Mapping[str, Sequence[Any]], baseline: Mapping[str, Any], probes: Sequence[str]
) -> Claim:
    """The checked claim of an ablation file.

    Args:
        described: the file's ``claim``.
        axes: path → values of each axis, the base recipes' labels under ``base``.
        baseline: the ablation's, which differences are taken to where a check has no ``against``.
        probes: names of the recipes' probes.

    Raises:
        RecipeError: for an unknown, missing or wrong field; the message names its place.
    """
    if not isinstance(described, Mapping):
        raise RecipeError(f"claim must be a dict of {', '.join(CLAIM_FIELDS)}, got {described!r}")
    _known("claim", described, CLAIM_FIELDS)
    number = described.get("number")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise RecipeError(f"claim.number must be a whole number of at least 0, got {number!r}")
    statement = _text("claim.statement", described.get("statement"))
    checks = described.get("checks")
    if not isinstance(checks, (list, tuple)) or not checks:
        raise RecipeError(f"claim.checks must be a list of at least one check, got {checks!r}")
    read = [_read_check(f"claim.checks[{index}]", check, axes, baseline, probes) for index, check in enumerate(checks)]
    names = [check.name for check in read]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"claim.checks: {names.count(name)} checks have the name {name!r}; give each its own")
    note = _text("claim.note", described.get("note", ""), empty=True)
    variances = described.get("variances", "")
    if variances != "":
        folder_name(variances, "claim.variances")
    most = described.get("most_seeds", MOST_SEEDS)
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise RecipeError(f"claim.most_seeds must be a whole number of at least 1, got {most!r}")
    return Claim(number, statement, read, note, variances, most)


def check_metric(place: str, metric: Any, probes: Sequence[str]) -> str:
    """A dotted path into a record: of one of the recipes' probes, a measured rank, or another number of a run.

    Raises:
        RecipeError: it is not.
    """
    root, _, rest = str(metric).partition(".")
    if not isinstance(metric, str) or root not in METRIC_ROOTS or not rest:
        known = ", ".join(METRIC_ROOTS) + suggest(root, list(METRIC_ROOTS))
        raise RecipeError(f"{place}: {metric!r} is no path into a record; it starts with one of {known}")
    if root in ("evaluation", "untrained") and not any(rest.startswith(f"{probe}.") for probe in probes):
        nearest = suggest(rest.partition(".")[0], list(probes))
        raise RecipeError(f"{place}: {metric!r} names none of the recipe's probes ({', '.join(probes)}){nearest}")
    if root in ("evaluation", "untrained"):
        probe = max((probe for probe in probes if rest.startswith(f"{probe}.")), key=len)
        _check_score(place, metric, rest.removeprefix(f"{probe}."))
    if root == "rank":
        first, last = rest.partition(".")[0], rest.rpartition(".")[2]
        places = (*FEATURES, "layers")
        if first not in places or last not in MEASURES:
            wrong = _one_of(first, places) if first not in places else _one_of(last, MEASURES)
            raise RecipeError(f"{place}: {metric!r} is no measured rank: {wrong}")
    return metric


def _check_score(place: str, metric: str, name: str) -> None:
    """Whether it can be a metric of a probe; a registered probe may have any that begins in this way."""
    part, _, what = name.partition(".")[0].partition("_")
    if part not in ("test", "validation") or (what not in METRICS and suggest(what, list(METRICS))):
        known = [f"{part}_{what}" for part in ("test", "validation") for what in METRICS]
        raise RecipeError(f"{place}: {metric!r} is no metric of a probe: {_one_of(name, known)}")


def _read_check(
    place: str, check: Any, axes: Mapping[str, Sequence[Any]], baseline: Mapping[str, Any], probes: Sequence[str]
) -> Check:
    if not isinstance(check, Mapping):
        raise RecipeError(f"{place} must be a dict, got {check!r}")
    kind = check.get("kind", "difference")
    if not isinstance(kind, str) or kind not in CHECK_FIELDS:
        raise RecipeError(f"{place}.kind: {_one_of(kind, CHECK_FIELDS)}")
    _known(place, check, CHECK_FIELDS[kind], f" of a {kind}")
    for key in ("name", "metric", "expect", *(("along",) if "along" in CHECK_FIELDS[kind] else ())):
        if key not in check:
            raise RecipeError(f"{place}.{key} is missing")
    if kind == "correlation":
        check_metric(f"{place}.with_metric", check.get("with_metric"), probes)
    cell, against, where = (_choice(f"{place}.{key}", check.get(key, {}), axes) for key in ("cell", "against", "where"))
    if "against" in CHECK_FIELDS[kind] and not against:
        if not baseline:
            raise RecipeError(f"{place}.against is missing, and the ablation has no baseline to take its place")
        against = {path: [value] for path, value in baseline.items()}
    name = _text(f"{place}.name", check["name"])
    metric = check_metric(f"{place}.metric", check["metric"], probes)
    expect, margin = _expectation(place, check)
    select, probe = _selection(place, check, probes)
    along, positions = check.get("along", ""), _positions(place, check, axes)
    with_metric, effect = check.get("with_metric", ""), _effect(place, check, expect, margin)
    return Check(
        name, metric, expect, kind, margin, cell, against, where, select, probe, along, positions, with_metric, effect
    )


def _expectation(place: str, check: Mapping[str, Any]) -> tuple[str, float | None]:
    expect, margin = check["expect"], check.get("margin")
    if expect not in EXPECTATIONS:
        raise RecipeError(f"{place}.expect: {_one_of(expect, EXPECTATIONS)}")
    if margin is not None and (not _is_number(margin) or margin < 0):
        raise RecipeError(f"{place}.margin must be a number >= 0, got {margin!r}")
    last = check["metric"].rpartition(".")[2]  # overlaps and distances have no margin of their own
    counted = check["metric"].startswith("rank.") and last in (*RANKS, FRACTION) and check.get("kind") != "correlation"
    if expect in WITHIN and (margin == 0 or (margin is None and not counted)):
        raise RecipeError(f"{place}.margin: expect={expect!r} needs the largest effect that counts as none, above 0")
    return expect, margin


def _effect(place: str, check: Mapping[str, Any], expect: str, margin: float | None) -> float | None:
    effect = check.get("effect")
    if effect is None:
        return None
    if expect in WITHIN:
        raise RecipeError(f"{place}.effect: of expect={expect!r} the margin is what matters; remove `effect`")
    if not _is_number(effect) or effect <= (margin or 0):
        least = f"the margin of {margin:g}" if margin else "0"
        raise RecipeError(
            f"{place}.effect must be a number above {least}, got {effect!r}; it is a size, without a sign"
        )
    return effect


def _selection(place: str, check: Mapping[str, Any], probes: Sequence[str]) -> tuple[str | None, str | None]:
    select, probe = check.get("select"), check.get("probe")
    if select not in (None, "validation"):
        raise RecipeError(f"{place}.select: {_one_of(select, ('validation',))}")
    if probe is not None and (select is None or probe not in probes):
        raise RecipeError(
            f"{place}.probe: {_one_of(probe, probes)}; it is the probe whose validation metric select='validation' uses"
        )
    if select is not None and probe is None:
        root, _, rest = str(check["metric"]).partition(".")
        named = [name for name in probes if root in ("evaluation", "untrained") and rest.startswith(f"{name}.")]
        if not named and len(probes) != 1:
            raise RecipeError(f"{place}.probe: say which probe's validation metric chooses ({', '.join(probes)})")
        probe = max(named, key=len) if named else probes[0]
    return select, probe


def _positions(place: str, check: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    if "along" not in check:
        return {}
    along, values = check["along"], check.get("along_values")
    if not isinstance(along, str) or along not in axes:
        raise RecipeError(f"{place}.along: {_one_of(along, axes)}")
    numbers = [_position(value) for value in axes[along]] if values is None else values
    if not isinstance(numbers, (list, tuple)) or len(numbers) != len(axes[along]) or not all(map(_is_number, numbers)):
        shown = ", ".join(short(value) for value in axes[along])
        raise RecipeError(
            f"{place}.along_values: give a list of {len(axes[along])} numbers, one a value of {along} ({shown}), "
            f"got {values!r}"
        )
    return {plain(value): at for value, at in zip(axes[along], numbers, strict=True)}


def _position(value: Any) -> float | None:
    """A number, or the number that a list has several times; None for anything else."""
    if isinstance(value, (list, tuple)) and value and all(item == value[0] for item in value):
        value = value[0]
    return value if _is_number(value) else None


def _choice(place: str, choice: Any, axes: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Each path's value or list of values as a list; a list that is itself a value of the axis is one value."""
    if not isinstance(choice, Mapping):
        raise RecipeError(f"{place} must be a dict of axis path → value or list of values, got {choice!r}")
    made = {}
    for path, value in choice.items():
        if path not in axes:
            raise RecipeError(f"{place}: {_one_of(path, axes)}")
        known = {plain(item) for item in axes[path]}
        values = [value] if plain(value) in known else value
        if not isinstance(values, (list, tuple)) or not values or not all(plain(item) in known for item in values):
            shown = ", ".join(short(item) for item in axes[path])
            raise RecipeError(f"{place}: {path} has no value {short(value)} in this ablation (values: {shown})")
        made[path] = list(values)
    return made


def _known(place: str, given: Mapping[str, Any], fields: Sequence[str], whose: str = "") -> None:
    for key in given:
        if key not in fields:
            known = ", ".join(fields)
            raise RecipeError(f"{place}.{key}: unknown field{whose}{suggest(key, list(fields))} ({known})")


def _text(place: str, value: Any, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value.strip() or empty) or "\n" in value.strip():
        raise RecipeError(f"{place} must be one line of text, got {value!r}")
    return value.strip()


def _one_of(value: Any, known: Any) -> str:
    return f"{value!r} is none of {', '.join(map(str, known))}{suggest(str(value), [str(item) for item in known])}"


def _is_number(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)
