"""Which cells each test of a claim is made of, and which of several validation chooses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sslcollapse.ablation.claims.schema import LEAST_CELLS, Check, Choice, Claim
from sslcollapse.ablation.statistics.intervals import Summary, rounded, summarise
from sslcollapse.ablation.values import Cell, labelled, layer_width, plain
from sslcollapse.core.errors import RecipeError

T = TypeVar("T")


@dataclass(frozen=True)
class ClaimPoint:
    """The cells at one place of a test; validation chooses where a side has several.

    Attributes:
        cells: candidates; of a correlation, all of its cells.
        against: candidates to be subtracted, or none.
        position: along the axis of a slope or a trend.
    """

    cells: Sequence[Cell]
    against: Sequence[Cell] = ()
    position: float | None = None


@dataclass(frozen=True)
class Planned:
    """One test of a check: of one combination of the axes that are not compared.

    Attributes:
        group: that combination, for people.
        compared: paths in which cells differ from what is subtracted.
    """

    check: Check
    group: str
    compared: Sequence[str]
    points: Sequence[ClaimPoint]

    @property
    def every(self) -> list[Cell]:
        """All cells that it needs, candidates among them, each once."""
        cells = (cell for point in self.points for cell in (*point.cells, *point.against))
        return list({cell.hash: cell for cell in cells}.values())

    @property
    def widening(self) -> float:
        """Of the standard error, where validation may have to choose."""
        chosen = any(len(side) > 1 for point in self.points for side in (point.cells, point.against))
        return WIDENING if self.check.select and chosen else 1.0

    def label(self, cell: Cell) -> str:
        """What sets a cell apart within its group: ``lr=0.2``."""
        return ", ".join(_named(cell, path) for path in self.compared)


def planned(claim: Claim, cells: Sequence[Cell], axes: Sequence[tuple[str, ...]]) -> list[Planned]:
    """The tests of all checks of a claim.

    Raises:
        RecipeError: a check matches no cells, or more than one where one is meant.
    """
    return [
        test
        for index, check in enumerate(claim.checks)
        for test in _tests(f"claim.checks[{index}]", check, cells, [("base",), *axes])
    ]


def _tests(place: str, check: Check, cells: Sequence[Cell], axes: Sequence[tuple[str, ...]]) -> list[Planned]:
    compared = _moving_with(check.against, axes)
    along = _moving_with([check.along], axes)
    if set(compared) & set(along):
        raise RecipeError(f"{place}.along: {check.along} is an axis that `against` compares; take another")
    pool = [cell for cell in cells if _matches(cell, check.where)]
    own = [cell for cell in pool if _matches(cell, check.cell)]
    different = [cell for cell in own if not (check.against and _matches(cell, check.against))]
    if not different or not (check.select and set(check.cell) & set(compared)):
        own = different  # else validation may also choose what is subtracted, if it is named
    outside = {path: values for path, values in check.cell.items() if path not in compared}
    other = (
        [cell for cell in pool if _matches(cell, check.against) and _matches(cell, outside)] if check.against else []
    )
    if not own or (check.against and not other):
        missing = "against" if own else "cell" if check.cell else "where"
        raise RecipeError(f"{place}.{missing}: no cell of the ablation is left to {_USES[check.kind]}")
    free = [path for axis in axes for path in axis if path not in (*compared, *along)]
    group_paths = ["base"] if check.kind == "correlation" else free
    tests = []
    for group, members in _by(own, group_paths).items():
        opposite = _by(other, group_paths).get(group, [])
        if check.against and not opposite:
            raise RecipeError(f"{place}.against: no cell to compare {members[0].name} with")
        title = _title(members[0], group_paths, cells)
        for left, right in _sides(check, members, opposite, compared):
            tests.append(Planned(check, title, compared, _points(place, check, left, right, compared)))
    return tests


_USES = {
    "difference": "take a difference of",
    "slope": "take a slope of",
    "trend": "follow",
    "correlation": "correlate",
}


def _sides(
    check: Check, cells: Sequence[Cell], against: Sequence[Cell], compared: Sequence[str]
) -> list[tuple[list[Cell], list[Cell]]]:
    """One pair of sides where validation chooses; else one for every pair of values of the compared axes."""
    if check.select or not compared:
        return [(list(cells), list(against))]
    lefts, rights = _by(cells, compared).values(), _by(against, compared).values()
    return [(left, right) for left in lefts for right in rights]


def _points(
    place: str, check: Check, cells: Sequence[Cell], against: Sequence[Cell], compared: Sequence[str]
) -> list[ClaimPoint]:
    if check.kind == "correlation":
        if len(cells) < LEAST_CELLS:
            raise RecipeError(f"{place}: a correlation needs at least {LEAST_CELLS} cells of a base, got {len(cells)}")
        return [ClaimPoint(cells)]
    if not check.along:
        return [ClaimPoint(cells, against)]
    there, opposite = _by(cells, [check.along]), _by(against, [check.along])
    for found in (*there.values(), *opposite.values()):
        if len(_by(found, compared)) != len(found):
            raise RecipeError(f"{place}.along: {found[0].name} is not alone at its value; choose some with `where`")
    points = [ClaimPoint(there[key], opposite.get(key, []), check.positions[key[0]]) for key in there]
    if len({point.position for point in points}) < 2:
        raise RecipeError(f"{place}.along: a {check.kind} needs at least 2 values of {check.along}")
    return points


def _moving_with(paths: Iterable[str], axes: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """All paths of the axes that have one of these."""
    wanted = set(paths)
    return tuple(path for axis in axes if wanted & set(axis) for path in axis)


def _matches(cell: Cell, choice: Choice) -> bool:
    return all(plain(cell.at(path)) in map(plain, values) for path, values in choice.items())


def _by(cells: Sequence[Cell], paths: Sequence[str]) -> dict[tuple[str, ...], list[Cell]]:
    """Cells by their values at some paths, in the order of the cells."""
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        found.setdefault(tuple(plain(cell.at(path)) for path in paths), []).append(cell)
    return found


def _title(cell: Cell, paths: Sequence[str], cells: Sequence[Cell]) -> str:
    """The values by which a group differs from others; the base recipe's label where there are none."""
    telling = [path for path in paths if len(_by(cells, [path])) > 1]
    return ", ".join(_named(cell, path) for path in telling) or cell.base


