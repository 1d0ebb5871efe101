"""A deep linear network: what over-parameterisation does to rank can be calculated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

from torch import Tensor, nn

from sslcollapse.nn.init import check_rank, check_widths, decaying_spectrum_, truncate_rank_
from sslcollapse.nn.inputs import FeatureLinear, flat_features
from sslcollapse.recipe.schema import AtLeast, Width


class DeepLinear(nn.Module):
    """A product of weights, W_L ⋯ W_2 W_1 x: linear layers with nothing between them; edges are ignored.

    Args:
        in_shape: number of features, or (features,), or of another sample, which is flattened.
        hidden: width of each layer; the last is the width of the representation.
        bias: whether layers have one.
        decay: initial singular values of each weight are exp(−decay · k), with singular vectors that are uniformly
            distributed and independent of other weights'; by default torch's initialisation of a linear layer.
        initial_rank: all but this many singular values of each initial weight are zero, by rows that are zero.

    Raises:
        ValueError: for an empty or non-positive ``hidden``, a negative ``decay``, or an ``initial_rank`` out of range.

    Source: Saxe et al. 2014; Jing et al. 2022, section 5, with ``hidden=[16, 16], decay=0.35``.
    """

    reads = ("graph", "image", "vector")

    def __init__(
        self,
        in_shape: int | Sequence[int],
        *,
        hidden: Sequence[Width] = (16, 16),
        bias: bool = False,
        decay: Annotated[float, AtLeast(0)] | None = None,
        initial_rank: Width | None = None,
    ) -> None:
        super().__init__()
        if decay is not None and not (decay >= 0 and math.isfinite(decay)):
            raise ValueError(f"decay must be a finite number >= 0, or None, got {decay}")
        in_dim = in_shape if isinstance(in_shape, int) else math.prod(in_shape)
        widths = [in_dim, *check_widths(hidden)]
        self.out_dim = widths[-1]
        self.decay, self.initial_rank = decay, check_rank(initial_rank, widths)
        self.layers = nn.ModuleList(FeatureLinear(a, b, bias=bias) for a, b in pairwise(widths))
        self._shape_spectra()

    def reset_parameters(self) -> None:
        """Initialise all layers again."""
        for layer in self.layers:
            layer.reset_parameters()
        self._shape_spectra()

    def forward(self, view: Any) -> Tensor:
        """A tensor [N, ...] or a graph view of N nodes → [N, out_dim]."""
        x = flat_features(view)
        for layer in self.layers:
            x = layer(x)
        return x

    def _shape_spectra(self) -> None:
        for layer in self.layers:
            if self.decay is not None:
                decaying_spectrum_(layer.weight, self.decay)
            if self.initial_rank is not None:
                truncate_rank_(layer.weight, self.initial_rank)
