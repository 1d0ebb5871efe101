"""Metrics of a probe: accuracy, micro-averaged F1, area under the ROC curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.core.types import ProbeSet
from sslcollapse.probes import METRICS


def check_metric(metric: str) -> None:
    """Raise ValueError unless it is ``"auto"`` or the name of a metric."""
    if metric not in ("auto", *METRICS):
        raise ValueError(f"metric must be one of {', '.join(('auto', *METRICS))}, got {metric!r}")


def metric_for(probe_set: ProbeSet, metric: str = "auto") -> str:
    """Name of the metric of a set: for ``"auto"`` the customary one, else the given one if it fits the labels.

    Customary are micro-F1 for multi-label sets, ROC-AUC for binary ones, and else accuracy.

    Raises:
        RecipeError: for a metric that the labels do not have.
    """
    if metric == "auto":
        if probe_set.multilabel:
            return "micro_f1"
        return "roc_auc" if probe_set.num_classes == 2 else "accuracy"
    if metric == "accuracy" and probe_set.multilabel:
        raise RecipeError("metric='accuracy' needs one class a row, but this set is multi-label: use 'auto'")
    if metric == "roc_auc" and (probe_set.multilabel or probe_set.num_classes != 2):
        raise RecipeError(
            f"metric='roc_auc' needs two classes, but this set has {probe_set.num_classes}"
            f"{' labels a row' if probe_set.multilabel else ''}: use 'auto'"
        )
    return metric


def accuracy(predicted: Any, labels: Any) -> float:
    """Share of rows whose predicted class is the label.

    Shapes:
        predicted, labels: [N] classes, tensors or arrays.
    """
    predicted, labels = _pair(predicted, labels)
    return float(_hits(predicted, labels))


def micro_f1(predicted: Any, labels: Any) -> float:
    """F1 = 2 TP / (2 TP + FP + FN) over all rows and labels together; 0 when nothing is positive.

    For single-label classes every error is one false positive and one false negative, so it is the
    accuracy.

    Shapes:
        predicted, labels: [N, C] in {0, 1} (or bool), or [N] classes.
    """
    predicted, labels = _pair(predicted, labels)
    return float(_hits(predicted, labels) if labels.dim() == 1 else _f1(predicted.bool(), labels.bool()))


def roc_auc(scores: Any, labels: Any) -> float:
    """Probability that a row of class 1 scores higher than a row of class 0; equal scores count one half.

    Shapes:
        scores: [N], higher for class 1.
        labels: [N] in {0, 1}.

    Raises:
        DataError: when only one class is there, for which the area is undefined.
    """
    return float(_auc(*_pair(scores, labels)))


def score(metric: str, class_scores: Tensor, labels: Tensor) -> float:
    """Apply a metric to what a classifier returns.

    Shapes:
        class_scores: [N, C]; the largest of a row is the predicted class, or, for multi-label rows,
            every positive one is a predicted label.
        labels: [N] classes, or [N, C] in {0, 1}.
    """
    return scores(metric, class_scores[None], labels)[0]


def scores(metric: str, class_scores: Tensor, labels: Tensor) -> list[float]:
    """Apply a metric to what each of B classifiers returns; the host waits for a device once.

    Shapes:
        class_scores: [B, N, C], see ``score``; labels: [N] classes, or [N, C] in {0, 1}.
    """
    tally = Tally(metric)
    tally.add(class_scores, labels)
    return tally.values()


class Tally:
    """A metric of each of B classifiers over rows that come in parts; what ``scores`` gives of all of them at once.

    Args:
        metric: its name. Of ROC-AUC a number a row and classifier is kept, of others counts.
    """

    def __init__(self, metric: str) -> None:
        self._metric, self._rows = metric, 0
        self._counts: Tensor | None = None  # hits [B], or hits and marked [2, B]
        self._margins: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, class_scores: Tensor, labels: Tensor) -> None:
        """Further rows.

        Shapes:
            class_scores: [B, n, C], see ``score``; labels: [n] classes, or [n, C] in {0, 1}.
        """
        self._rows += len(labels)
        if self._metric == "roc_auc":
            self._margins.append(class_scores[..., 1] - class_scores[..., 0])
            self._labels.append(labels)
            return
        if labels.dim() == 2:
            found = torch.stack(_f1_counts(class_scores > 0, labels.bool()))
        else:  # where micro-F1 is the accuracy
            found = (class_scores.argmax(-1) == labels).sum(-1)
        self._counts = found if self._counts is None else self._counts + found

    def values(self) -> list[float]:
        """The metric of each classifier; the host waits for a device once."""
        if self._counts is None:
            found = _auc(torch.cat(self._margins, -1), torch.cat(self._labels))
        elif self._counts.dim() == 2:
            found = _f1_of(*self._counts)
        else:
            found = self._counts.double() / self._rows
        return [float(value) for value in found.tolist()]


def _hits(predicted: Tensor, labels: Tensor) -> Tensor:
    """Accuracy [...] of [..., N] predicted classes."""
    return (predicted == labels).double().mean(-1)


def _f1(predicted: Tensor, labels: Tensor) -> Tensor:
    """Micro-averaged F1 [...] of [..., N, C] predicted labels, bool."""
    return _f1_of(*_f1_counts(predicted, labels))


def _f1_counts(predicted: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """True positives, and 2 TP + FP + FN, which is how many are marked."""
    return (predicted & labels).sum((-2, -1)), predicted.sum((-2, -1)) + labels.sum()


def _f1_of(hits: Tensor, marked: Tensor) -> Tensor:
    return 2 * hits / marked.clamp(min=1).double()


def _auc(scores: Tensor, labels: Tensor) -> Tensor:
    """Area under the ROC curve [...] of [..., N] scores."""
    present = torch.unique(labels).tolist()
    if len(present) != 2:
        raise DataError(
            f"ROC-AUC needs rows of both classes, got only {present} among {len(labels)} rows: "
            f"use larger parts, or metric='accuracy'"
        )
    low = scores[..., labels == present[0]].sort(-1).values  # [..., n₀]
    high = scores[..., labels == present[1]].contiguous()  # [..., n₁]
    lower = torch.searchsorted(low, high) + torch.searchsorted(low, high, right=True)  # equal ones count once in two
    return lower.sum(-1).double() / (2 * low.shape[-1] * high.shape[-1])


def _pair(predicted: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Both as tensors on one device; refuse different shapes, which would broadcast."""
    predicted, labels = (
        torch.from_numpy(np.asarray(value)) if not isinstance(value, Tensor) else value.detach()
        for value in (predicted, labels)
    )
    if predicted.shape != labels.shape:
        raise ValueError(
            f"predictions of shape {tuple(predicted.shape)} do not belong to labels of shape {tuple(labels.shape)}"
        )
    return predicted, labels.to(predicted.device)