def _named(cell: Cell, path: str) -> str:
    """``lr=0.2``; without the axis where the value says it (``werank(coefficient=0.01)``, ``8 layers of 256``)."""
    last, value = path.rpartition(".")[2], labelled(path, cell.at(path))
    itself = path == "base" or value.startswith(f"{last}(") or layer_width(path, cell.at(path)) is not None
    return value if itself else f"{last}={value}"


WIDENING = math.sqrt(1.36)
r"""By what an interval is widened where validation has chosen.

Each half of the seeds is tested on the cell that the other half has chosen, so a half's mean is that of a fixed cell.
But each half also had a part in the other's choice, and the two means go together. Of K equal cells with independent
normal noise they are correlated by :math:`r^2 e_K^2 / (K - 1)`, where r is the correlation of validation and test and
:math:`e_K` the expected maximum of K normal numbers. That is at most 0.36, at r = 1 and K = 3, and widens the
standard error of the mean by :math:`\sqrt{1.36}`.
"""


@dataclass(frozen=True)
class Chosen(Generic[T]):
    """What is taken of several candidates.

    Attributes:
        halves: what even and what odd seeds are tested on; None where the other half of the seeds could not choose.
        crossed: whether there was a choice, on other seeds than are tested.
        same: whether the choice had to be made on the seeds that are tested, since there is only one.
    """

    halves: tuple[T | None, T | None]
    crossed: bool = False
    same: bool = False

    @property
    def every(self) -> list[T]:
        """What was taken, each once."""
        first, second = self.halves
        known = [each for each in (first, second) if each is not None]
        return known[:1] if first is second else known

    def records(self, of: Callable[[T], Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
        """Each seed's record of what that seed is tested on."""
        return [
            record
            for half, taken in enumerate(self.halves)
            if taken is not None
            for record in of(taken)
            if record["seed"] % 2 == half
        ]


def choose(candidates: Sequence[tuple[T, Mapping[int, float]]]) -> Chosen[T] | None:
    """The best of candidates by their mean over the seeds that all have: for even seeds by odd ones, and vice versa.

    Args:
        candidates: each with seed → its validation metric; those without any are left out.
    """
    known = [(candidate, values) for candidate, values in candidates if values]
    if not known:
        return None
    seeds = set.intersection(*(set(values) for _, values in known))
    best = best_of([(candidate, {seed: values[seed] for seed in seeds}) for candidate, values in known])
    if best is None:
        return None
    if len(known) == 1:
        return Chosen((best[0], best[0]))
    halves = []
    for half in (0, 1):
        others = {seed for seed in seeds if seed % 2 != half}
        taken = best_of([(candidate, {seed: values[seed] for seed in others}) for candidate, values in known])
        halves.append(taken[0] if taken else None)
    first, second = halves
    if len(seeds) == 1:
        return Chosen((best[0], best[0]), same=True)
    return Chosen((first, second), crossed=True)


def best_of(candidates: Sequence[tuple[T, Mapping[int, float]]]) -> tuple[T, Summary] | None:
    """The candidate with the highest mean, over the seeds that all candidates with values have; of equals the first."""
    known = [(candidate, values) for candidate, values in candidates if values]
    seeds = sorted(set.intersection(*(set(values) for _, values in known))) if known else []
    means = [(candidate, summarise([values[seed] for seed in seeds])) for candidate, values in known]
    scored = [(candidate, summary) for candidate, summary in means if summary is not None]
    return max(scored, key=lambda pair: rounded(pair[1].mean), default=None)
