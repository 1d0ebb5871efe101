"""What every objective is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.types import Branch


class Objective(nn.Module):
    """A loss over branches. It says which heads and target it needs; the module builds and owns them.

    Attributes:
        needs_target: whether the second argument of ``forward`` holds target branches.
        target_initialization: ``"own"`` (its own draw) or ``"copy"`` (of the online network).
        target_buffers: ``"own"`` (BatchNorm's running statistics of its own forward passes) or ``"copy"`` (the online
            network's, after each update).
        couples_batch: whether a sample's loss depends on the other samples of the batch.
    """

    needs_target: bool = False
    target_initialization: str = "copy"
    target_buffers: str = "own"
    couples_batch: bool = False

    def projector(self, in_dim: int) -> nn.Module | None:
        """A new projector for representations of this width, or None."""
        return None

    def predictor(self, in_dim: int) -> nn.Module | None:
        """A new predictor for embeddings of this width, or None."""
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


def check_samples(name: str, samples: int, minimum: int = 2) -> None:
    """Refuse a batch with fewer samples, over all ranks, than an objective can use.

    Raises:
        RecipeError: says how many there are and how many are needed.
    """
    if samples < minimum:
        raise RecipeError(
            f"{name} compares samples with each other and needs at least {minimum} in a batch, got {samples}; "
            "use a larger batch"
        )
