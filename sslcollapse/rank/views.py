"""What two views of a sample share: the rank of their cross-covariance."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.precision import device_of, full_precision
from sslcollapse.core.types import Batch, sample_rows
from sslcollapse.rank.recorder import evaluating
from sslcollapse.rank.spectrum import (
    NUMERICAL_RANK_RTOL,
    effective_rank_from_singular_values,
    numerical_rank_from_singular_values,
    singular_values,
)

MAX_ROWS = 4096
"""Samples that views are compared on, at most."""


def cross_covariance(first: Tensor, second: Tensor) -> Tensor:
    """Z₁ᵀZ₂ / N of centred features, float64: [N, d₁], [N, d₂] → [d₁, d₂].

    Raises:
        ValueError: the two do not have one row each of the same samples.
    """
    if first.dim() != 2 or second.dim() != 2 or len(first) != len(second) or not len(first):
        raise ValueError(
            f"two views of N samples are [N, d1] and [N, d2], got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    return _centred(first).t() @ _centred(second) / len(first)


def shared_rank(first: Tensor, second: Tensor) -> dict[str, float | int]:
    """Ranks of the cross-covariance C of two views, and how much of their variance is shared.

    Of the singular values s of C are ``effective_rank`` and ``numerical_rank`` (above ``rtol`` of the largest);
    ``effective_rank_root`` is of √s, which for two equal views is the centred effective rank of their features, and so
    what is to be held against it. ``overlap`` is Σs / √(tr C₁₁ tr C₂₂): 1 for equal views, 0 for unrelated or constant
    ones. ``attainable`` is min(N − 1, d₁, d₂).

    Noise that is independent between views adds nothing to C: it lowers the overlap, not the rank. The rank falls where
    a view lacks dimensions (masked columns), or an encoder has dropped them. Of N samples, views that share nothing
    still have a full rank and an overlap of about 0.85 √(d/N): compare at equal N.

    Shapes:
        first: [N, d₁]; second: [N, d₂].

    Raises:
        ValueError: the two do not have one row each of the same samples.
        NotFiniteError: NaN or infinite entries.
    """
    covariance = cross_covariance(first, second)
    sigma = singular_values(covariance)
    spread = torch.sqrt(_variance(first) * _variance(second))
    return {
        "effective_rank": effective_rank_from_singular_values(sigma),
        "effective_rank_root": effective_rank_from_singular_values(sigma.sqrt()),
        "numerical_rank": numerical_rank_from_singular_values(sigma),
        "rtol": NUMERICAL_RANK_RTOL,
        "overlap": float(sigma.sum() / spread) if spread > 0 else 0.0,
        "n": len(first),
        "attainable": min(len(first) - 1, *covariance.shape),
    }


def measure_shared(
    encoder: nn.Module,
    batches: Iterable[Batch],
    max_rows: int = MAX_ROWS,
    measurable: Callable[[Any], Tensor | None] | None = None,
) -> dict[str, dict[str, float | int]]:
    """``shared``: of the representations of two views in eval mode; ``shared_input``: of the views themselves.

    Batches are taken until there are ``max_rows`` samples; of a larger batch, evenly spaced ones. Endless batches end
    where all samples of one have been seen before, if there are ``MAX_ROWS`` by then. Both are left out for batches
    with a single view. The encoder is left as it was.

    Args:
        encoder: one view in, [N, d] out.
        batches: two views or more of the same samples each.
        max_rows: number of samples.
        measurable: rows [N, d] of a view, or None where it has none (see ``Domain``); without it ``shared_input`` is
            left out.

    Raises:
        NotFiniteError: representations or views with NaN or infinite entries.
    """
    rows: dict[str, list[tuple[Tensor, Tensor]]] = {"shared": [], "shared_input": []}
    count, seen = 0, set[int]()
    with full_precision(device_of(encoder), convolutions=True), evaluating(encoder):
        for batch in batches:
            index = set(batch.index.tolist())
            if len(batch.views) < 2 or (index <= seen and count >= MAX_ROWS):
                break
            seen |= index
            first, second = batch.views[:2]
            outputs = _spaced((sample_rows(encoder(first), first), sample_rows(encoder(second), second)), max_rows)
            rows["shared"].append(outputs)
            if measurable is not None:
                x, y = measurable(first), measurable(second)
                if x is not None and y is not None:
                    rows["shared_input"].append(_spaced((x, y), max_rows))
            count += len(outputs[0])
            if count >= max_rows:
                break
    joined = {name: [torch.cat(view)[:max_rows] for view in zip(*pairs, strict=True)] for name, pairs in rows.items()}
    return {name: shared_rank(*views) for name, views in joined.items() if views}


def _spaced(views: tuple[Tensor, Tensor], max_rows: int) -> tuple[Tensor, Tensor]:
    first, second = views
    if len(first) <= max_rows:
        return first, second
    chosen = torch.linspace(0, len(first) - 1, max_rows, dtype=torch.float64).round().long().to(first.device)
    return first[chosen], second[chosen]


def _centred(features: Tensor) -> Tensor:
    wide = features.detach().double()
    return wide - wide.mean(0)


def _variance(features: Tensor) -> Tensor:
    """Trace of the covariance."""
    return _centred(features).square().sum() / len(features)
