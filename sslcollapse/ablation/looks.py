"""Looks at the records of a growing ablation: planned before the first, stored in its plan, each spent once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sslcollapse.ablation.claims.judge import judge
from sslcollapse.ablation.files import NAME, looks_of, read_plan
from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.power import FEWEST_SEEDS, planned_looks
from sslcollapse.core.errors import RecipeError, RunError


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
        return looks_of(json.loads(text).get("looks", []))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        if '"looks"' not in text:
            return []  # the plan is written again
        raise RunError(f"{path}: damaged ({error}), and it has the looks that were planned; restore it") from error
