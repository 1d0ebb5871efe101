"""Logistic regression on frozen, L2-normalised representations, its strength chosen on validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.functional import normalize

from sslcollapse.errors import DataError, RecipeError
from sslcollapse.evaluation.linear import Fit, LinearModel, Targets
from sslcollapse.evaluation.metrics import METRICS, metric_for, score
from sslcollapse.evaluation.splits import check_fractions, check_split, random_splits
from sslcollapse.registry import suggest
from sslcollapse.types import ProbeSet, Split

SOLVERS = ("auto", "lbfgs", "liblinear", "torch")
LARGE = 2**22
"""Training rows × dimensions from which ``solver="auto"`` takes torch, torch works in float32, and fits
use several threads."""


@dataclass(frozen=True)
class ProbeResult:
    """What a probe measured, one entry a split.

    Attributes:
        metric: name of the metric of ``test`` and ``validation``.
        test: with the C chosen on validation.
        validation: the best over C.
        chosen_c: inverse strength of the penalty.
        solver: the one really used.
        splits: the divisions, in the order of the values.
        unconverged: fits, over all splits and C, that stopped at ``max_iter``.
    """

    metric: str
    test: list[float]
    validation: list[float]
    chosen_c: list[float]
    solver: str
    splits: tuple[Split, ...]
    unconverged: int = 0

    def to_json(self) -> dict[str, Any]:
        """As stored in ``result.json``; standard deviations have ddof 1 and are null for one split."""
        return {
            "solver": self.solver,
            f"test_{self.metric}": _summary(self.test),
            f"validation_{self.metric}": _summary(self.validation),
            "chosen_c": self.chosen_c,
            "unconverged": self.unconverged,
        }


class LogisticProbe:
    """Logistic regression with C in 2^{-10..10} chosen on validation, on L2-normalised rows.

    For each split and C it minimises C Σ_train loss(W x + b, y) + ½ ‖W‖² on the training part. The C with
    the highest validation metric (of equals the smallest, the strongest penalty) gives the test value,
    the only use of the test part; there is no refit on train and validation together. The protocol is
    that of BGRL (Thakoor et al. 2022) and GRACE (Zhu et al. 2020).

    Args:
        split: ``"random"``, or a name among the probe set's own splits.
        fractions: train, validation and test shares of random splits.
        repeats: number of random splits.
        split_seed: of the random splits, apart from the model's.
        solver: ``"lbfgs"``, multinomial (scikit-learn); ``"liblinear"``, one-vs-rest with a penalised
            intercept, as the BGRL authors; ``"torch"``, the objective of lbfgs on the features' device.
            ``"auto"`` is torch for multi-label sets and from 2^22 training rows × dimensions on, else
            lbfgs.
        metric: ``"auto"`` is micro-F1 for multi-label sets, ROC-AUC for binary ones, else accuracy.
        max_iter: limit of iterations a fit; ``ProbeResult.unconverged`` counts the fits that hit it.
        c_step: takes every ``c_step``-th exponent of -10..10, for very large sets; 1 takes all.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(
        self,
        *,
        split: str = "public",
        fractions: Sequence[float] = (0.1, 0.1, 0.8),
        repeats: int = 20,
        split_seed: int = 0,
        solver: Literal["auto", "lbfgs", "liblinear", "torch"] = "auto",
        metric: Literal["auto", "accuracy", "micro_f1", "roc_auc"] = "auto",
        max_iter: int = 1000,
        c_step: int = 1,
    ) -> None:
        check_fractions(fractions)
        for name, value, choices in (("solver", solver, SOLVERS), ("metric", metric, ("auto", *METRICS))):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        for name, number in (("repeats", repeats), ("max_iter", max_iter), ("c_step", c_step)):
            if number < 1:
                raise ValueError(f"{name} must be >= 1, got {number}")
        if split_seed < 0:
            raise ValueError(f"split_seed must be >= 0, got {split_seed}")
        self.split = split
        self.fractions = tuple(fractions)
        self.repeats = repeats
        self.split_seed = split_seed
        self.solver = solver
        self.metric = metric
        self.max_iter = max_iter
        self.cs = [2.0**exponent for exponent in range(-10, 11, c_step)]

    def splits_for(self, probe_set: ProbeSet) -> tuple[Split, ...]:
        """The splits that this probe uses on a set, checked.

        Raises:
            RecipeError: for an unknown split name.
            DataError: for a split whose parts overlap or leave the set.
        """
        n = len(probe_set.labels)
        if self.split == "random":
            splits = random_splits(n, self.fractions, self.repeats, self.split_seed)
        elif self.split in probe_set.splits:
            splits = tuple(probe_set.splits[self.split])
        else:
            known = [*probe_set.splits, "random"]
            raise RecipeError(
                f"this data set has no split {self.split!r}{suggest(self.split, known)} (known: {', '.join(known)})"
            )
        for k, split in enumerate(splits):
            try:
                check_split(split, n)
            except DataError as error:
                raise DataError(f"split {k} of {self.split!r}: {error}") from None
        return splits

    def __call__(self, features: Tensor, probe_set: ProbeSet) -> ProbeResult:
        """Evaluate frozen features.

        Shapes:
            features: [N, d], one row a label.

        Raises:
            DataError: for features that are not finite or do not belong to the labels, for bad labels.
            RecipeError: for a split that the set does not have, or a metric that does not fit it.
        """
        splits = self.splits_for(probe_set)
        metric = self._metric(probe_set)
        features = features.detach()
        _check_features(features, probe_set.labels)
        _check_labels(probe_set, splits)
        elements = max(len(split.train) for split in splits) * features.shape[1]
        solver = self._solver(elements, probe_set)
        device = features.device if solver == "torch" else torch.device("cpu")
        precision = torch.float32 if solver == "torch" and elements >= LARGE else torch.float64
        x = normalize(features.double()).to(device, precision)  # [N, d]; zero rows stay zero
        labels = probe_set.labels.to(device)

        with nullcontext() if elements >= LARGE else _one_thread():
            chosen = [self._choose(x, labels, split, probe_set.num_classes, solver, metric) for split in splits]
        return ProbeResult(
            metric=metric,
            test=[
                score(metric, each.model.scores(x[split.test]), labels[split.test])
                for each, split in zip(chosen, splits, strict=True)
            ],
            validation=[each.validation for each in chosen],
            chosen_c=[each.c for each in chosen],
            solver=solver,
            splits=splits,
            unconverged=sum(each.unconverged for each in chosen),
        )

    def _choose(self, x: Tensor, labels: Tensor, split: Split, num_classes: int, solver: str, metric: str) -> _Chosen:
        """Fit on the training part for every C and keep the best on the validation part."""
        targets = Targets.of(labels[split.train], num_classes, one_vs_rest=solver == "liblinear")
        rows, known = x[split.validation], labels[split.validation]
        candidates = []
        for c, fit in zip(self.cs, self._fits(x[split.train], targets.values, solver), strict=True):
            model = targets.model(fit)
            candidates.append((score(metric, model.scores(rows), known), c, model))
        best = max(candidates, key=lambda each: each[0])  # the first of equals: the smallest C
        return _Chosen(*best, unconverged=sum(not model.converged for *_, model in candidates))

    def _fits(self, x: Tensor, values: Tensor, solver: str) -> Iterator[Fit]:
        """Solutions for ascending C, found in as few dimensions as lose nothing.

        The optimum lies in the span of the training rows (representer theorem), so n < d rows leave an
        n-dimensional problem; an orthonormal basis of the span keeps ‖W‖.

        Shapes:
            x: [n, d]; values: as ``Targets.values``.
        """
        basis = torch.linalg.qr(x.T).Q if len(x) < x.shape[1] else None  # [d, n]
        reduced = x if basis is None else x @ basis
        if solver == "torch":
            from sslcollapse.evaluation.torch_logistic import torch_path  # SciPy and scikit-learn take seconds

            fits = torch_path(reduced, values, self.cs, max_iter=self.max_iter)
        else:
            from sslcollapse.evaluation.sklearn_logistic import sklearn_path

            fits = sklearn_path(reduced, values, self.cs, solver=solver, max_iter=self.max_iter)
        for fit in fits:
            yield fit if basis is None else fit._replace(weight=fit.weight @ basis.T.to(fit.weight))

    def _metric(self, probe_set: ProbeSet) -> str:
        """The metric of a set, refused where it does not fit the labels."""
        if self.metric == "auto":
            return metric_for(probe_set)
        if self.metric == "accuracy" and probe_set.multilabel:
            raise RecipeError("metric='accuracy' needs one class a row, but this set is multi-label: use 'auto'")
        if self.metric == "roc_auc" and (probe_set.multilabel or probe_set.num_classes != 2):
            raise RecipeError(
                f"metric='roc_auc' needs two classes, but this set has {probe_set.num_classes}"
                f"{' labels a row' if probe_set.multilabel else ''}: use 'auto'"
            )
        return self.metric

    def _solver(self, training_elements: int, probe_set: ProbeSet) -> str:
        """The solver really used."""
        if self.solver != "auto":
            return self.solver
        return "torch" if probe_set.multilabel or training_elements >= LARGE else "lbfgs"


