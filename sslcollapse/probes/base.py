"""What every probe is: what it refuses, how it evaluates split by split, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.core.types import ProbeSet, Split
from sslcollapse.probes.metrics import metric_for
from sslcollapse.probes.splits import SplitChoice

TILE = 2**26
"""Numbers of rows that are made at once from features of which there may be more, for memory only: 256 MB."""


class Outcome(NamedTuple):
    """What one split gave: metrics, the solver really used, and what else the probe reports; could be JSON."""

    test: float
    validation: float
    solver: str
    facts: Mapping[str, Any]


class SplitProbe(ABC):
    """A probe whose splits are independent of each other, so that they can be counted, and divided over processes.

    A probe needs no more than ``__call__``; one that derives from this class gets progress for every split, and on
    several processes each evaluates a share of them.

    Attributes:
        splits: which splits are evaluated.
        metric: name of the metric, or ``"auto"``.
        single_label: the probe's name, if it cannot read multi-label sets.
    """

    splits: SplitChoice
    metric: str
    single_label: str | None = None

    def check(self, probe_set: ProbeSet) -> tuple[tuple[Split, ...], str]:
        """The splits and the metric that a set is evaluated with; needs no features.

        Raises:
            DataError: for a split whose parts overlap or leave the set, or whose labels cannot be learnt or scored.
            RecipeError: for a split that the set does not have, a multi-label set that the probe cannot read, or a
                metric that does not fit it.
        """
        splits = self.splits.of(probe_set)
        if self.single_label is not None:
            check_single_label(probe_set, self.single_label)
        metric = metric_for(probe_set, self.metric)
        check_labels(probe_set, splits, self.splits.name, metric)
        return splits, metric

    @abstractmethod
    def outcomes(
        self, features: Tensor, probe_set: ProbeSet, splits: Sequence[Split], metric: str
    ) -> Iterator[Outcome]:
        """The outcome of each of these splits in order, as they are found.

        Splits may be worked on together, but the outcome of one does not depend on the others: several processes ask
        for a share of them each.

        Shapes:
            features: [N, d], finite, one row a label.
        """

    @abstractmethod
    def details(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the result reports beside metrics, from the ``facts`` of every split in order."""

    def __call__(self, features: Tensor, probe_set: ProbeSet) -> ProbeResult:
        """Evaluate frozen features.

        Shapes:
            features: [N, d], one row a label.

        Raises:
            DataError: for features that are not finite or do not belong to the labels, for bad labels.
            RecipeError: see ``check``.
        """
        splits, metric = self.check(probe_set)
        check_features(features, probe_set.labels)
        return self.result(metric, splits, list(self.outcomes(features, probe_set, splits, metric)))

    def result(self, metric: str, splits: Sequence[Split], outcomes: Sequence[Outcome]) -> ProbeResult:
        """The result of all splits, from the outcome of each in order."""
        return ProbeResult(
            metric=metric,
            test=[each.test for each in outcomes],
            validation=[each.validation for each in outcomes],
            solver=outcomes[0].solver,
            splits=tuple(splits),
            details=self.details([each.facts for each in outcomes]),
        )


