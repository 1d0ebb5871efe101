"""Experiment trackers: what Accelerate knows and what is installed, told before a run starts."""

from __future__ import annotations

from collections.abc import Sequence

from sslcollapse.core.errors import RecipeError, suggest

EXTRA = ("tensorboard", "wandb")
"""Trackers that this package's extra ``trackers`` installs."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that Accelerate does not know, or would leave out in silence since they are not installed.

    Raises:
        RecipeError: suggests the nearest known one, or says what to install.
    """
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    known = sorted(["all", *LOGGER_TYPE_TO_CLASS])
    installed = {"all"} | {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in known:
            raise RecipeError(
                f"train.trackers: unknown tracker {name!r}{suggest(name, known)} (known: {', '.join(known)})"
            )
        if name in LoggerType.list() and name not in installed:  # the others are registered classes
            package = '"sslcollapse[trackers]"' if name in EXTRA else name.replace("_", "-")
            raise RecipeError(f"train.trackers: {name!r} is not installed; install it with: pip install {package}")
