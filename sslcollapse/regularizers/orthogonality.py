"""Other penalties that keep weights near orthogonality: SO, DSO and SRIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor

from sslcollapse.layers import Layer
from sslcollapse.regularizers.base import Network, WeightPenalty
from sslcollapse.regularizers.werank import GramSide, WERankPenalty, orthogonality_defects, same_shapes
from sslcollapse.spec import AtLeast, Coefficient


class SOPenalty(WERankPenalty):
    """Soft orthogonality: ‖WᵀW − I‖²_F of every layer, the paper's W being [in, out].

    The squared form of WERank. Its gradient does not depend on the side of the Gram.

    Args:
        coefficient: a number; ``{layer name or glob: number}``; ``dict(type="depth", ...)``;
            ``dict(type="schedule", ...)``.
        gram: ``"output"`` is the paper's [out, out] Gram, ``"input"`` the [in, in] one, ``"smaller"`` the
            smaller of the two. The larger one cannot get below |in − out|; see ``floor``.
        networks: whose layers are regularised.

    Source: Bansal et al. 2018; He et al. 2024 use coefficients of 1e-7 to 1e-5 in self-supervised learning.
    """

    def __init__(
        self,
        *,
        coefficient: Coefficient = 1e-6,
        gram: GramSide = "output",
        networks: Sequence[Network] = ("encoder",),
    ) -> None:
        super().__init__(coefficient=coefficient, squared=True, gram=gram, networks=networks)


class DSOPenalty(WeightPenalty):
    """Double soft orthogonality: ‖WᵀW − I‖²_F + ‖WWᵀ − I‖²_F of every layer.

    Computed from the smaller Gram S, since the two norms differ by |in − out|: 2 ‖S − I‖²_F + |in − out|. The gradient
    is therefore twice that of ``so``.

    Args:
        coefficient: a number; ``{layer name or glob: number}``; ``dict(type="depth", ...)``;
            ``dict(type="schedule", ...)``.
        networks: whose layers are regularised.

    Source: Bansal et al. 2018.
    """

    def __init__(self, *, coefficient: Coefficient = 1e-6, networks: Sequence[Network] = ("encoder",)) -> None:
        super().__init__(coefficient, networks)

    def forward(self, layers: Mapping[str, Layer]) -> Mapping[str, Tensor]:
        """Layers → layer name → sum of both squared norms."""
        weights = {name: layer.weight() for name, layer in layers.items()}
        squares = orthogonality_defects(weights, squared=True, gram="smaller")
        return {name: 2.0 * square + self.floor(layers[name]) for name, square in squares.items()}

    def floor(self, layer: Layer) -> float:
        """|in − out|."""
        return float(abs(layer.shape[0] - layer.shape[1]))


class SRIPPenalty(WeightPenalty):
    """Spectral restricted isometry: the largest |eigenvalue| of WᵀW − I of every layer, by power iteration.

    Formula: v ← (S − I) v, repeated; then ‖(S − I) v‖ / ‖v‖, with gradients through all of it; S is the smaller Gram
    by default. An estimate from below; products of matrices with vectors only, S is never formed. Every step starts
    from the same vector, cos k² for k = 1, 2, ..., so that a run repeats itself.

    Args:
        coefficient: a number; ``{layer name or glob: number}``; ``dict(type="depth", ...)``;
            ``dict(type="schedule", ...)``.
        iterations: of the power method before the last product.
        gram: ``"smaller"`` of the two Grams, ``"output"`` (the paper's WᵀW, [out, out]) or ``"input"``. The larger
            one has an eigenvalue −1 that no weight moves: there the penalty is at least 1, without gradient at 1.
        networks: whose layers are regularised.

    Raises:
        ValueError: for fewer than one iteration.

    Source: Bansal et al. 2018; He et al. 2024 use coefficients of 1e-5 to 1e-3 in self-supervised learning.
    """

    def __init__(
        self,
        *,
        coefficient: Coefficient = 1e-4,
        iterations: Annotated[int, AtLeast(1)] = 2,
        gram: GramSide = "smaller",
        networks: Sequence[Network] = ("encoder",),
    ) -> None:
        super().__init__(coefficient, networks)
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}")
        if gram not in ("output", "input", "smaller"):
            raise ValueError(f"gram must be 'output', 'input' or 'smaller', got {gram!r}")
        self.iterations = iterations
        self.gram = gram

    def forward(self, layers: Mapping[str, Layer]) -> Mapping[str, Tensor]:
        """Layers → layer name → largest |eigenvalue|."""
        weights = {name: layer.weight() for name, layer in layers.items()}
        values: dict[str, Tensor] = {}
        for names in same_shapes(weights):
            stack = weights[names[0]][None] if len(names) == 1 else torch.stack([weights[name] for name in names])
            sizes = isometry_defect(stack, self.iterations)  # [L]
            if self.floor(layers[names[0]]):
                sizes = sizes.clamp_min(1.0)
            values.update(zip(names, sizes.unbind(), strict=True))
        return {name: values[name] for name in weights}

    def floor(self, layer: Layer) -> float:
        """1 where the larger Gram is asked for, else 0."""
        out_dim, in_dim = layer.shape
        return float((self.gram == "output" and out_dim > in_dim) or (self.gram == "input" and in_dim > out_dim))


def isometry_defect(weights: Tensor, iterations: int = 2) -> Tensor:
    """Estimate of the largest |eigenvalue| of S − I, S being the smaller Gram: [L, out, in] → [L].

    Where S = I the gradient is zero. Half-precision weights are computed in float32.
    """
    with torch.autocast(weights.device.type, enabled=False):
        w = weights.to(torch.promote_types(weights.dtype, torch.float32))
        w = w.mT if w.shape[1] > w.shape[2] else w  # [L, n, m], n <= m
        steps = torch.arange(1, w.shape[1] + 1, dtype=torch.float64, device=w.device)
        v = torch.cos(steps.square()).to(w.dtype)[None, :, None].expand(w.shape[0], -1, 1)  # [L, n, 1]
        for _ in range(iterations):
            v = w @ (w.mT @ v) - v
            # The result depends on v's direction only, so that its length is brought to 1 as a constant.
            v = v / _length(v).detach()
        return (torch.linalg.vector_norm(w @ (w.mT @ v) - v, dim=1, keepdim=True) / _length(v))[:, 0, 0]


def _length(v: Tensor) -> Tensor:
    """‖v‖, at least so much that a zero vector can be divided by it: [L, n, 1] → [L, 1, 1]."""
    return torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp_min(1e-30)
