"""Initial weights with a chosen spectrum, and checks that several encoders make on their arguments."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.errors import RecipeError, suggest
from sslcollapse.layers.map import CONVOLUTIONS, Layer


@torch.no_grad()
def decaying_spectrum_(weight: Tensor, decay: float) -> Tensor:
    """Fill a weight [out, in] with singular values σ_k = exp(−decay · k), k = 0, 1, ..., in place.

    Singular vectors are uniformly distributed and independent of each other and of other weights'. Those of Jing et
    al. 2022 are of a matrix with entries uniform in [0, 1), whose first pair is nearly the constant vector.
    """
    count = min(weight.shape)
    left, right = (nn.init.orthogonal_(weight.new_empty(size, count)) for size in weight.shape)
    sigma = torch.exp(-decay * torch.arange(count, dtype=weight.dtype, device=weight.device))
    return weight.copy_((left * sigma) @ right.t())


def random_with_spectrum(sigma: Tensor, shape: Sequence[int], rng: torch.Generator) -> Tensor:
    """U Σ Vᵀ with these singular values, U and V independent of each other and uniformly distributed (Haar).

    Args:
        sigma: the singular values.
        shape: of the matrix.
        rng: on the CPU; U is drawn first.

    Shapes:
        sigma: [min(out, in)]; shape: (out, in); result: [out, in], float64 on the CPU.
    """
    left, right = (
        nn.init.orthogonal_(torch.empty(size, len(sigma), dtype=torch.float64), generator=rng) for size in shape
    )
    return (left * sigma.to(left)) @ right.t()


@torch.no_grad()
def truncate_rank_(weight: Tensor, rank: int, tail: float = 0.0) -> Tensor:
    """Lower all but the ``rank`` largest singular values of a weight [out, in], in place: U Σ Vᵀ → [Σ′ Vᵀ; 0].

    Those others become min(σ, tail · the largest): zero by default. Left singular vectors become unit vectors, so that
    small rows hold small singular values to the precision of their own size, and rows of zeros are exactly zero. In any
    other basis rounding leaves about 1e-8 of the largest, which training may amplify till it looks like a repair.
    A weight that has no more than ``rank`` singular values is left as it is.
    """
    if rank >= min(weight.shape):
        return weight
    _, sigma, right = torch.linalg.svd(weight.double(), full_matrices=False)
    sigma[rank:].clamp_(max=tail * float(sigma[0]))
    kept = len(sigma) if tail else rank
    weight.zero_()
    weight[:kept] = (sigma[:kept, None] * right[:kept]).to(weight.dtype)
    return weight


@torch.no_grad()
def polar_factor(matrix: Tensor) -> Tensor:
    """UVᵀ of a matrix USVᵀ [out, in]: the nearest one whose rows, or columns, are orthonormal.

    By the eigenvectors of its smaller Gram matrix in float64, which is cheaper than a singular value decomposition;
    where that would lose precision, by the decomposition. The host waits for the device. A matrix with
    entries that are not finite is returned as it is.
    """
    if not torch.isfinite(matrix).all():
        return matrix.clone()
    wide = matrix.double() if matrix.shape[0] <= matrix.shape[1] else matrix.double().t()
    values, vectors = torch.linalg.eigh(wide @ wide.t())
    if float(values[0]) > 1e-10 * float(values[-1]):
        polar = (vectors * values.rsqrt()) @ (vectors.t() @ wide)
    else:
        left, _, right = torch.linalg.svd(wide, full_matrices=False)
        polar = left @ right
    return (polar if matrix.shape[0] <= matrix.shape[1] else polar.t()).to(matrix.dtype)


@torch.no_grad()
def initialize(layers: Iterable[Layer], scheme: str) -> None:
    """Give layers the initial weights of a scheme, from torch's global random state; biases stay as they are.

    * ``"orthogonal"``: uniformly distributed among matrices with orthonormal rows or columns.
    * ``"glorot"``: uniform in ±√(6 / (in + out)).
    * ``"identity"``: ones on the diagonal, so that a layer hands its first inputs on; of a convolution the taps in the
      middle of the kernel are the inputs.

    Matrices are [out, in] as the layer map has them, [out, in·kh·kw] of a convolution.

    Raises:
        ValueError: an unknown scheme.
        LayerError: a weight that is computed from other tensors, such as a parametrized one.
    """
    if scheme not in _SCHEMES:
        raise ValueError(f"initialization must be one of {', '.join(_SCHEMES)}, got {scheme!r}")
    for layer in layers:
        layer.assign(_SCHEMES[scheme](layer).to(layer.parameter))


def _identity(layer: Layer) -> Tensor:
    matrix = torch.zeros(layer.shape)
    kernel = layer.module.kernel_size if isinstance(layer.module, CONVOLUTIONS) else ()
    taps, middle = math.prod(kernel), 0
    for size in kernel:
        middle = middle * size + size // 2
    count = min(layer.shape[0], layer.shape[1] // taps)
    rows = torch.arange(count)
    matrix[rows, rows * taps + middle] = 1.0
    return matrix


_SCHEMES: dict[str, Callable[[Layer], Tensor]] = {
    "orthogonal": lambda layer: nn.init.orthogonal_(torch.empty(layer.shape)),
    "glorot": lambda layer: nn.init.xavier_uniform_(torch.empty(layer.shape)),
    "identity": _identity,
}


def check_rank(rank: int | None, widths: Sequence[int]) -> int | None:
    """An initial rank, or None for the usual initialisation.

    Args:
        rank: of each weight that has more.
        widths: of the input and of every layer.

    Raises:
        ValueError: below 1, or above the rank that any weight can have; quotes it.
    """
    largest = max((min(pair) for pair in pairwise(widths)), default=0)
    if rank is not None and not 1 <= rank <= largest:
        raise ValueError(
            f"initial_rank must be in [1, {largest}], the largest rank that a weight of widths {list(widths)} "
            f"can have, or None, got {rank}"
        )
    return rank


def check_tail(tail: float, rank: int | None) -> float:
    """The share of the largest singular value that those beyond an initial rank have at most.

    Raises:
        ValueError: outside [0, 1], or above 0 without an initial rank; quotes it.
    """
    if not 0.0 <= tail <= 1.0:
        raise ValueError(f"initial_tail must be in [0, 1], got {tail}")
    if tail and rank is None:
        raise ValueError(f"initial_tail is of the singular values beyond initial_rank; state that too, got {tail}")
    return tail


def check_widths(hidden: Sequence[int], name: str = "hidden") -> list[int]:
    """Return layer widths as a list.

    Raises:
        ValueError: when there is none or one is not positive; quotes them.
    """
    if not hidden or any(width < 1 for width in hidden):
        raise ValueError(f"{name} must be a non-empty list of positive widths, got {list(hidden)}")
    return list(hidden)


def check_norm_momentum(momentum: float) -> float:
    """The momentum of a BatchNorm's running statistics, in torch's convention.

    Raises:
        ValueError: outside [0, 1], where statistics leave the range of what was seen; quotes it.
    """
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"norm_momentum must be in [0, 1], got {momentum}")
    return momentum


def graph_features(in_shape: int | Sequence[int], encoder: str) -> int:
    """Number of node features, from a number or an ``in_shape`` (F,).

    Raises:
        ValueError: for a shape of more dimensions; names encoders that read any.
    """
    shape = _shape(in_shape)
    if len(shape) != 1:
        raise ValueError(
            f"{encoder} reads samples of in_shape (features,), as nodes of a graph have it, got {shape}; mlp and "
            "linear read samples of any shape"
        )
    return shape[0]


def image_shape(in_shape: int | Sequence[int], encoder: str) -> tuple[int, int, int]:
    """(channels, height, width) of an image.

    Raises:
        ValueError: for any other shape; names encoders that read any.
    """
    shape = _shape(in_shape)
    if len(shape) != 3:
        raise ValueError(
            f"{encoder} reads samples of in_shape (channels, height, width), as images have it, got {shape}; mlp and "
            "linear read samples of any shape"
        )
    return shape[0], shape[1], shape[2]


def check_samples(name: str, samples: int, minimum: int = 2) -> None:
    """Refuse a batch with fewer samples, over all ranks, than an objective can use.

    Raises:
        RecipeError: says how many there are and how many are needed.
    """
    if samples < minimum:
        raise RecipeError(
            f"{name} compares samples with each other and needs at least {minimum} in a batch, got {samples}; "
            "use a larger batch"
        )


def unreadable(tensor: Tensor) -> str | None:
    """What keeps the values of a tensor from being measured, and what to do; None for a dense one with values."""
    if tensor.is_nested:
        return "is nested; use the tensors of its unbind()"
    if tensor.layout != torch.strided:
        return f"has the layout {tensor.layout}; use its to_dense()"
    if tensor.is_quantized:
        return "is quantised; use its dequantize()"
    if tensor.is_meta:
        return "is on the meta device, where it has no values; load its values first"
    return None


def _shape(in_shape: int | Sequence[int]) -> tuple[int, ...]:
    shape = (in_shape,) if isinstance(in_shape, int) else tuple(in_shape)
    if not shape or any(size < 1 for size in shape):
        raise ValueError(f"in_shape must be positive numbers, got {shape}")
    return shape


def check_arguments(
    place: str, name: str, make: Callable[..., Any], given: Mapping[str, Any], ours: Mapping[str, str]
) -> None:
    """Refuse arguments that a class of another library does not have, or that a recipe does not give.

    Args:
        place: of the arguments in the recipe.
        name: of the class.
        make: the class.
        given: name → value.
        ours: name → why a recipe does not give it.

    Raises:
        ValueError: names the argument, and what was meant or is known.
    """
    takes = [key for key in inspect.signature(make).parameters if key not in ours]
    for key in given:
        if key in ours:
            raise ValueError(f"{place}.{key}: {ours[key]}; leave it out")
        if key not in takes:
            raise ValueError(
                f"{place}.{key}: {name} has no such argument{suggest(key, takes)} (known: {', '.join(takes)})"
            )
