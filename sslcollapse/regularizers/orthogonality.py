"""Other penalties that keep weights near orthogonality: SO, DSO and SRIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from sslcollapse.core.precision import full_precision
from sslcollapse.layers.map import Layer, weights
from sslcollapse.recipe.schema import Between, Coefficient, Distinct
from sslcollapse.regularizers.base import Network, WeightPenalty
from sslcollapse.regularizers.werank import (
    GramSide,
    WERankPenalty,
    check_gram,
    checked_weight,
    fitting,
    orthogonality_defects,
    overflowed,
    same_shapes,
    widened,
)


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
        networks: Annotated[Sequence[Network], Distinct()] = ("encoder",),
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

    def __init__(
        self, *, coefficient: Coefficient = 1e-6, networks: Annotated[Sequence[Network], Distinct()] = ("encoder",)
    ) -> None:
        super().__init__(coefficient, networks)

    def forward(self, layers: Mapping[str, Layer]) -> Mapping[str, Tensor]:
        """Layers → layer name → sum of both squared norms."""
        squares = orthogonality_defects(weights(layers), squared=True, gram="smaller")
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
        iterations: Annotated[int, Between(1, 1000)] = 2,
        gram: GramSide = "smaller",
        networks: Annotated[Sequence[Network], Distinct()] = ("encoder",),
    ) -> None:
        super().__init__(coefficient, networks)
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}")
        check_gram(gram)
        self.iterations = iterations
        self.gram = gram

    def forward(self, layers: Mapping[str, Layer]) -> Mapping[str, Tensor]:
        """Layers → layer name → largest |eigenvalue|."""
        matrices = {name: checked_weight(weight, name) for name, weight in weights(layers).items()}
        values: dict[str, Tensor] = {}
        for names in same_shapes(matrices):
            stack = matrices[names[0]][None] if len(names) == 1 else torch.stack([matrices[name] for name in names])
            sizes = isometry_defect(stack, self.iterations)  # [L]
            if self.floor(layers[names[0]]):
                sizes = sizes.clamp_min(1.0)
            values.update(zip(names, sizes.unbind(), strict=True))
        return {name: values[name] for name in matrices}

    def floor(self, layer: Layer) -> float:
        """1 where the larger Gram is asked for, else 0."""
        out_dim, in_dim = layer.shape
        return float((self.gram == "output" and out_dim > in_dim) or (self.gram == "input" and in_dim > out_dim))


def isometry_defect(weights: Tensor, iterations: int = 2) -> Tensor:
    """Estimate of the largest |eigenvalue| of S − I, S being the smaller Gram: [L, out, in] → [L].

    Where S = I the gradient is zero. Of complex weights Wᴴ stands for Wᵀ. Half-precision weights are computed in
    float32; on a CPU, what overflows there in float64. The gradient can be differentiated again.
    """
    with full_precision(weights.device):
        values = _isometry_defect(widened(weights), iterations)
        if overflowed(values):
            values = fitting(_isometry_defect(widened(weights, torch.float64), iterations))
        return values


def _isometry_defect(w: Tensor, iterations: int) -> Tensor:
    return _IsometryDefect.apply(w if w.shape[1] <= w.shape[2] else w.mH, iterations)


class _IsometryDefect(torch.autograd.Function):
    """v_0 fixed; y_k = wᴴv_k, u_k = w y_k − v_k, v_{k+1} = u_k / ‖u_k‖; value ‖u_K‖ / ‖v_K‖: [L, n, m] → [L].

    The value depends on v_K's direction only, so that lengths are constants in the gradient. It goes back through
    u_k: ∂w += ū_k y_kᴴ + v_k (wᴴū_k)ᴴ and v̄_k = w wᴴū_k − ū_k. All these outer products are one product of matrices
    with 2 (K + 1) columns, where autograd would write and add as many full-size gradients.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, iterations: int) -> Tensor:
        vectors, images, lengths, change = _power_iteration(w, iterations)
        ctx.iterations = iterations
        ctx.save_for_backward(w, *vectors, *images, *lengths)
        sizes = torch.linalg.vector_norm(change, dim=1)[:, 0]
        # A vector with an infinite length became zero, which would look like S = I.
        return torch.where(torch.isfinite(torch.stack(lengths).sum(0)[:, 0, 0]), sizes, torch.inf)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        w, *saved = ctx.saved_tensors
        count = len(saved) // 3
        vectors, images, lengths = saved[: count + 1], saved[count + 1 : 2 * count + 1], saved[2 * count + 1 :]
        with full_precision(w.device):
            if torch.is_grad_enabled():  # to be differentiated again: what was kept does not know where it comes from
                vectors, images, lengths, _ = _power_iteration(w, ctx.iterations)
            to_change = grad[:, None, None] * vectors[-1]  # ∂value / ∂u_K = u_K / ‖u_K‖
            left, right = [], []
            for k in reversed(range(count)):
                back = w.mH @ to_change
                left += [to_change, vectors[k]]
                right += [images[k], back]
                if k:
                    to_vector = w @ back - to_change
                    if k == count - 1:  # the value's division by ‖v_K‖ = 1
                        to_vector = to_vector - grad[:, None, None] * lengths[-1] * vectors[k]
                    to_change = to_vector / lengths[k - 1]
            return torch.cat(left, dim=2) @ torch.cat(right, dim=2).mH, None


def _power_iteration(w: Tensor, iterations: int) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
    """All v_k, y_k and ‖u_k‖, and the last u_k. Every v but the first has length 1, or is zero where S = I."""
    steps = torch.arange(1, w.shape[1] + 1, dtype=torch.float64, device=w.device)
    start = torch.cos(steps.square()).to(w.dtype)
    vectors, images, lengths = [(start / _length(start))[None, :, None].expand(len(w), -1, 1)], [], []
    for _ in range(iterations + 1):
        images.append(w.mH @ vectors[-1])
        change = w @ images[-1] - vectors[-1]
        lengths.append(_length(change, dim=1))
        vectors.append(change / lengths[-1])
    return vectors, images, lengths, change


def _length(v: Tensor, dim: int = 0) -> Tensor:
    """‖v‖ along a dimension that is kept, at least so much that a zero vector can be divided by it."""
    return torch.linalg.vector_norm(v, dim=dim, keepdim=True).clamp_min(1e-30)
