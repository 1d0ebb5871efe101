"""The encoder of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sslcollapse.core.errors import MissingDataError, RecipeError, in_words
from sslcollapse.core.registry import ENCODERS
from sslcollapse.layers.map import LayerError, layer_map
from sslcollapse.nn.init import initialize


def encoder_from_recipe(recipe: Mapping[str, Any], in_shape: Sequence[int]) -> Any:
    """The encoder of a resolved recipe, from torch's global random state.

    Raises:
        RecipeError: its constructor refuses the shape of the data, or it is not what an encoder has to be.
    """
    spec, scheme = recipe["encoder"], recipe.get("initialization")
    arguments = {key: value for key, value in spec.items() if key != "type"}
    own = ("pretrained", "decay", "initial_rank")
    overwritten = [name for name in own if not (arguments.get(name) is None or arguments[name] is False)]
    if scheme is not None and overwritten:
        raise RecipeError(f"initialization: {scheme!r} would overwrite encoder.{overwritten[0]}; leave one out")
    try:
        encoder = ENCODERS.get(spec["type"])(tuple(in_shape), **arguments)
        ENCODERS.check(encoder, spec["type"])
    except (MissingDataError, MemoryError):
        raise
    except Exception as error:  # only now has its constructor seen the shape of the data; it may check by failing
        raise RecipeError(f"encoder: {in_words(error)}") from error
    checked_width(encoder, "encoder")
    if scheme is not None:
        try:
            initialize(layer_map(encoder).values(), scheme)
        except LayerError as error:
            raise RecipeError(f"initialization: {error}") from error
    return encoder


def checked_width(network: Any, place: str) -> int:
    """The width of what a network puts out, as it says itself.

    Raises:
        RecipeError: it says none, or one that cannot be.
    """
    width = getattr(network, "out_dim", None)
    if not isinstance(width, int) or width < 1:
        raise RecipeError(
            f"{place}: {type(network).__name__}.out_dim must be the width of its output, a whole number >= 1, "
            f"got {width!r}"
        )
    return width
