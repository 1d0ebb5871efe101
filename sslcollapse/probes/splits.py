"""Train / validation / test divisions: made at random, checked, saved."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from sslcollapse.core.errors import DataError, RecipeError, suggest
from sslcollapse.core.types import ProbeSet, Split
from sslcollapse.core.untrusted import read_arrays

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitChoice:
    """Which splits a probe uses: those that a set has under a name, or random ones.

    Args:
        name: ``"random"``, or a name among the probe set's own splits.
        fractions: train, validation and test shares of random splits.
        repeats: number of random splits.
        seed: of the random splits, apart from the model's.

    Raises:
        ValueError: for an argument out of range.
    """

    name: str
    fractions: tuple[float, ...]
    repeats: int
    seed: int

    def __post_init__(self) -> None:
        check_fractions(self.fractions)
        if self.repeats < 1:
            raise ValueError(f"repeats must be >= 1, got {self.repeats}")
        if self.seed < 0:
            raise ValueError(f"split_seed must be >= 0, got {self.seed}")

    def count(self, probe_set: ProbeSet) -> int:
        """How many splits of a set are evaluated."""
        return self.repeats if self.name == "random" else len(probe_set.splits[self.name])

    def of(self, probe_set: ProbeSet) -> tuple[Split, ...]:
        """The splits of a set, checked.

        Raises:
            RecipeError: for a name that the set does not have.
            DataError: for a split whose parts overlap or leave the set.
        """
        n = len(probe_set.labels)
        if self.name == "random":
            splits = random_splits(n, self.fractions, self.repeats, self.seed)
        elif probe_set.splits.get(self.name):
            splits = tuple(probe_set.splits[self.name])
        else:
            known = [*(name for name, several in probe_set.splits.items() if several), "random"]
            raise RecipeError(
                f"this data set has no split {self.name!r}{suggest(self.name, known)} (known: {', '.join(known)})"
            )
        for k, split in enumerate(splits):
            try:
                check_split(split, n)
            except DataError as error:
                raise DataError(f"split {k} of {self.name!r}: {error}") from None
        return splits


def random_splits(
    labels_or_n: Any, fractions: Sequence[float] = (0.1, 0.1, 0.8), repeats: int = 20, seed: int = 0
) -> tuple[Split, ...]:
    """Uniformly random divisions, drawn from NumPy's own generator so that no model seed moves them.

    Split k depends on ``(seed, k)`` and the number of rows only, so more repeats keep the earlier ones.
    The parts cover every row when the fractions sum to 1.

    Args:
        labels_or_n: the labels (only their number counts) or the number of rows.
        fractions: shares of the train, validation and test part.
        repeats: how many splits.
        seed: of the splits, apart from the model's.

    Raises:
        ValueError: for fractions that are not three positive numbers summing to at most 1.
        DataError: when a part would be empty.
    """
    check_fractions(fractions)
    if repeats < 1:
        raise ValueError(f"repeats must be >= 1, got {repeats}")
    if seed < 0:
        raise ValueError(f"the seed of the splits must be >= 0, got {seed}")
    n = labels_or_n if isinstance(labels_or_n, int) else len(labels_or_n)
    ends = [round(n * sum(fractions[: k + 1])) for k in range(3)]
    sizes = [ends[0], ends[1] - ends[0], ends[2] - ends[1]]
    if min(sizes) < 1:
        raise DataError(
            f"{n} rows in fractions {list(fractions)} give parts of {sizes} rows; none may be empty: "
            f"use larger fractions or more rows"
        )
    splits = []
    for k in range(repeats):
        order = np.random.default_rng([seed, k]).permutation(n)
        parts = np.split(order[: ends[2]], ends[:2])
        splits.append(Split(*(np.sort(part) for part in parts)))
    return tuple(splits)


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise ValueError unless there are three positive fractions that sum to at most 1."""
    valid = len(fractions) == 3 and all(math.isfinite(f) and f > 0 for f in fractions)
    if not valid or sum(fractions) > 1 + 1e-9:
        raise ValueError(
            f"fractions must be three positive numbers (train, validation, test) that sum to at most 1, "
            f"got {list(fractions)}"
        )


def check_split(split: Split, n: int) -> None:
    """Make sure that no row is in two parts and that every row exists.

    Args:
        split: the division to check.
        n: rows of the set that it divides.

    Raises:
        DataError: names the part or parts, and how many rows are wrong.
    """
    for name in PARTS:
        rows = np.asarray(getattr(split, name))
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise DataError(
                f"the {name} part must be a vector of row numbers, got {rows.dtype} of shape {rows.shape}; "
                f"turn a mask into rows with mask.nonzero()[0]"
            )
        if len(rows) == 0:
            raise DataError(f"the {name} part is empty: every part needs at least one row")
        outside = rows[(rows < 0) | (rows >= n)]
        if len(outside):
            raise DataError(
                f"the {name} part has {len(outside)} rows outside 0..{n - 1}, the first is {outside[0]}; "
                f"the split belongs to another data set"
            )
        repeated = len(rows) - len(np.unique(rows))
        if repeated:
            raise DataError(f"the {name} part lists {repeated} rows more than once")
    for first, second in combinations(PARTS, 2):
        shared = np.intersect1d(getattr(split, first), getattr(split, second))
        if len(shared):
            raise DataError(
                f"the {first} and {second} parts share {len(shared)} rows, the first is {shared[0]}: "
                f"each row may be in one part only"
            )


def splits_to_arrays(splits: Mapping[str, Sequence[Split]]) -> dict[str, np.ndarray]:
    """Probe name → splits as int64 arrays named ``<probe>/<k>/<train|validation|test>``."""
    return {
        f"{probe}/{k}/{part}": np.asarray(getattr(split, part), dtype=np.int64)
        for probe, several in splits.items()
        for k, split in enumerate(several)
        for part in PARTS
    }


def save_splits(path: str | os.PathLike[str], splits: Mapping[str, Sequence[Split]]) -> None:
    """Write the splits of every probe to one npz, under a temporary name that is then renamed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:  # an open file, as a name would be given the suffix .npz
            np.savez_compressed(file, **splits_to_arrays(splits))  # type: ignore[arg-type]
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_splits(path: str | os.PathLike[str]) -> dict[str, tuple[Split, ...]]:
    """Read what :func:`save_splits` wrote: probe name → splits."""
    parts: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for key, rows in read_arrays(Path(path)).items():
        probe, k, part = key.rsplit("/", 2)
        parts.setdefault(probe, {}).setdefault(int(k), {})[part] = rows
    return {probe: tuple(Split(**several[k]) for k in sorted(several)) for probe, several in parts.items()}
