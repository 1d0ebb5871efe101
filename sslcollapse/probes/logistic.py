"""Logistic regression on frozen representations, its strength chosen on validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from sslcollapse.core.errors import DataError
from sslcollapse.core.memory import map_on_threads
from sslcollapse.core.types import ProbeSet, Split
from sslcollapse.probes.base import TILE, Outcome, SplitProbe, rows_made, scaled
from sslcollapse.probes.metrics import Tally, check_metric
from sslcollapse.probes.newton import solve
from sslcollapse.probes.splits import SplitChoice
from sslcollapse.recipe.schema import AtLeast, Between, Share, Width

SOLVERS = ("auto", "liblinear")
LARGE = 2**28
"""Multiplications of a product of one split (rows × dimensions × outputs of all C) from which it uses several threads;
below it, each of several splits has one."""
SINGLE = 2**25
"""Rows × dimensions from which features are kept in float32."""
CACHED, RESIDENT = 2**16, 2**24
"""Scores of training rows, of all C, that splits are fitted together up to: on a processor, whose cache then holds
what is at work, and elsewhere."""


class LogisticProbe(SplitProbe):
    """Logistic regression with C in 2^{-10..10} chosen on validation, on L2-normalised rows by default.

    For each split and C it minimises C Σ_train loss(W x + b, y) + ½ ‖W‖² on the training part. The C with
    the highest validation metric (of equals the smallest, the strongest penalty) gives the test value,
    the only use of the test part; there is no refit on train and validation together. The protocol is
    that of BGRL (Thakoor et al. 2022) and GRACE (Zhu et al. 2020).

    All C and as many splits as go together are one batch, solved on the features' device to the optimum
    (``probes.newton``), where scikit-learn's lbfgs and liblinear end too, given the iterations.

    Args:
        split: ``"random"``, or a name among the probe set's own splits.
        fractions: train, validation and test shares of random splits.
        repeats: number of random splits.
        split_seed: of the random splits, apart from the model's.
        solver: whose problem is solved. ``"auto"``: one softmax, or independent sigmoids for multi-label sets, as
            scikit-learn's lbfgs does. ``"liblinear"``: one class against the rest and a penalised intercept, as the
            authors of BGRL and GRACE have it.
        rows: ``"unit"``, each row L2-normalised; ``"raw"``, rows keep their lengths, as CCA-SSG's authors evaluate
            (Zhang et al. 2021). All are divided by the mean length then, so that C means the same for every encoder.
        metric: ``"auto"`` is micro-F1 for multi-label sets, ROC-AUC for binary ones, else accuracy.
        max_iter: limit of iterations of conjugate gradients for all fits that are solved together; ``unconverged`` of
            the result counts the fits that hit it.
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
        solver: Literal["auto", "liblinear"] = "auto",
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

    def outcomes(
        self, features: Tensor, probe_set: ProbeSet, splits: Sequence[Split], metric: str
    ) -> Iterator[Outcome]:
        """The outcome of each split; splits whose training parts have one shape are fitted together."""
        x = FittedRows(features.detach(), self.rows)
        labels = probe_set.labels.to(features.device)
        taught = [
            Targets.of(labels[split.train], probe_set.num_classes, one_vs_rest=self.solver == "liblinear")
            for split in splits
        ]
        host = features.device.type == "cpu"
        most, workers = (CACHED, torch.get_num_threads()) if host else (RESIDENT, 1)
        for (shape, _), same in groupby(zip(splits, taught, strict=True), key=lambda each: each[1].kind):
            group = list(same)
            size = max(1, most // (math.prod(shape) * len(self.cs)))
            batches = [group[start : start + size] for start in range(0, len(group), size)]
            evaluate = partial(self._evaluate, x, labels, metric)
            if (
                host and math.prod(shape) * features.shape[1] * len(self.cs) < LARGE
            ):  # batches in turns, each on one thread
                for start in range(0, len(batches), workers):
                    for found in map_on_threads(evaluate, batches[start : start + workers]):
                        yield from found
            else:
                for batch in batches:
                    yield from evaluate(batch)

    def details(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """``chosen_c`` of each split, and how many fits of all had not converged."""
        return {"chosen_c": [each["c"] for each in facts], "unconverged": sum(each["unconverged"] for each in facts)}

    def _evaluate(
        self, x: FittedRows, labels: Tensor, metric: str, batch: Sequence[tuple[Split, Targets]]
    ) -> list[Outcome]:
        """Fit on the training parts for every C, and keep for each the best on its validation part."""
        splits, taught = zip(*batch, strict=True)
        rows = torch.stack([x[split.train] for split in splits])
        fits = solve(
            rows if rows.numel() >= SINGLE else rows.double(),
            torch.stack([targets.values for targets in taught]),
            self.cs,
            softmax=taught[0].softmax,
            penalised_bias=self.solver == "liblinear",
            max_iter=self.max_iter,
        )
        solver = "newton, one-vs-rest" if self.solver == "liblinear" else "newton"
        outcomes = []
        for k, (split, targets) in enumerate(batch):
            weight, bias = targets.model(fits.weight[k], fits.bias[k])
            validation = _scored(metric, x, split.validation, labels, weight, bias)
            best = validation.index(max(validation))  # the first of equals: the smallest C
            (test,) = _scored(metric, x, split.test, labels, weight[best, None], bias[best, None])
            facts = {"c": self.cs[best], "unconverged": int((~fits.converged[k]).sum())}
            outcomes.append(Outcome(test, validation[best], solver, facts))
        return outcomes


class FittedRows:
    """Features as they are fitted: in float64, or in float32 where they are many, and then made where they are read.

    Args:
        features: [N, d].
        kind: ``"unit"``: of length 1; ``"raw"``: divided by the mean length. Zero rows stay zero.
    """

    def __init__(self, features: Tensor, kind: str) -> None:
        self._features, self._length = features, features.new_zeros((), dtype=torch.float64)
        if kind == "raw":
            parts = features.split(max(1, TILE // max(features.shape[1], 1)))
            self._length = torch.cat([torch.linalg.vector_norm(some.double(), dim=1) for some in parts]).mean()
        self._make = self._unit if kind == "unit" else self._raw
        self._made = None if features.numel() >= SINGLE else self._make(features)

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        if self._made is not None:
            return self._made[rows]
        return rows_made(self._make, self._features, rows)

    @property
    def width(self) -> int:
        """d."""
        return self._features.shape[1]

    def _unit(self, features: Tensor) -> Tensor:
        return normalize(scaled(features.double(), 1))

    def _raw(self, features: Tensor) -> Tensor:
        return features.double() / self._length if self._length > 0 else features.double()


def _scored(metric: str, x: FittedRows, rows: np.ndarray, labels: Tensor, weight: Tensor, bias: Tensor) -> list[float]:
    """The metric of each of B classifiers over some rows, which are made and scored in tiles where they are many.

    Shapes:
        rows: [n]; labels: [N] or [N, C]; weight: [B, C, d]; bias: [B, C].
    """
    classes = bias.shape[1]
    tile = len(rows) if len(rows) * x.width <= TILE else max(1, min(TILE // x.width, RESIDENT // classes))
    size = max(1, RESIDENT // (tile * classes))
    parts = list(zip(weight.split(size), bias.split(size), strict=True))
    tallies = [Tally(metric) for _ in parts]
    for start in range(0, len(rows), tile):
        some = rows[start : start + tile]
        own, known = x[some], labels[some]
        for (weights, offset), tally in zip(parts, tallies, strict=True):
            expanded = own.expand(len(weights), -1, -1)
            tally.add(torch.baddbmm(offset[:, None].to(own), expanded, weights.to(own).mT), known)
    return [value for tally in tallies for value in tally.values()]


@dataclass(frozen=True)
class Targets:
    """Training labels without the classes that they cannot teach.

    Shapes:
        values: [K, n], 1 where a row is of a class, else 0: of one softmax over K ≥ 3 classes, or of K independent
            sigmoids; each is both somewhere.
        classes: [K] class numbers; for two classes, the second one.
        bias: [C] scores of the classes that are not fitted.
    """

    values: Tensor
    softmax: bool
    classes: Tensor
    bias: Tensor

    @classmethod
    def of(cls, labels: Tensor, num_classes: int, *, one_vs_rest: bool) -> Targets:
        """Encode training labels ([n] classes or [n, C] in {0, 1}).

        Two classes become one sigmoid, as in scikit-learn: a softmax of two classes is penalised
        half as much.

        Raises:
            DataError: when there is nothing to tell apart.
        """
        if labels.dim() == 2:
            mean = labels.double().mean(0)
            varied = ((mean > 0) & (mean < 1)).nonzero().flatten()
            if len(varied) == 0:
                raise DataError("no label varies over the training rows: nothing can be learnt from them")
            bias = torch.where(mean > 0, math.inf, -math.inf).double()
            return cls(labels[:, varied].T.double(), False, varied, bias)
        classes, codes = torch.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise DataError(
                f"the training part holds class {classes.tolist()} only: nothing to tell apart; "
                f"use a larger training part"
            )
        bias = torch.full((num_classes,), -math.inf, dtype=torch.float64, device=labels.device)
        if len(classes) == 2:
            bias[classes[0]] = 0.0  # the reference class: its score is 0, the other's is the log-odds
            return cls(codes[None].double(), False, classes[1:], bias)
        return cls(one_hot(codes).T.double(), not one_vs_rest, classes, bias)

    @property
    def kind(self) -> tuple[torch.Size, bool]:
        """What training parts that are fitted together have in common."""
        return self.values.shape, self.softmax

    def model(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Classifiers over all C classes, of solutions for the fitted ones; one never seen has the bias −inf.

        Shapes:
            weight: [B, K, d]; bias: [B, K]; result: [B, C, d], [B, C].
        """
        every = weight.new_zeros(len(weight), len(self.bias), weight.shape[2])
        every[:, self.classes] = weight
        biases = self.bias.repeat(len(bias), 1)
        biases[:, self.classes] = bias
        return every, biases
