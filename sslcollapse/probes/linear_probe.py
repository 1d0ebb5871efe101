"""A linear layer trained by SGD on frozen representations, its learning rate chosen on validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from sslcollapse.core.memory import one_thread
from sslcollapse.core.schedules import decay
from sslcollapse.core.seeding import generator
from sslcollapse.core.types import ProbeSet, Split
from sslcollapse.probes.base import Outcome, SplitProbe
from sslcollapse.probes.metrics import check_metric, score
from sslcollapse.probes.splits import SplitChoice
from sslcollapse.recipe.schema import Above, AtLeast, Between, Momentum, Share, Width

SCALINGS = ("standard", "length")
ROUNDING = 1e-6
"""Standard deviation of a column, in units of its mean size, below which it varies by rounding only."""

LARGE = 2**28
"""Multiplications of a step's product (batch × dimensions × outputs) from which steps use several threads."""


class LinearProbe(SplitProbe):
    """Linear evaluation: softmax regression by SGD with momentum and cosine learning rate.

    For each split, one layer a learning rate is trained on the training part, all of them at once and on
    the same batches. The learning rate with the highest validation metric (of equals the smallest) gives
    the test value, the only use of the test part; there is no refit on train and validation together.
    It is the protocol of the vision literature (Chen et al. 2020, SimCLR, appendix B.6) on features that
    are computed once, without augmentation. Weights start at zero: the problem is convex, and then only
    the order of the rows is random.

    Works in float32 on the features' device.

    Args:
        split: ``"random"``, or a name among the probe set's own splits.
        fractions: train, validation and test shares of random splits.
        repeats: number of random splits.
        split_seed: of the random splits, apart from the model's.
        epochs: passes over the training part.
        batch_size: rows a step at most; the batches of an epoch are of nearly equal size.
        lrs: learning rates at the first step, to choose from.
        momentum: of SGD, v ← momentum · v + gradient.
        scaling: ``"standard"`` gives every column mean 0 and deviation 1 over the training part;
            ``"length"`` gives every row length √d, so that the same learning rates fit.
        seed: of the order of the training rows.
        metric: ``"auto"`` is ROC-AUC for binary sets, else accuracy.

    Raises:
        ValueError: for an argument out of range.
    """

    single_label = "linear"

    def __init__(
        self,
        *,
        split: str = "public",
        fractions: Sequence[Share] = (0.1, 0.1, 0.8),
        repeats: Annotated[int, Between(1, 10_000)] = 20,
        split_seed: Annotated[int, AtLeast(0)] = 0,
        epochs: Width = 100,
        batch_size: Width = 1024,
        lrs: Sequence[Annotated[float, Above(0)]] = (0.01, 0.03, 0.1, 0.3, 1.0),
        momentum: Momentum = 0.9,
        scaling: Literal["standard", "length"] = "standard",
        seed: Annotated[int, AtLeast(0)] = 0,
        metric: Literal["auto", "accuracy", "micro_f1", "roc_auc"] = "auto",
    ) -> None:
        self.splits = SplitChoice(split, tuple(fractions), repeats, split_seed)
        check_metric(metric)
        for name, number in (("epochs", epochs), ("batch_size", batch_size)):
            if number < 1:
                raise ValueError(f"{name} must be >= 1, got {number}")
        if not lrs or not all(math.isfinite(lr) and lr > 0 for lr in lrs):
            raise ValueError(f"lrs must be one or more positive numbers, got {list(lrs)}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if scaling not in SCALINGS:
            raise ValueError(f"scaling must be one of {', '.join(SCALINGS)}, got {scaling!r}")
        if seed < 0:
            raise ValueError(f"seed must be >= 0, got {seed}")
        self.epochs = epochs
        self.batch_size = batch_size
        self.lrs = sorted(set(lrs))
        self.momentum = momentum
        self.scaling = scaling
        self.seed = seed
        self.metric = metric

    def evaluator(
        self, features: Tensor, probe_set: ProbeSet, splits: Sequence[Split], metric: str
    ) -> Callable[[Split], Outcome]:
        """What evaluates one split."""
        x, labels, classes = features.detach().float(), probe_set.labels.to(features.device), probe_set.num_classes
        large = self.batch_size * x.shape[1] * len(self.lrs) * classes >= LARGE

        @torch.no_grad()
        def evaluate(split: Split) -> Outcome:
            with nullcontext() if large else one_thread():
                chosen = self._choose(x, labels, split, classes, metric)
            return Outcome(chosen.test, chosen.validation, "sgd", {"lr": chosen.lr})

        return evaluate

    def details(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """``chosen_lr`` of each split, scaling and epochs."""
        return {"chosen_lr": [each["lr"] for each in facts], "scaling": self.scaling, "epochs": self.epochs}

    def _choose(self, x: Tensor, labels: Tensor, split: Split, num_classes: int, metric: str) -> _ChosenRate:
        """Train on the training part with every learning rate and keep the best on the validation part."""
        train, validation, test = self._scaled(x, split)
        weights, biases = train_linear(
            train,
            labels[split.train],
            num_classes,
            self.lrs,
            epochs=self.epochs,
            batch_size=self.batch_size,
            momentum=self.momentum,
            seed=self.seed,
        )
        values = [
            score(metric, torch.addmm(bias, validation, weight.T), labels[split.validation])
            for weight, bias in zip(weights, biases, strict=True)
        ]
        best = values.index(max(values))  # the first of equals: the smallest learning rate
        scores = torch.addmm(biases[best], test, weights[best].T)
        return _ChosenRate(values[best], score(metric, scores, labels[split.test]), self.lrs[best])

    def _scaled(self, x: Tensor, split: Split) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the train, validation and test part, scaled by what the training part tells alone."""
        train, validation, test = (x[rows] for rows in (split.train, split.validation, split.test))
        if self.scaling == "length":
            length = math.sqrt(x.shape[1])
            return normalize(train) * length, normalize(validation) * length, normalize(test) * length
        variance, mean = torch.var_mean(train, dim=0, correction=0)  # [d], [d]
        deviation = variance.sqrt()
        # A constant column is left out; dividing by its rounding errors would make noise of it.
        factor = torch.where(deviation > ROUNDING * mean.abs(), 1 / deviation, 0.0)
        return (train - mean) * factor, (validation - mean) * factor, (test - mean) * factor


class _ChosenRate(NamedTuple):
    """The metric of the layer that is best on validation, and its learning rate."""

    validation: float
    test: float
    lr: float


@torch.no_grad()
def train_linear(
    x: Tensor,
    labels: Tensor,
    num_classes: int,
    lrs: Sequence[float],
    *,
    epochs: int,
    batch_size: int,
    momentum: float = 0.9,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Weights and biases of one softmax regression a learning rate, as one layer of L · C outputs.

    The gradient of the mean cross-entropy by the logits is (softmax − one-hot) / rows; no layer sees
    another's. The order of the rows depends on ``(seed, epoch)`` only, on any device.

    Shapes:
        x: [n, d]; labels: [n] classes; result: [L, C, d], [L, C].
    """
    n, d = x.shape
    shape = (len(lrs), num_classes)
    outputs = len(lrs) * num_classes
    weight, weight_velocity = x.new_zeros(outputs, d), x.new_zeros(outputs, d)
    bias, bias_velocity = x.new_zeros(outputs), x.new_zeros(outputs)
    rates = x.new_tensor(lrs).repeat_interleave(num_classes)  # [L · C]
    targets = one_hot(labels, num_classes).to(x)  # [n, C]
    batches = math.ceil(n / batch_size)
    for epoch in range(epochs):
        order = torch.randperm(n, generator=generator(torch.device("cpu"), "probe order", seed, epoch)).to(x.device)
        for k, rows in enumerate(order.tensor_split(batches)):
            inputs = x[rows]  # [B, d]
            logits = torch.addmm(bias, inputs, weight.T).view(-1, *shape)
            residual = logits.softmax(-1).sub_(targets[rows][:, None]).div_(len(rows)).flatten(1)  # [B, L · C]
            weight_velocity.mul_(momentum).addmm_(residual.T, inputs)
            bias_velocity.mul_(momentum).add_(residual.sum(0))
            rate = rates * decay(epoch * batches + k, epochs * batches, "cosine")
            weight.addcmul_(weight_velocity, rate[:, None], value=-1)
            bias.addcmul_(bias_velocity, rate, value=-1)
    return weight.view(*shape, d), bias.view(shape)
