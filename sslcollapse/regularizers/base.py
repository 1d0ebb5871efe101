"""What every weight regularizer is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from sslcollapse.layers import Layer

Network = Literal["encoder", "projector", "predictor"]


class WeightPenalty(nn.Module):
    """A penalty on the weight of each layer.

    Args:
        coefficient: any form that ``resolve_coefficient`` takes.
        networks: whose layers are regularised; by default the encoder's only, since an exactly orthogonal
            projector behaves like none (Jing et al. 2022).
    """

    def __init__(self, coefficient: Any, networks: Sequence[Network]) -> None:
        super().__init__()
        self.coefficient = coefficient
        self.networks = tuple(networks)

    def forward(self, layers: Mapping[str, Layer]) -> Mapping[str, Tensor]:
        """Layers → layer name → unweighted penalty (scalar, float32 or wider)."""
        raise NotImplementedError

    def floor(self, layer: Layer) -> float:
        """The least value that the penalty of this layer can have."""
        return 0.0
