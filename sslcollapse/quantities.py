"""Names of what is measured, in ``result.json`` and in records, and what ranks are held against; imports nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METRICS = ("accuracy", "micro_f1", "roc_auc")
"""Of the probes here; a result has them as ``test_accuracy`` and ``validation_accuracy``."""

PARTS = ("weight", "output")
"""What of a layer is measured."""

FEATURES = ("representation", "embedding", "prediction", "shared", "shared_input")
"""What is measured beside layers; the last two of two views together."""

MEASURES = (
    "effective_rank",
    "effective_rank_centred",
    "effective_rank_fraction",
    "numerical_rank",
    "attainable",
    "attainable_centred",
    "overlap",
    "n",
)
"""Numbers of each that records keep, and the fraction, which follows from two of them."""


RANKS = ("effective_rank", "effective_rank_centred", "effective_rank_root", "numerical_rank")
"""Those that count dimensions."""

RANK_MARGIN = 0.01
"""Share of the attainable rank below which a change of rank is none, where a claim does not say another one."""


def attainable(parts: Mapping[str, Mapping[str, Any]], part: str) -> int:
    """What the rank of a layer's part is held against.

    That of an output is its weight's attainable rank where that is smaller: a map from 64 dimensions to 256 has 64.

    Args:
        parts: a layer's ``weight`` and ``output``, those that were measured.
        part: one of them.
    """
    return min(parts[which]["attainable"] for which in (part, "weight") if which in parts)
