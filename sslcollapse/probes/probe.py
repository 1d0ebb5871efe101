"""What the probes of this package have in common: they evaluate split by split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from sslcollapse.core.types import ProbeSet, Split
from sslcollapse.probes.inputs import check_features, check_labels, check_single_label
from sslcollapse.probes.metrics import metric_for
from sslcollapse.probes.result import ProbeResult
from sslcollapse.probes.splits import SplitChoice


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
    def evaluator(
        self, features: Tensor, probe_set: ProbeSet, splits: Sequence[Split], metric: str
    ) -> Callable[[Split], Outcome]:
        """What evaluates one split; whatever depends on all ``splits`` is decided here.

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
        evaluate = self.evaluator(features, probe_set, splits, metric)
        return self.result(metric, splits, [evaluate(split) for split in splits])

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
