"""Weighted k-nearest-neighbour classification of frozen representations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sslcollapse.core.types import ProbeSet, Split
from sslcollapse.probes.base import Outcome, SplitProbe, rows_made, scaled
from sslcollapse.probes.metrics import check_metric, score
from sslcollapse.probes.splits import SplitChoice
from sslcollapse.recipe.schema import Above, AtLeast, Between, Share, Width

TILE = 2**16
"""Training rows whose similarities exist at once, for memory only."""
ONE = 2**40
"""A vote of weight 1, as an integer: sums of integers are the same in any order, also where a GPU adds
in parallel; 2^22 neighbours fit into 63 bits."""


class KNNProbe(SplitProbe):
    """Weighted k nearest neighbours by cosine similarity, with nothing to train or to choose.

    The k most similar training rows of a query vote for their class with weight exp(similarity / τ); the
    class with most votes is predicted. Validation and test rows are queries only, so they influence
    neither each other nor the neighbours. k = 200 and τ = 0.1 are customary on images; where the training
    part is smaller than k, all of it votes. Source: Wu et al. 2018, "Unsupervised feature learning via
    non-parametric instance discrimination", section 3.4.

    Works in float32 on the features' device. Beside the features it holds a normalised copy of the training rows, and a
    tile of similarities at once, of ``chunk`` queries and at most 2^16 training rows: 67 MB for 256.

    Args:
        split: ``"random"``, or a name among the probe set's own splits.
        fractions: train, validation and test shares of random splits.
        repeats: number of random splits.
        split_seed: of the random splits, apart from the model's.
        k: number of neighbours that vote.
        temperature: τ; small values let the nearest decide alone.
        chunk: queries at a time, for memory only.
        metric: ``"auto"`` is ROC-AUC of the share of votes for binary sets, else accuracy.

    Raises:
        ValueError: for an argument out of range.
    """

    single_label = "knn"

    def __init__(
        self,
        *,
        split: str = "public",
        fractions: Sequence[Share] = (0.1, 0.1, 0.8),
        repeats: Annotated[int, Between(1, 10_000)] = 20,
        split_seed: Annotated[int, AtLeast(0)] = 0,
        k: Annotated[int, Between(1, 2**22)] = 200,
        temperature: Annotated[float, Above(0)] = 0.1,
        chunk: Width = 256,
        metric: Literal["auto", "accuracy", "micro_f1", "roc_auc"] = "auto",
    ) -> None:
        self.splits = SplitChoice(split, tuple(fractions), repeats, split_seed)
        check_metric(metric)
        for name, number in (("k", k), ("chunk", chunk)):
            if number < 1:
                raise ValueError(f"{name} must be >= 1, got {number}")
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be a positive number, got {temperature}")
        self.k = k
        self.temperature = temperature
        self.chunk = chunk
        self.metric = metric

    @torch.no_grad()
    def outcomes(
        self, features: Tensor, probe_set: ProbeSet, splits: Sequence[Split], metric: str
    ) -> Iterator[Outcome]:
        """The outcome of each split, one after the other."""
        x = features.detach()
        labels = probe_set.labels.to(x.device)
        for split in splits:
            shares = partial(
                vote_shares,
                bank=rows_made(_unit, x, split.train),
                labels=labels[split.train],
                num_classes=probe_set.num_classes,
                k=self.k,
                temperature=self.temperature,
                chunk=self.chunk,
            )
            test, validation = (
                score(metric, torch.cat([shares(_unit(x[some])) for some in self._chunks(rows)]), labels[rows])
                for rows in (split.test, split.validation)
            )
            yield Outcome(test, validation, "knn", {"k": min(self.k, len(split.train))})

    def _chunks(self, rows: np.ndarray) -> Sequence[Tensor]:
        return torch.tensor(np.asarray(rows)).split(self.chunk)

    def details(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """``k``, the neighbours that voted in each split, and the temperature."""
        return {"k": [each["k"] for each in facts], "temperature": self.temperature}


def _unit(x: Tensor) -> Tensor:
    """Rows [n, d] of length 1, float32; zero rows stay zero."""
    return normalize(scaled(x, 1).float())


def vote_shares(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    k: int = 200,
    temperature: float = 0.1,
    chunk: int = 256,
) -> Tensor:
    """Shares of the votes of each query's k nearest bank rows, in float64; rows sum to 1.

    Weights are relative to the nearest neighbour's, exp((s − max s) / τ), which leaves the shares as they
    are and cannot overflow for a small τ.

    Args:
        queries: [n, d] rows of length 1.
        bank: [m, d] rows of length 1.
        labels: [m] classes of the bank, below ``num_classes``.
        num_classes: C.
        k: number of neighbours; all m where there are fewer.
        temperature: τ.
        chunk: queries at a time; ``chunk`` × ``TILE`` similarities exist at once, or × k where that is more.

    Shapes:
        result: [n, C].
    """
    k = min(k, len(bank))
    shares = []
    for rows in queries.split(chunk):
        similarity, nearest = _nearest(rows, bank, k)
        weights = ((similarity - similarity[:, :1]).double() / temperature).exp()
        votes = torch.zeros(len(rows), num_classes, dtype=torch.int64, device=rows.device)
        votes.scatter_add_(1, labels[nearest], (weights * ONE).round().long())
        shares.append(votes.double() / votes.sum(1, keepdim=True))
    return torch.cat(shares)


def _nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Similarities and numbers [n, k] of each query's nearest bank rows, the largest first."""
    size = max(TILE, k)
    similarity, nearest = (queries @ bank[:size].T).topk(k, dim=1)
    for start in range(size, len(bank), size):
        further = queries @ bank[start : start + size].T
        values, places = further.topk(min(k, further.shape[1]), dim=1)
        similarity, order = torch.cat([similarity, values], 1).topk(k, dim=1)
        nearest = torch.cat([nearest, places + start], 1).gather(1, order)
    return similarity, nearest
