"""The toy domain: normally distributed samples without end, and views with additive noise in some dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.memory import onto
from sslcollapse.core.seeding import generator
from sslcollapse.core.types import Batch, Context, ProbeSet
from sslcollapse.domains.base import CPU, Domain, flat_rows
from sslcollapse.domains.sheet import write_sheet
from sslcollapse.recipe.schema import AtLeast, Probability, Weight, Width

PROBE_SAMPLES = 4096
"""Un-augmented samples that ranks are measured on; the same in every run."""

# Third integers of keys, so that no stream is one of (seed, step, rank); the probe set's has no seed.
_BATCHES, _PROBE_SET = 1 << 30, (1 << 30) + 1


@dataclass(frozen=True)
class NoiseViews:
    """How the two views of a sample are made: normally distributed noise is added to the last dimensions.

    Args:
        noise: standard deviation of the noise, where the data have 1.
        dims: how many dimensions get noise, from the last; None for all.
        strength: in [0, 1], multiplies the noise: 0 leaves samples as they are.

    Raises:
        RecipeError: a negative noise, no dimension, or a strength outside [0, 1].
    """

    noise: Weight = 1.0
    dims: Width | None = None
    strength: Probability = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.noise < float("inf"):
            raise RecipeError(f"noise: must be a finite number >= 0, got {self.noise}")
        if self.dims is not None and self.dims < 1:
            raise RecipeError(f"dims: must be >= 1, or None for all, got {self.dims}")
        if not 0.0 <= self.strength <= 1.0:
            raise RecipeError(f"strength: must be in [0, 1], got {self.strength}")


class ToyDomain(Domain):
    """Normally distributed samples N(0, I), drawn afresh each step: two views by additive noise.

    Args:
        data_root: not used; there are no files.
        dim: of a sample.
        views: how the views are made.
        batch_size: samples a step over all ranks.

    There are no labels, so recipes have ``evaluate=dict()``; what counts is rank. A view is a tensor [B, 1, dim], which
    encoders that flatten their input read (``linear``, ``mlp``).

    Source: Jing et al. 2022, section 4. Their code draws batches from 10,000 fixed samples.
    """

    kind = "vector"

    def __init__(
        self,
        data_root: Path,
        *,
        dim: Annotated[int, AtLeast(1)] = 16,
        views: NoiseViews = NoiseViews(),
        batch_size: Annotated[int, AtLeast(2)] = 128,
    ) -> None:
        self.dim, self.batch_size = dim, batch_size
        self.views = views if isinstance(views, NoiseViews) else NoiseViews(**views)
        self.noisy = dim if self.views.dims is None else self.views.dims
        if self.noisy > dim:
            raise RecipeError(f"domain.views.dims: {self.noisy} dimensions cannot get noise where samples have {dim}")
        self.in_shape = (1, dim)

    def describe(self) -> str:
        """One line on the data."""
        return f"normally distributed samples of {self.dim} dimensions, drawn afresh each step (no files)"

    def check(self, world_size: int) -> None:
        """Raise RecipeError for a batch size that ranks cannot share."""
        if self.batch_size % world_size:
            raise RecipeError(
                f"domain.batch_size: {self.batch_size} samples cannot be shared equally by {world_size} ranks; "
                f"use a multiple of {world_size}"
            )

    def batches(self, start_step: int, context: Context) -> Iterator[Batch]:
        """Endless batches; batch k depends on (seed, k) only, and each rank takes its slice of it.

        Samples are numbered in the order in which they are drawn, and never come twice.
        """
        self.check(context.world_size)
        share = self.batch_size // context.world_size
        own = slice(context.rank * share, (context.rank + 1) * share)
        step = start_step
        while True:
            # All is drawn on the host by every rank, so that neither devices nor their number change a sample.
            rng = generator(CPU, "toy samples", context.seed, step, _BATCHES)
            x = torch.randn(self.batch_size, 1, self.dim, generator=rng)
            views = [onto(context.device, self._noisy(x, rng)[own]) for _ in range(2)]
            index = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)[own]
            yield Batch(views, index, None, self.replicated, equal=True)
            step += 1

    def probe_set(self) -> ProbeSet:
        """Samples without noise, the same in every run; without labels and splits."""
        rng = generator(CPU, "toy samples", 0, 0, _PROBE_SET)
        x = torch.randn(PROBE_SAMPLES, 1, self.dim, generator=rng)
        return ProbeSet([x], torch.full((PROBE_SAMPLES,), -1), 0, {})

    def measurable(self, view: Tensor) -> Tensor | None:
        """Samples as rows, or None of very many dimensions."""
        return flat_rows(view)

    def draw(self, path: Path, samples: int, seed: int) -> None:
        """Write a picture with a row for each of some samples, as curves: itself, then four draws of its views."""
        x = torch.randn(samples, 1, self.dim, generator=generator(CPU, "sheet", seed))
        views = [x, *(self._noisy(x, generator(CPU, "sheet", seed, draw)) for draw in range(4))]
        write_sheet([[view[row] for view in views] for row in range(samples)], path)

    def _noisy(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """[B, 1, dim] → the same with noise in the last dimensions."""
        view = x.clone()
        noise = torch.randn(len(x), 1, self.noisy, generator=rng)
        view[..., self.dim - self.noisy :] += self.views.strength * self.views.noise * noise
        return view
