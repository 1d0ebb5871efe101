"""A multi-layer perceptron: the encoder that ignores edges, for images or node features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from sslcollapse.nn.init import check_widths
from sslcollapse.nn.inputs import FeatureLinear, flat_features
from sslcollapse.nn.norm import ActivationName, NormAct, NormName
from sslcollapse.recipe.schema import Probability, Width


class MLP(nn.Module):
    """Linear layers, each followed by a normalisation and an activation; edges are ignored.

    Args:
        in_shape: number of features, or (features,), or of an image (channels, height, width), which is flattened.
        hidden: width of each layer; the last is the width of the representation.
        norm: ``"batch"``, ``"layer"``, ``"graph"`` or ``"none"``.
        norm_momentum: BatchNorm's momentum in torch's convention.
        activation: after each layer but the last.
        final_activation: after the last layer.
    """

    reads = ("graph", "image", "vector")

    def __init__(
        self,
        in_shape: int | Sequence[int],
        *,
        hidden: Sequence[Width] = (512, 256),
        norm: NormName = "batch",
        norm_momentum: Probability = 0.1,
        activation: ActivationName = "relu",
        final_activation: ActivationName = "none",
    ) -> None:
        super().__init__()
        in_dim = in_shape if isinstance(in_shape, int) else math.prod(in_shape)
        widths = [in_dim, *check_widths(hidden)]
        self.out_dim = widths[-1]
        self.layers = nn.ModuleList(FeatureLinear(a, b, bias=norm != "batch") for a, b in pairwise(widths))
        activations = [activation] * (len(self.layers) - 1) + [final_activation]
        self.norm_acts = nn.ModuleList(
            NormAct(width, norm, norm_momentum, act) for width, act in zip(widths[1:], activations, strict=True)
        )

    def reset_parameters(self) -> None:
        """Initialise all layers again."""
        for module in (*self.layers, *self.norm_acts):
            module.reset_parameters()

    def forward(self, view: Any) -> Tensor:
        """A tensor [N, ...] or a graph view of N nodes → [N, out_dim]."""
        x = flat_features(view)
        graph_index = getattr(view, "graph_index", None)
        for layer, norm_act in zip(self.layers, self.norm_acts, strict=True):
            x = norm_act(layer(x), graph_index)
        return x
