"""What every regularizer is: a penalty on weights, layer by layer, or on features, kind by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from sslcollapse.core.distributed import Gather
from sslcollapse.layers.map import Layer

Network = Literal["encoder", "projector", "predictor"]
Feature = Literal["representation", "embedding", "prediction"]
FEATURES: tuple[Feature, ...] = ("representation", "embedding", "prediction")


@dataclass(frozen=True)
class FeaturePoint:
    """Where a kind of feature stands among the others, as a layer does among layers."""

    depth: int


FEATURE_POINTS = {name: FeaturePoint(depth) for depth, name in enumerate(FEATURES)}


class WeightPenalty(nn.Module):
    """A penalty on the weight of each layer.

    Args:
        coefficient: any form that ``resolve_coefficient`` takes.
        networks: whose layers are regularised; by default the encoder's only, since an exactly orthogonal
            projector behaves like none (Jing et al. 2022).

    Raises:
        ValueError: for a network that is named twice.
    """

    def __init__(self, coefficient: Any, networks: Sequence[Network]) -> None:
        super().__init__()
        if len(set(networks)) < len(networks):
            raise ValueError(f"networks must name each network once, got {list(networks)!r}")
        self.coefficient = coefficient
        self.networks = tuple(networks)

    def forward(self, layers: Mapping[str, Layer]) -> Mapping[str, Tensor]:
        """Layers → layer name → unweighted penalty (scalar, float32 or wider)."""
        raise NotImplementedError

    def floor(self, layer: Layer) -> float:
        """The least value that the penalty of this layer can have."""
        return 0.0


class FeaturePenalty(nn.Module):
    """A penalty on the features of every online view: representation, embedding or prediction.

    Args:
        coefficient: any form that ``resolve_coefficient`` takes, the kinds of feature standing for layers
            (``{"representation": 25.0, "embedding": 0.0}``).
        on: which features are regularised.

    Raises:
        ValueError: for an ``on`` that is empty, names no kind of feature, or one twice.
    """

    couples_batch = True
    """Whether a sample's penalty depends on the other samples of the batch."""

    def __init__(self, coefficient: Any, on: Sequence[Feature]) -> None:
        super().__init__()
        unknown = [name for name in on if name not in FEATURES]
        if unknown or not on:
            raise ValueError(f"on must name some of {', '.join(FEATURES)}, got {list(on)!r}")
        if len(set(on)) < len(on):
            raise ValueError(f"on must name each kind of feature once, got {list(on)!r}")
        self.coefficient = coefficient
        self.on = tuple(on)

    def forward(self, features: Sequence[Tensor], gather: Gather, step: int = 0) -> Tensor:
        """One kind of feature, [N, d] a view → unweighted penalty (scalar, float32 or wider), a mean over views.

        ``gather`` brings the rows of all ranks together where they hold different samples. What is random is a function
        of ``step``, the optimiser step from 0, so that resuming repeats it and all ranks draw alike.
        """
        raise NotImplementedError
