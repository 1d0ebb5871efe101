"""The cell that validation chooses, on other seeds than those that it is tested on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sslcollapse.ablation.tables.columns import best_of

T = TypeVar("T")

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
