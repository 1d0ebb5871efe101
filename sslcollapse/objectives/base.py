"""What every objective is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from sslcollapse.distributed import Gather
from sslcollapse.types import Branch


class Objective(nn.Module):
    """A loss over branches. It says which heads and target it needs; the module builds and owns them.

    Attributes:
        needs_target: whether the second argument of ``forward`` holds target branches.
        target_has_projector: whether the target network has its own copy of the projector.
        target_initialization: ``"own"`` (its own draw) or ``"copy"`` (of the online network).
        couples_batch: whether a sample's loss depends on the other samples of the batch.
    """

    needs_target: bool = False
    target_initialization: str = "copy"
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
