"""Rank of features as a metric of torchmetrics: any number of batches, any number of processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from sslcollapse.nn.wrappers import check_count
from sslcollapse.rank.spectrum import (
    NotFiniteError,
    effective_rank_from_singular_values,
    from_gram,
    participation_ratio_from_singular_values,
    rankme_from_singular_values,
    stable_rank_from_singular_values,
)

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError(
        "sslcollapse.integrations.torchmetrics needs torchmetrics, which is not installed: pip install torchmetrics. "
        "Without it, sslcollapse.StreamingCovariance accumulates the same over batches"
    ) from error

Kind = Literal["effective_rank", "rankme", "stable_rank", "participation_ratio"]

_MEASURES: dict[str, Callable[[Tensor], float]] = {
    "effective_rank": effective_rank_from_singular_values,
    "rankme": rankme_from_singular_values,
    "stable_rank": stable_rank_from_singular_values,
    "participation_ratio": participation_ratio_from_singular_values,
}
_CHUNK = 4096


class EffectiveRank(Metric):
    """Rank of all features seen, from their second moment: O(d²) memory however many there are.

        rank = EffectiveRank(128)
        for batch in loader:
            rank.update(encoder(batch))
        rank.compute()

    It depends on the number of samples, ``count``: compare it at one. Processes are merged by adding, which is exact,
    so their features count as one set.

    Args:
        dim: d, width of the features.
        kind: the measure; the functions of these names in ``sslcollapse`` say what each is.
        centred: less the mean of all features. By default as the function of that name: only for the participation
            ratio. RankMe is defined without.
        kwargs: those of ``torchmetrics.Metric``.

    Shapes:
        update: [N, d] → None; compute: → scalar in float64. Without samples it is 0, and NaN where a feature was NaN or
        infinite.

    Raises:
        ValueError: for a ``dim`` that is no whole number of at least 1, an unknown ``kind``, or a centred RankMe.

    The mean is subtracted from the sum of squares, which costs digits where it is large: with a mean of 1000 standard
    deviations six of sixteen. ``StreamingCovariance`` loses none.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    second_moment: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, dim: int, kind: Kind = "effective_rank", *, centred: bool | None = None, **kwargs: Any) -> None:
        check_count("dim", dim)
        if kind not in _MEASURES:
            raise ValueError(f"kind must be one of {', '.join(_MEASURES)}, got {kind!r}")
        if kind == "rankme" and centred:
            raise ValueError("RankMe is of features that are not centred; leave centred out, or use 'effective_rank'")
        super().__init__(**kwargs)
        self.dim, self.kind = dim, kind
        self.centred = kind == "participation_ratio" if centred is None else centred
        wide = torch.float64
        self.add_state("second_moment", torch.zeros(dim, dim, dtype=wide), dist_reduce_fx="sum")  # Σ x xᵀ
        self.add_state("total", torch.zeros(dim, dtype=wide), dist_reduce_fx="sum")  # Σ x
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Add features [N, d] of any floating dtype.

        Raises:
            ValueError: for another shape or an integer dtype.
        """
        if features.dim() != 2 or features.shape[1] != self.dim:
            raise ValueError(f"expected features [N, {self.dim}], got shape {tuple(features.shape)}")
        if not features.is_floating_point():
            raise ValueError(f"expected features of a floating dtype, got {features.dtype}")
        for chunk in features.detach().split(_CHUNK):
            rows = chunk.to(self.total.dtype)
            self.second_moment += rows.t() @ rows
            self.total += rows.sum(0)
        self.count += len(features)

    def compute(self) -> Tensor:
        """The measure of everything seen since the last ``reset``, a scalar."""
        gram = self.second_moment
        if self.centred and self.count:
            gram = gram - torch.outer(self.total, self.total) / self.count
        try:
            value = _MEASURES[self.kind](from_gram(gram))
        except NotFiniteError:
            value = math.nan
        return self.total.new_tensor(value)