def rows_made(make: Callable[[Tensor], Tensor], features: Tensor, rows: np.ndarray) -> Tensor:
    """``make(features[rows])`` of a function of single rows, in float32, without a second copy of them all.

    Shapes:
        features: [N, d]; rows: [n] numbers; result: [n, d].
    """
    index = torch.tensor(np.asarray(rows), device=features.device)  # a copy, since they may be mapped and not writable
    made = torch.empty(len(index), features.shape[1], dtype=torch.float32, device=features.device)
    start = 0
    for some in index.split(max(1, TILE // 4 // max(features.shape[1], 1))):
        made[start : start + len(some)] = make(features[some])
        start += len(some)
    return made


def scaled(x: Tensor, dim: int) -> Tensor:
    """x with each row (``dim`` 1) or column (0) times a power of two, so that its largest entry is near 1; it is exact.

    Squares of the result neither overflow nor vanish, so that a probe does not take features of an extreme size for
    zeros. Of float64 it is float64, else float32.

    Shapes:
        x: [N, d].
    """
    x = x if x.dtype == torch.float64 else x.float()
    if not x.numel():
        return x
    largest = x.abs().amax(dim, keepdim=True)
    far = 1000 if x.dtype == torch.float64 else 120  # where powers of two nearly end
    return x * torch.ldexp(torch.ones_like(largest), -torch.frexp(largest).exponent.clamp(-far, far))


def check_single_label(probe_set: ProbeSet, probe: str) -> None:
    """Raise RecipeError for a multi-label set, naming the probe that takes one."""
    if probe_set.multilabel:
        raise RecipeError(
            f"probe {probe!r} needs one class a row, but this set has {probe_set.num_classes} labels a row: "
            f"use a probe of type 'logistic'"
        )


def check_features(features: Tensor, labels: Tensor) -> None:
    """Make sure that there is one finite row a label.

    Shapes:
        features: [N, d].

    Raises:
        DataError: for another shape, NaN or infinite values.
    """
    if features.dim() != 2 or len(features) != len(labels):
        raise DataError(
            f"features must be [N, d] with a row for each of the {len(labels)} labels, "
            f"got shape {tuple(features.shape)}"
        )
    tile = max(1, TILE // max(features.shape[1], 1))
    found = [
        (~torch.isfinite(some)).any(1).nonzero().flatten() + k * tile for k, some in enumerate(features.split(tile))
    ]
    bad = torch.cat(found) if found else features.new_zeros(0, dtype=torch.long)
    if len(bad):
        raise DataError(
            f"{len(bad)} of {len(features)} feature rows hold NaN or infinite values, the first is row "
            f"{int(bad[0])}: the encoder has diverged; lower its learning rate or look at the loss"
        )


def check_labels(probe_set: ProbeSet, splits: Sequence[Split], name: str, metric: str) -> None:
    """Make sure that the labels of these splits can be learnt and scored; needs no features.

    Args:
        probe_set: whose labels.
        splits: the very ones that will be used.
        name: of the splits, for messages.
        metric: that will be measured.

    Raises:
        DataError: labels outside 0..C-1 (or {0, 1}) among the rows of the splits, a training part in which nothing
            varies, or a part of one class that ROC-AUC is asked of.
    """
    _check_range(probe_set, splits, name)
    labels = probe_set.labels
    for k, split in enumerate(splits):
        known = labels[split.train]
        if not (known != known[0]).any():
            of = "have the same labels" if probe_set.multilabel else f"are of class {int(known[0])}"
            raise DataError(
                f"split {k} of {name!r}: all {len(known)} rows of the training part {of}, so there is nothing to tell "
                "apart; use a larger training part or another split, or pre-train without probes (evaluate={})"
            )
        for part in ("validation", "test") if metric == "roc_auc" else ():
            rows = labels[getattr(split, part)]
            if not (rows != rows[0]).any():
                raise DataError(
                    f"split {k} of {name!r}: all {len(rows)} rows of the {part} part are of class {int(rows[0])}, and "
                    "ROC-AUC needs both classes; use larger parts or another split, or metric='accuracy'"
                )


def _check_range(probe_set: ProbeSet, splits: Sequence[Split], name: str) -> None:
    labels, last = probe_set.labels, 1 if probe_set.multilabel else probe_set.num_classes - 1
    wrong = ~((labels >= 0) & (labels <= last)).view(len(labels), -1).all(1).cpu().numpy()
    if not wrong.any():
        return
    used = np.zeros(len(labels), dtype=bool)
    for split in splits:
        for part in (split.train, split.validation, split.test):
            used[part] = True
    rows = np.flatnonzero(used & wrong)
    if len(rows):
        way_out = (
            "random splits use every row: use a named split of the labelled ones"
            if name == "random"
            else "leave unlabelled rows out of the splits"
        )
        raise DataError(
            f"{len(rows)} rows of the splits have labels outside 0..{last}, the first is row {rows[0]} "
            f"with {labels[rows[0]].tolist()}: {way_out}, or pre-train without probes (evaluate={{}})"
        )


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
