"""WERank: weights are kept near orthogonality, so that no layer loses rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from sslcollapse.core.distributed import unsharded
from sslcollapse.core.precision import full_precision
from sslcollapse.layers.map import Layer, weights
from sslcollapse.nn.init import unreadable
from sslcollapse.nn.moments import gram_matrix
from sslcollapse.recipe.schema import Coefficient, Distinct
from sslcollapse.regularizers.base import Network, WeightPenalty

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

    Raises:
        ValueError: for a ``gram``, ``squared`` or ``networks`` that there is not.

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
        if not isinstance(squared, bool):
            raise ValueError(f"squared must be True or False, got {squared!r}")
        check_gram(gram)
        self.squared = squared
        self.gram = gram

    def forward(self, layers: Mapping[str, Layer]) -> Mapping[str, Tensor]:
        """Layers → layer name → ‖WᵀW − I‖_F or its square."""
        return orthogonality_defects(weights(layers), squared=self.squared, gram=self.gram)

    def floor(self, layer: Layer) -> float:
        """√|in − out| (squared: |in − out|) where the larger Gram is asked for, else 0."""
        extra = _extra_dimensions(layer.shape, self.gram)
        return float(extra) if self.squared else math.sqrt(extra)


def orthogonality_defect(weight: Tensor, *, squared: bool = False, gram: GramSide = "output") -> Tensor:
    """‖G − I‖_F for a Gram matrix G of ``weight`` [out, in], or its square; a real scalar.

    Always computed from the smaller Gram S: the squared norms for the two sides differ by |in − out|, so that
    ``‖G − I‖² = ‖S − I‖² + |in − out|`` for the larger. One product for the value, one for the gradient
    ``2 (S − I) W / ‖G − I‖`` (4 (S − I) W squared). At an exactly orthogonal weight the gradient is zero. It can be
    differentiated again.

    Args:
        weight: [out, in]; of a complex one Wᴴ stands for Wᵀ, so that a unitary weight has 0.
        squared: return the squared norm.
        gram: ``"output"`` W Wᵀ [out, out] (the paper's WᵀW), ``"input"`` WᵀW [in, in], or ``"smaller"``.

    Half-precision weights are computed in float32. On a CPU, what overflows there is computed, and given, in float64.
    """
    return _defect_of(checked_weight(weight), squared, gram)


def _defect_of(weight: Tensor, squared: bool, gram: GramSide) -> Tensor:
    extra = _extra_dimensions((weight.shape[0], weight.shape[1]), gram)
    value = _OrthogonalityDefect.apply(weight, squared, extra)
    if overflowed(value):
        value = fitting(_OrthogonalityDefect.apply(widened(weight, torch.float64), squared, extra))
    return value


def orthogonality_defects(
    weights: Mapping[str, Tensor], *, squared: bool = False, gram: GramSide = "output", grouped: bool | None = None
) -> dict[str, Tensor]:
    """``orthogonality_defect`` of each of several weights: name → scalar.

    Args:
        weights: name → [out, in].
        squared: return the squared norms. What overflows float32 is infinite where weights are grouped; its gradient is
            right.
        gram: as for one weight.
        grouped: whether weights of one shape, type and device are stacked and multiplied together; None for where they
            are not on a CPU. There the number of kernel launches then is that of distinct shapes, not of layers; on
            a CPU a copy costs more than a call.
    """
    if grouped is None:
        grouped = any(weight.device.type != "cpu" for weight in weights.values())
    if not grouped:
        return {name: _defect_of(checked_weight(weight, name), squared, gram) for name, weight in weights.items()}
    values: dict[str, Tensor] = {}
    for names in same_shapes(weights):
        group = [checked_weight(weights[name], name) for name in names]
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


def widened(weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A weight in ``dtype`` or wider, and complex where it is."""
    return weight.to(torch.promote_types(weight.dtype, dtype))


def overflowed(values: Tensor) -> bool:
    """Whether a value on a CPU is not finite; elsewhere to ask would make the host wait."""
    if values.device.type != "cpu" or values.dtype == torch.float64 or torch.compiler.is_compiling():
        return False
    return not math.isfinite((values.detach().sum() if values.dim() else values).item())


def fitting(values: Tensor) -> Tensor:
    """Values in float32 where they fit."""
    return values.float() if bool((values <= torch.finfo(torch.float32).max).all()) else values


class _OrthogonalityDefects(torch.autograd.Function):
    """The same formulas as for one weight, for L weights of one shape: → [L]."""

    @staticmethod
    def forward(ctx: Any, squared: bool, extra: int, *weights: Tensor) -> Tensor:
        with full_precision(weights[0].device):
            w = widened(torch.stack(weights))  # [L, out, in]
            defect = w @ w.mH if w.shape[1] <= w.shape[2] else w.mH @ w
            defect.diagonal(dim1=1, dim2=2).sub_(1.0)
            # In float64, since a sum of squares overflows before what is summed does.
            square = torch.linalg.vector_norm(defect, dim=(1, 2), dtype=_double(w)).square() + extra
            values = (square if squared else square.sqrt()).to(w.real.dtype)
        ctx.squared, ctx.extra = squared, extra
        ctx.save_for_backward(w, defect, values, *weights)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        w, defect, values, *weights = ctx.saved_tensors
        with full_precision(w.device):
            if torch.is_grad_enabled():
                w = widened(torch.stack(weights))
            defect, factor = _defect_and_factor(w, defect, values, grad, ctx.squared, ctx.extra)
            defect = defect * factor[:, None, None]
            product = defect @ w if w.shape[1] <= w.shape[2] else w @ defect
            return None, None, *product.to(weights[0].dtype).unbind()


class _OrthogonalityDefect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, squared: bool, extra: int) -> Tensor:
        with full_precision(weight.device):
            w = widened(weight)
            defect = gram_matrix(w if w.shape[0] <= w.shape[1] else w.mH)
            defect.diagonal().sub_(1.0)
            flat = defect.view(-1)
            square = torch.vdot(flat, flat).real + extra
        ctx.squared, ctx.extra = squared, extra
        value = square if squared else square.sqrt()
        ctx.save_for_backward(w, defect, value, weight)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        w, defect, value, weight = ctx.saved_tensors
        with full_precision(w.device):
            if torch.is_grad_enabled():
                w = widened(weight)
            defect, factor = _defect_and_factor(w, defect, value, grad, ctx.squared, ctx.extra)
            # The gradient gets the weight's memory layout (a GCN weight is stored column by column), since
            # the optimizer would otherwise copy it at every step. The defect is Hermitian.
            left = w.shape[0] <= w.shape[1]
            defect = defect * factor  # the smaller of the two factors of the product
            if w.stride(0) == 1 and w.stride(1) != 1:
                product = (w.mH @ defect if left else defect @ w.mH).mH.resolve_conj()
            else:
                product = defect @ w if left else w @ defect
            return product.to(weight.dtype), None, None


