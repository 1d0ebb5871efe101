"""What every probe returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sslcollapse.core.types import Split


@dataclass(frozen=True)
class ProbeResult:
    """What a probe measured, one entry a split.

    Attributes:
        metric: name of the metric of ``test`` and ``validation``.
        test: with whatever the probe chose on validation.
        validation: of the same classifier.
        solver: how the classifier was really found, for tables.
        splits: the divisions, in the order of the values.
        details: what else the probe reports (hyper-parameters chosen, sizes used), JSON-able.
    """

    metric: str
    test: list[float]
    validation: list[float]
    solver: str
    splits: tuple[Split, ...]
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As stored in ``result.json``; standard deviations have ddof 1 and are null for one split."""
        return {
            "solver": self.solver,
            f"test_{self.metric}": _summary(self.test),
            f"validation_{self.metric}": _summary(self.validation),
            **self.details,
        }


def _summary(values: Sequence[float]) -> dict[str, Any]:
    """Values with mean and standard deviation (ddof 1; None for a single value)."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"values": list(values), "mean": float(np.mean(values)), "std": std}
