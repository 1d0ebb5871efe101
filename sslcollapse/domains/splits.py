"""Splits by class: the one that graphs and images of the same samples share, and the one of any labelled samples."""

from __future__ import annotations

import numpy as np

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.core.types import Split

DIGITS = 1797
SMALLEST_DIGIT_CLASS = 174


def stratified_split(labels: np.ndarray, train: int, validation: int, seed: int) -> Split:
    """``train`` and ``validation`` samples of each class, drawn with this seed; the rest is test."""
    rng = np.random.default_rng([seed, 1])
    orders = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    cuts = (slice(train), slice(train, train + validation), slice(train + validation, None))
    return Split(*(np.sort(np.concatenate([order[cut] for order in orders])) for cut in cuts))


def check_parts(train: int, validation: int, smallest_class: int, samples: str) -> None:
    """Refuse ``train_per_class`` and ``validation_per_class`` that leave a part without samples of a class.

    Raises:
        RecipeError: names the argument and its value.
    """
    for name, number in (("train_per_class", train), ("validation_per_class", validation)):
        if number < 1:
            raise RecipeError(f"{name} must be >= 1, got {number}")
    if train + validation >= smallest_class:
        raise RecipeError(
            f"train_per_class {train} and validation_per_class {validation} leave no test {samples} in a class "
            f"of {smallest_class}"
        )


def fraction_split(labels: np.ndarray, train: float = 0.8, validation: float = 0.1, seed: int = 0) -> Split:
    """These shares of each class (of several labels a row: of all rows), drawn with this seed; the rest is test.

    Rows of class -1 are in no part.

    Raises:
        DataError: a part is empty.
    """
    rng = np.random.default_rng([seed, 2])
    classes = np.zeros(len(labels), dtype=np.int64) if labels.ndim == 2 else labels
    parts: list[list[np.ndarray]] = [[], [], []]
    for c in np.unique(classes[classes >= 0]):
        rows = rng.permutation(np.flatnonzero(classes == c))
        cuts = [round(train * len(rows)), round((train + validation) * len(rows))]
        for part, chosen in zip(parts, np.split(rows, cuts), strict=True):
            part.append(chosen)
    joined = [np.sort(np.concatenate(part)) if part else np.arange(0) for part in parts]
    if not all(len(part) for part in joined):
        raise DataError(
            f"{len(labels)} labels give parts of {[len(part) for part in joined]} rows to train on, validate and test; "
            "none may be empty: give splits of your own"
        )
    return Split(*joined)
