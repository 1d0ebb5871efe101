"""Weights that are computed from stored tensors: held for a step, and of matrices that are rows of one tensor."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils import parametrize


class Chain(parametrize.ParametrizationList):
    """Parametrizations of a tensor, which may hold what they have computed."""

    held: Tensor | None = None

    def forward(self) -> Tensor:
        """The weight."""
        return super().forward() if self.held is None else self.held


class Matrices(nn.Module):
    """Parametrizations of matrices whose rows are those of one tensor, stored as [out, in].

    Args:
        shape: of the tensor as it is used.
        parts: rows, and the parametrization of the matrix that they are; rows of none stay as they are.
    """

    def __init__(self, shape: Sequence[int], parts: Sequence[tuple[Tensor, nn.Module]]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.parts = nn.ModuleList(part for _, part in parts)
        for number, (rows, _) in enumerate(parts):
            self.register_buffer(f"rows{number}", rows, persistent=False)

    def forward(self, stored: Tensor) -> Tensor:
        """[out, in] → the weight as it is used."""
        for number, part in enumerate(self.parts):
            rows = self.get_buffer(f"rows{number}")
            stored = stored.index_copy(0, rows, part(stored[rows]))
        return stored.view(self.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is stored for a weight."""
        stored = weight.flatten(1)
        for number, part in enumerate(self.parts):
            rows, inverse = self.get_buffer(f"rows{number}"), part.right_inverse
            stored = stored.index_copy(0, rows, inverse(stored[rows]))  # type: ignore[operator]
        return stored
