"""Initial weights with a chosen spectrum, of a matrix or of all layers of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

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


@torch.no_grad()
def truncate_rank_(weight: Tensor, rank: int) -> Tensor:
    """Set all but the ``rank`` largest singular values of a weight [out, in] to zero, in place: U Σ Vᵀ → [Σ_r V_rᵀ; 0].

    Left singular vectors become unit vectors, so that the other rows, and with them the other singular values, are
    exactly zero. In any other basis rounding leaves about 1e-8 of the largest, which training may amplify till it looks
    like a repair. A weight that has no more than ``rank`` singular values is left as it is.
    """
    if rank >= min(weight.shape):
        return weight
    _, sigma, right = torch.linalg.svd(weight.double(), full_matrices=False)
    weight.zero_()
    weight[:rank] = (sigma[:rank, None] * right[:rank]).to(weight.dtype)
    return weight


@torch.no_grad()
def polar_factor(matrix: Tensor) -> Tensor:
    """UVᵀ of a matrix USVᵀ [out, in]: the nearest one whose rows, or columns, are orthonormal.

    By the eigenvectors of its smaller Gram matrix in float64, which takes a third of the time of a singular value
    decomposition; where that would lose precision, by the decomposition.
    """
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