class _Chosen(NamedTuple):
    """The best model on validation, and how many of the fits behind it had not converged."""

    validation: float
    c: float
    model: LinearModel
    unconverged: int


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep small products on one thread: threads that wait for a busy core cost far more than they save."""
    threads = torch.get_num_threads()
    try:
        with threadpool_limits(limits=1):
            torch.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(threads)


def _check_features(features: Tensor, labels: Tensor) -> None:
    """Refuse anything but one finite row a label."""
    if features.dim() != 2 or len(features) != len(labels):
        raise DataError(
            f"features must be [N, d] with a row for each of the {len(labels)} labels, "
            f"got shape {tuple(features.shape)}"
        )
    bad = (~torch.isfinite(features)).any(1).nonzero().flatten()
    if len(bad):
        raise DataError(
            f"{len(bad)} of {len(features)} feature rows hold NaN or infinite values, the first is row "
            f"{int(bad[0])}: the encoder has diverged; lower its learning rate or look at the loss"
        )


def _check_labels(probe_set: ProbeSet, splits: Sequence[Split]) -> None:
    """Refuse labels outside 0..C-1 (or {0, 1} for multi-label rows) among the rows that are used."""
    labels, last = probe_set.labels, 1 if probe_set.multilabel else probe_set.num_classes - 1
    used = np.unique(np.concatenate([part for s in splits for part in (s.train, s.validation, s.test)]))
    wrong = ((labels < 0) | (labels > last)).view(len(labels), -1).any(1).cpu().numpy()[used]
    if wrong.any():
        row = used[wrong.argmax()]
        raise DataError(
            f"{int(wrong.sum())} rows of the splits have labels outside 0..{last}, the first is row {row} "
            f"with {labels[row].tolist()}: leave unlabelled rows out of the splits"
        )


def _summary(values: Sequence[float]) -> dict[str, Any]:
    """Values with mean and standard deviation (ddof 1; None for a single value)."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"values": list(values), "mean": float(np.mean(values)), "std": std}
