"""What every regularizer is: a penalty on weights, layer by layer, or on features, kind by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from sslcollapse.core.distributed import Gather
from sslcollapse.layers.map import HEADS, Layer, select

Network = Literal["encoder", "projector", "predictor", "decoder"]
FEATURES = ("representation", "embedding", "prediction")


OUTSIDE = tuple(f"{head}." for head in HEADS)
"""How the names of layers outside the encoder begin."""


def chosen_layers(layers: Mapping[str, Layer], patterns: Sequence[str]) -> dict[str, Layer]:
    """The layers that names or globs choose, in their order; a glob is of the encoder's, unless it names a head.

    Raises:
        LayerError: one of them matches nothing; the message lists the layers.
    """
    encoder = {name: layer for name, layer in layers.items() if not name.startswith(OUTSIDE)}
    found: set[str] = set()
    for pattern in patterns:
        found |= select(layers if pattern.startswith(OUTSIDE) else encoder, pattern).keys()
    return {name: layer for name, layer in layers.items() if name in found}


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
    """A penalty on the features of every online view: representation, embedding, prediction, or outputs of layers.

    Args:
        coefficient: any form that ``resolve_coefficient`` takes, the kinds of feature standing for layers beside those
            that are named (``{"representation": 25.0, "layers.*": 1.0}``).
        on: which features are regularised: ``"representation"``, ``"embedding"``, ``"prediction"``, or layers by name
            or glob, whose outputs are meant. A glob is of the encoder's layers, unless it begins with ``projector.`` or
            ``predictor.``. Of an output with several positions a sample, rows are positions (``LayerOutputs.rows``).

    Raises:
        ValueError: for an ``on`` that is empty, or names one twice.
    """

    couples_batch = True
    """Whether a sample's penalty depends on the other samples of the batch."""

    def __init__(self, coefficient: Any, on: Sequence[str]) -> None:
        super().__init__()
        if not on or isinstance(on, str):
            raise ValueError(f"on must be a list of {', '.join(FEATURES)}, layers or globs of layers, got {on!r}")
        if len(set(on)) < len(on):
            raise ValueError(f"on must name each kind of feature or layer once, got {list(on)!r}")
        self.coefficient = coefficient
        self.on = tuple(on)

    def forward(self, features: Sequence[Tensor], gather: Gather, step: int = 0) -> Tensor:
        """One kind of feature, [N, d] a view → unweighted penalty (scalar, float32 or wider), a mean over views.

        ``gather`` brings the rows of all ranks together where they hold different samples. What is random is a function
        of ``step``, the optimiser step from 0, so that resuming repeats it and all ranks draw alike.
        """
        raise NotImplementedError
