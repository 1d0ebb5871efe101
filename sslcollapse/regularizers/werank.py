"""WERank: weights are kept near orthogonality, so that no layer loses rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from sslcollapse.gram import gram_matrix
from sslcollapse.layers import Layer
from sslcollapse.regularizers.base import Network, WeightPenalty
from sslcollapse.spec import Coefficient, Distinct

GramSide = Literal["output", "input", "smaller"]


class WERankPenalty(WeightPenalty):
    """‖WᵀW − I‖_F of every layer, the paper's W being [in, out]; weighted by one coefficient a layer.

    Args:
        coefficient: a number; ``{layer name or glob: number}``; ``dict(type="depth", ...)``;
            ``dict(type="schedule", ...)``.
        squared: penalise the squared norm. The paper's norm is not squared; the squared form's gradient is
            2‖·‖_F times as long.
        gram: ``"output"`` is the paper's [out, out] Gram, ``"input"`` the [in, in] one, ``"smaller"`` the
            smaller of the two. The larger one cannot get below √|in − out|; see ``floor``.
        networks: whose layers are regularised.

    Source: Saheb Pasand et al. 2024, arXiv 2402.09586.

    A singular value that is exactly zero gets no gradient: the gradient is 4 (W Wᵀ − I) W for the squared form,
    whose singular values are 4 (σ² − 1) σ. WERank prevents the loss of rank, it cannot repair it.
    """

    def __init__(
        self,
        *,
        coefficient: Coefficient = 1e-2,
        squared: bool = False,
        gram: GramSide = "output",
        networks: Annotated[Sequence[Network], Distinct()] = ("encoder",),
    ) -> None:
        super().__init__(coefficient, networks)
        self.squared = squared
        self.gram = gram

    def forward(self, layers: Mapping[str, Layer]) -> Mapping[str, Tensor]:
        """Layers → layer name → ‖WᵀW − I‖_F or its square."""
        weights = {name: layer.weight() for name, layer in layers.items()}
        return orthogonality_defects(weights, squared=self.squared, gram=self.gram)

    def floor(self, layer: Layer) -> float:
        """√|in − out| (squared: |in − out|) where the larger Gram is asked for, else 0."""
        extra = _extra_dimensions(layer.shape, self.gram)
        return float(extra) if self.squared else math.sqrt(extra)


def orthogonality_defect(weight: Tensor, *, squared: bool = False, gram: GramSide = "output") -> Tensor:
    """‖G − I‖_F for a Gram matrix G of ``weight`` [out, in], or its square; a scalar.

    Always computed from the smaller Gram S: the squared norms for the two sides differ by |in − out|, so that
    ``‖G − I‖² = ‖S − I‖² + |in − out|`` for the larger. One product for the value, one for the gradient
    ``2 (S − I) W / ‖G − I‖`` (4 (S − I) W squared). At an exactly orthogonal weight the gradient is zero.

    Args:
        weight: [out, in].
        squared: return the squared norm.
        gram: ``"output"`` W Wᵀ [out, out] (the paper's WᵀW), ``"input"`` WᵀW [in, in], or ``"smaller"``.

    Half-precision weights are computed in float32.
    """
    if weight.dim() != 2:
        raise ValueError(f"weight must be a matrix [out, in], got shape {tuple(weight.shape)}")
    extra = _extra_dimensions((weight.shape[0], weight.shape[1]), gram)
    return _OrthogonalityDefect.apply(weight, squared, extra)


def orthogonality_defects(
    weights: Mapping[str, Tensor], *, squared: bool = False, gram: GramSide = "output", grouped: bool | None = None
) -> dict[str, Tensor]:
    """``orthogonality_defect`` of each of several weights: name → scalar.

    Args:
        weights: name → [out, in].
        squared: return the squared norms.
        gram: as for one weight.
        grouped: whether weights of one shape, type and device are stacked and multiplied together; None for where they
            are not on a CPU. There the number of kernel launches then is that of distinct shapes, not of layers; on
            a CPU a copy costs more than a call.
    """
    if grouped is None:
        grouped = any(weight.device.type != "cpu" for weight in weights.values())
    if not grouped:
        return {name: orthogonality_defect(weight, squared=squared, gram=gram) for name, weight in weights.items()}
    values: dict[str, Tensor] = {}
    for names in same_shapes(weights):
        group = [weights[name] for name in names]
        out_dim, in_dim = group[0].shape
        extra = _extra_dimensions((out_dim, in_dim), gram)
        defects = _OrthogonalityDefects.apply(squared, extra, *group)  # [L]
        values.update(zip(names, defects.unbind(), strict=True))
    return {name: values[name] for name in weights}


def same_shapes(weights: Mapping[str, Tensor]) -> list[list[str]]:
    """Names of weights that can be stacked: those of one shape, type and device."""
    groups: dict[Any, list[str]] = {}
    for name, weight in weights.items():
        groups.setdefault((weight.shape, weight.dtype, weight.device), []).append(name)
    return list(groups.values())


class _OrthogonalityDefects(torch.autograd.Function):
    """The same formulas as for one weight, for L weights of one shape: → [L]."""

    @staticmethod
    def forward(ctx: Any, squared: bool, extra: int, *weights: Tensor) -> Tensor:
        ctx.squared, ctx.dtype = squared, weights[0].dtype
        with torch.autocast(weights[0].device.type, enabled=False):
            stack = torch.stack(weights)  # [L, out, in]
            w = stack if stack.dtype == torch.float64 else stack.float()
            defect = w @ w.mT if w.shape[1] <= w.shape[2] else w.mT @ w
            defect.diagonal(dim1=1, dim2=2).sub_(1.0)
            flat = defect.flatten(1)
            square = torch.linalg.vecdot(flat, flat) + extra
            values = square if squared else square.sqrt()
        ctx.save_for_backward(w, defect, values)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        w, defect, values = ctx.saved_tensors
        factor = 4.0 * grad if ctx.squared else torch.where(values > 0, 2.0 * grad / values, torch.zeros_like(values))
        with torch.autocast(w.device.type, enabled=False):
            defect = defect * factor[:, None, None]
            product = defect @ w if w.shape[1] <= w.shape[2] else w @ defect
            return None, None, *product.to(ctx.dtype).unbind()


class _OrthogonalityDefect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, squared: bool, extra: int) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            w = weight if weight.dtype == torch.float64 else weight.float()
            defect = gram_matrix(w if w.shape[0] <= w.shape[1] else w.t())
            defect.diagonal().sub_(1.0)
            flat = defect.view(-1)
            square = torch.dot(flat, flat) + extra
        ctx.squared, ctx.dtype = squared, weight.dtype
        value = square if squared else square.sqrt()
        ctx.save_for_backward(w, defect, value)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        w, defect, value = ctx.saved_tensors
        # At the minimum of the un-squared norm the direction is undefined and 0 is a subgradient.
        factor = 4.0 * grad if ctx.squared else torch.where(value > 0, 2.0 * grad / value, torch.zeros_like(value))
        with torch.autocast(w.device.type, enabled=False):
            # The gradient gets the weight's memory layout (a GCN weight is stored column by column), since
            # the optimizer would otherwise copy it at every step. The defect is symmetric.
            left = w.shape[0] <= w.shape[1]
            defect = defect * factor  # the smaller of the two factors of the product
            if w.stride(0) == 1 and w.stride(1) != 1:
                product = (w.t() @ defect if left else defect @ w.t()).t()
            else:
                product = defect @ w if left else w @ defect
            return product.to(ctx.dtype), None, None


def _extra_dimensions(shape: tuple[int, int], gram: GramSide) -> int:
    out_dim, in_dim = shape
    if gram == "smaller":
        return 0
    if gram not in ("output", "input"):
        raise ValueError(f"gram must be 'output', 'input' or 'smaller', got {gram!r}")
    size = out_dim if gram == "output" else in_dim
    return size - min(out_dim, in_dim)
