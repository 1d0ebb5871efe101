"""The stratified split that graphs and images of the same samples share."""

from __future__ import annotations

import numpy as np

from sslcollapse.core.errors import RecipeError
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
