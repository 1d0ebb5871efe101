"""What every objective is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.precision import full_precision
from sslcollapse.core.types import Branch
from sslcollapse.nn.heads import Head
from sslcollapse.nn.init import check_samples, check_widths
from sslcollapse.nn.moments import widen
from sslcollapse.nn.norm import ActivationName, NormName


class Objective(nn.Module):
    """A loss over branches. It says which heads and target it needs; the module builds and owns them.

    Attributes:
        needs_target: whether the second argument of ``forward`` holds target branches.
        target_initialization: ``"own"`` (its own draw) or ``"copy"`` (of the online network).
        target_buffers: ``"own"`` (BatchNorm's running statistics of its own forward passes) or ``"copy"`` (the online
            network's, after each update).
        couples_batch: whether a sample's loss depends on the other samples of the batch. Every objective says it;
            ``sslcollapse.testing.check_objective`` compares it with what its loss does. It decides whether several
            batches may be accumulated in the place of one.
        needs_hidden: whether views must hide something, which a decoder finds again.
        reads: kinds of views that it is for; None for any.
        step: the optimiser step, from 0, that the next ``forward`` is for; set before each. What depends on it is a
            function of it, so that a resumed run repeats it.
        total_steps: how many steps there are.
    """

    needs_target: bool = False
    target_initialization: str = "copy"
    target_buffers: str = "own"
    couples_batch: bool | None = None
    needs_hidden: bool = False
    reads: tuple[str, ...] | None = None
    step: int = 0
    total_steps: int = 1

    def projector(self, in_dim: int) -> nn.Module | None:
        """A new projector for representations of this width, or None."""
        return None

    def predictor(self, in_dim: int) -> nn.Module | None:
        """A new predictor for embeddings of this width, or None."""
        return None

    def decoder(self, in_dim: int, in_shape: Sequence[int]) -> nn.Module | None:
        """A new decoder, which makes of (representations, view) what the view hides; None, the default, for none.

        Args:
            in_dim: width of the representation.
            in_shape: of one sample, as the domain says it.
        """
        return None

    def token(self, in_shape: Sequence[int]) -> Tensor | None:
        """Initial value of the learned vector that stands where a view hides a sample; None for none."""
        return None

    def momentum_at(self, step: int, total: int) -> float:
        """EMA momentum of the target after this optimiser step."""
        raise NotImplementedError(f"{type(self).__name__} has no target network")

    def forward(
        self, online: Sequence[Branch], target: Sequence[Branch] | None, gather: Gather
    ) -> Mapping[str, Tensor]:
        """Branches of each view → named losses (scalars), which are added up."""
        raise NotImplementedError


def embeddings_of_two_views(name: str, online: Sequence[Branch]) -> tuple[Tensor, Tensor]:
    """The embeddings z₁, z₂ [N, d] of exactly two views.

    Raises:
        RecipeError: for another number of views.
    """
    if len(online) != 2:
        raise RecipeError(f"{name} compares exactly two views of a sample, got {len(online)}; let the domain make two")
    return online[0].z, online[1].z


class StatisticsObjective(Objective):
    """What VICReg, Barlow Twins and CCA-SSG share: statistics of two views' embeddings over the samples of all ranks.

    Args:
        name: as messages call it.
        projector: width of each linear layer of the projector; empty for none.
        norm: after each layer of the projector but the last, which has neither normalisation nor bias: the loss
            does not change when the same vector is added to all embeddings.
        activation: after each layer of the projector but the last.
    """

    couples_batch = True

    def __init__(self, name: str, projector: Sequence[int], norm: NormName, activation: ActivationName) -> None:
        super().__init__()
        self.name = name
        self.widths = check_projector(projector)
        self.norm, self.activation = norm, activation

    def projector(self, in_dim: int) -> nn.Module | None:
        """Linear, normalisation and activation, repeated, then Linear."""
        if not self.widths:
            return None
        return Head(in_dim, *self.widths, norm=self.norm, activation=self.activation, last_bias=False)

    def forward(
        self, online: Sequence[Branch], target: Sequence[Branch] | None, gather: Gather
    ) -> Mapping[str, Tensor]:
        """Two online branches → the weighted terms of the loss, float32 or wider."""
        z1, z2 = embeddings_of_two_views(self.name, online)
        check_samples(self.name, len(z1) * gather.ranks)
        with full_precision(z1.device):
            return self.terms(*gather.views(widen(z1), widen(z2)))

    def terms(self, z1: Tensor, z2: Tensor) -> Mapping[str, Tensor]:
        """The embeddings of all samples, [N, d] each → named terms."""
        raise NotImplementedError


def check_projector(widths: Sequence[int]) -> list[int]:
    """A projector's widths as a list, which may be empty (no projector).

    Raises:
        ValueError: when one is not positive; quotes them.
    """
    return check_widths(widths, "projector") if widths else []


def check_weight(name: str, value: float) -> float:
    """A finite weight of a term, at least 0.

    Raises:
        ValueError: names the argument and quotes the value.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number >= 0, got {value}")
    return value