def _defect_and_factor(
    w: Tensor, defect: Tensor, values: Tensor, grad: Tensor, squared: bool, extra: int
) -> tuple[Tensor, Tensor]:
    """S − I and the factor that makes (S − I) W the gradient.

    At the minimum of the un-squared norm the direction is undefined and 0 is a subgradient. Where the gradient will be
    differentiated again both are computed from ``w``: what the forward pass kept does not know where it comes from.
    """
    if not torch.is_grad_enabled():
        factor = 4.0 * grad if squared else torch.where(values > 0, 2.0 * grad / values, torch.zeros_like(values))
        return defect, factor
    gram = w @ w.mH if w.shape[-2] <= w.shape[-1] else w.mH @ w
    defect = gram - torch.eye(gram.shape[-1], dtype=w.dtype, device=w.device)
    if squared:
        return defect, 4.0 * grad
    square = (defect * defect.conj()).real.sum((-2, -1)) + extra
    return defect, 2.0 * grad * torch.where(square > 0, torch.where(square > 0, square, 1.0).rsqrt(), 0.0)


def _double(w: Tensor) -> torch.dtype:
    return torch.complex128 if w.is_complex() else torch.float64


def checked_weight(weight: Any, name: str = "") -> Tensor:
    """A weight that is a matrix of numbers, whole where it was sharded.

    Raises:
        TypeError: for anything but a tensor.
        ValueError: for another shape, integers, or a tensor that is not dense or has no values.
    """
    label = f"the weight of layer {name!r}" if name else "weight"
    if not isinstance(weight, Tensor):
        raise TypeError(f"{label} must be a torch.Tensor, got {type(weight).__name__}; use torch.as_tensor first")
    reason = unreadable(weight)
    if reason is None and not (weight.is_floating_point() or weight.is_complex()):
        reason = f"has the type {weight.dtype}; use floating-point or complex numbers"
    if reason is not None:
        raise ValueError(f"{label} must be a matrix [out, in], got a tensor that {reason}")
    if weight.dim() != 2:
        raise ValueError(f"{label} must be a matrix [out, in], got shape {tuple(weight.shape)}")
    return unsharded(weight)


def check_gram(gram: GramSide) -> None:
    """Refuse another side than those that there are.

    Raises:
        ValueError: quotes it.
    """
    if gram not in ("output", "input", "smaller"):
        raise ValueError(f"gram must be 'output', 'input' or 'smaller', got {gram!r}")


def _extra_dimensions(shape: tuple[int, int], gram: GramSide) -> int:
    check_gram(gram)
    out_dim, in_dim = shape
    if gram == "smaller":
        return 0
    size = out_dim if gram == "output" else in_dim
    return size - min(out_dim, in_dim)
