"""Initial weights with a chosen spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


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
