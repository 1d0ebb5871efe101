"""Logistic regression on frozen representations, its strength chosen on validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sslcollapse.core.memory import one_thread
from sslcollapse.core.types import ProbeSet, Split
from sslcollapse.probes.base import Fit, LinearModel, Outcome, SplitProbe, Targets
from sslcollapse.probes.metrics import check_metric, score
from sslcollapse.probes.splits import SplitChoice
from sslcollapse.recipe.schema import AtLeast, Between, Share, Width

SOLVERS = ("auto", "lbfgs", "liblinear", "torch")
LARGE = 2**22
"""Training rows × dimensions from which ``solver="auto"`` takes torch, torch works in float32, and fits
use several threads."""


class LogisticProbe(SplitProbe):
    """Logistic regression with C in 2^{-10..10} chosen on validation, on L2-normalised rows by default.

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
        rows: ``"unit"``, each row L2-normalised; ``"raw"``, rows keep their lengths, as CCA-SSG's authors evaluate
            (Zhang et al. 2021). All are divided by the mean length then, so that C means the same for every encoder.
        metric: ``"auto"`` is micro-F1 for multi-label sets, ROC-AUC for binary ones, else accuracy.
        max_iter: limit of iterations a fit; ``unconverged`` of the result counts the fits that hit it.
        c_step: takes every ``c_step``-th exponent of -10..10, for very large sets; 1 takes all.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(
        self,
        *,
        split: str = "public",
        fractions: Sequence[Share] = (0.1, 0.1, 0.8),
        repeats: Annotated[int, Between(1, 10_000)] = 20,
        split_seed: Annotated[int, AtLeast(0)] = 0,
        solver: Literal["auto", "lbfgs", "liblinear", "torch"] = "auto",
        rows: Literal["unit", "raw"] = "unit",
        metric: Literal["auto", "accuracy", "micro_f1", "roc_auc"] = "auto",
        max_iter: Width = 1000,
        c_step: Annotated[int, Between(1, 20)] = 1,
    ) -> None:
        self.splits = SplitChoice(split, tuple(fractions), repeats, split_seed)
        check_metric(metric)
        if solver not in SOLVERS:
            raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}")
        if rows not in ("unit", "raw"):
            raise ValueError(f"rows must be 'unit' or 'raw', got {rows!r}")
        for name, number in (("max_iter", max_iter), ("c_step", c_step)):
            if number < 1:
                raise ValueError(f"{name} must be >= 1, got {number}")
        self.solver = solver
        self.rows = rows
        self.metric = metric
        self.max_iter = max_iter
        self.cs = [2.0**exponent for exponent in range(-10, 11, c_step)]

    def evaluator(
        self, features: Tensor, probe_set: ProbeSet, splits: Sequence[Split], metric: str
    ) -> Callable[[Split], Outcome]:
        """What evaluates one split; the largest training part decides on solver, precision and threads of all."""
        features = features.detach()
        elements = max(len(split.train) for split in splits) * features.shape[1]
        solver = self._solver(elements, probe_set)
        device = features.device if solver == "torch" else torch.device("cpu")
        precision = torch.float32 if solver == "torch" and elements >= LARGE else torch.float64
        x = self._scaled(features.double()).to(device, precision)  # [N, d]
        labels = probe_set.labels.to(device)

        def evaluate(split: Split) -> Outcome:
            with nullcontext() if elements >= LARGE else one_thread():
                chosen = self._choose(x, labels, split, probe_set.num_classes, solver, metric)
            test = score(metric, chosen.model.scores(x[split.test]), labels[split.test])
            return Outcome(test, chosen.validation, solver, {"c": chosen.c, "unconverged": chosen.unconverged})

        return evaluate

    def details(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """``chosen_c`` of each split, and how many fits of all had not converged."""
        return {"chosen_c": [each["c"] for each in facts], "unconverged": sum(each["unconverged"] for each in facts)}

    def _scaled(self, x: Tensor) -> Tensor:
        """Rows of length 1, or of mean length 1; zero rows stay zero."""
        if self.rows == "unit":
            return normalize(x)
        mean = torch.linalg.vector_norm(x, dim=1).mean()
        return x / mean if mean > 0 else x

    def _choose(self, x: Tensor, labels: Tensor, split: Split, num_classes: int, solver: str, metric: str) -> _ChosenC:
        """Fit on the training part for every C and keep the best on the validation part."""
        targets = Targets.of(labels[split.train], num_classes, one_vs_rest=solver == "liblinear")
        rows, known = x[split.validation], labels[split.validation]
        candidates = []
        for c, fit in zip(self.cs, self._fits(x[split.train], targets.values, solver), strict=True):
            model = targets.model(fit)
            candidates.append((score(metric, model.scores(rows), known), c, model))
        best = max(candidates, key=lambda each: each[0])  # the first of equals: the smallest C
        return _ChosenC(*best, unconverged=sum(not model.converged for *_, model in candidates))

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
            from sslcollapse.probes.torch_logistic import torch_path  # SciPy and scikit-learn take seconds

            fits = torch_path(reduced, values, self.cs, max_iter=self.max_iter)
        else:
            from sslcollapse.probes.sklearn_logistic import sklearn_path

            fits = sklearn_path(reduced, values, self.cs, solver=solver, max_iter=self.max_iter)
        for fit in fits:
            yield fit if basis is None else fit._replace(weight=fit.weight @ basis.T.to(fit.weight))

    def _solver(self, training_elements: int, probe_set: ProbeSet) -> str:
        """The solver really used."""
        if self.solver != "auto":
            return self.solver
        return "torch" if probe_set.multilabel or training_elements >= LARGE else "lbfgs"


class _ChosenC(NamedTuple):
    """The best model on validation, and how many of the fits behind it had not converged."""

    validation: float
    c: float
    model: LinearModel
    unconverged: int
