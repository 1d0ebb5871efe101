"""What a run needs before its first step: Accelerate, its trackers, and the parts that everything else is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import InitProcessGroupKwargs

from sslcollapse.core.distributed import gathering
from sslcollapse.core.errors import RecipeError, RunError, suggest
from sslcollapse.core.precision import numerics
from sslcollapse.core.types import Context
from sslcollapse.domains.base import Domain
from sslcollapse.recipe.identity import unlike
from sslcollapse.runs.directory import RunDirectory
from sslcollapse.training.module import SSLModule
from sslcollapse.training.progress import Reporter

EXTRA = ("tensorboard", "trackio", "wandb")
"""Trackers that this package's extra ``trackers`` installs."""


@dataclass(frozen=True)
class Setup:
    """The parts of one run, on this rank.

    Attributes:
        recipe: resolved.
        run: its directory.
        accelerator: the only one of the process.
        domain: with its data loaded.
        module: all networks, as one module.
    """

    recipe: Mapping[str, Any]
    run: RunDirectory
    accelerator: Accelerator
    domain: Domain
    module: SSLModule

    @property
    def main(self) -> bool:
        """Whether this is rank 0, which alone writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return int(self.recipe["train"]["steps"])

    @property
    def context(self) -> Context:
        """Seed, rank, world size and device, as batches depend on them."""
        accelerator = self.accelerator
        return Context(self.recipe["seed"], accelerator.process_index, accelerator.num_processes, accelerator.device)

    @cached_property
    def reporter(self) -> Reporter:
        """What shows the run in the terminal and keeps it in its log."""
        return Reporter(self.main, self.run.log)


@contextmanager
def accelerated(recipe: Mapping[str, Any], run: RunDirectory) -> Iterator[Accelerator]:
    """Accelerate and the precision of one run; both hold for the process, and are put back at the end.

    Raises:
        RunError: the process has an Accelerator of another precision, there is no GPU for this one, or the processes of
            the run have not met.
    """
    ours, precision = not is_initialized(), recipe["train"]["precision"]
    if not ours and (theirs := AcceleratorState().mixed_precision) != precision:
        raise RunError(
            f"train.precision is {precision!r}, and this process has an Accelerator with mixed_precision={theirs!r}, "
            f"which holds for the whole process; give it {precision!r}, or train in another process"
        )
    minutes = recipe["train"]["timeout_minutes"]
    # A microsecond more, since Accelerate leaves out what equals its own default, which is NCCL's and not gloo's.
    group = InitProcessGroupKwargs(timeout=timedelta(minutes=minutes, microseconds=1))
    try:
        with gathering(minutes):
            accelerator = Accelerator(
                cpu=not torch.cuda.is_available(),
                mixed_precision=precision,
                log_with=list(recipe["train"]["trackers"]) or None,
                project_dir=str(run.path),
                kwargs_handlers=[group],
            )
        if precision == "fp16" and accelerator.device.type == "cpu":  # which Accelerate would pass over in silence
            raise RunError("train.precision: 'fp16' needs a GPU; on a processor use 'bf16' or 'no'")
        with numerics(recipe["train"], accelerator.device):
            yield accelerator
    finally:
        if ours:
            AcceleratorState._reset_state()


def check_alike(recipes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse processes of one run that were given different recipes, which would train something that is neither.

    Args:
        recipes: resolved, of every rank; where the data are may differ between hosts.

    Raises:
        RunError: names the first rank that differs from rank 0, and in what.
    """
    for number, other in enumerate(recipes):
        if found := unlike(recipes[0], other):
            raise RunError(
                f"rank {number} was given another recipe than rank 0 ({'; '.join(found)}, where here is rank 0); start "
                "every process with the same recipe file and the same changes"
            )


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
