"""Linear layers trained by SGD: on frozen representations, and beside an encoder that is learning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import groupby
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize, one_hot
from torch.nn.utils import skip_init

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.memory import one_thread
from sslcollapse.core.precision import full_precision, precisely
from sslcollapse.core.schedules import decay
from sslcollapse.core.seeding import generator
from sslcollapse.core.types import ProbeSet, Split
from sslcollapse.probes.base import Outcome, SplitProbe, scaled
from sslcollapse.probes.metrics import check_metric, score
from sslcollapse.probes.splits import SplitChoice
from sslcollapse.recipe.schema import Above, AtLeast, Between, Momentum, Share, Width

SCALINGS = ("standard", "length")
ROUNDING = 1e-6
"""Standard deviation of a column, in units of its mean size, below which it varies by rounding only."""

LARGE = 2**28
"""Multiplications of a step's product (batch × dimensions × outputs) from which steps use several threads."""
TOGETHER = 2**24
"""Values of training rows, and outputs for them, up to which splits are trained together: 64 MB."""
UNLABELLED = -1


class LinearProbe(SplitProbe):
    """Linear evaluation: softmax regression by SGD with momentum and cosine learning rate.

    For each split, one layer a learning rate is trained on the training part, all of them at once and on
    the same batches. The learning rate with the highest validation metric (of equals the smallest) gives
    the test value, the only use of the test part; there is no refit on train and validation together.
    It is the protocol of the vision literature (Chen et al. 2020, SimCLR, appendix B.6) on features that
    are computed once, without augmentation. Weights start at zero: the problem is convex, and then only
    the order of the rows is random. Splits whose training parts are of one size are trained together.

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

    def outcomes(
        self, features: Tensor, probe_set: ProbeSet, splits: Sequence[Split], metric: str
    ) -> Iterator[Outcome]:
        """The outcome of each split; splits whose training parts are of one size are trained together."""
        # Before float32, in which squares of large values are infinite, and of small ones zero.
        x = scaled(features.detach(), 0 if self.scaling == "standard" else 1).float()
        labels, classes = probe_set.labels.to(x.device), probe_set.num_classes
        outputs = len(self.lrs) * classes
        for rows, same in groupby(splits, key=lambda split: len(split.train)):
            group = list(same)
            together = max(1, TOGETHER // (rows * (x.shape[1] + outputs)))
            for start in range(0, len(group), together):
                some = group[start : start + together]
                large = min(self.batch_size, rows) * x.shape[1] * outputs >= LARGE
                with nullcontext() if large else one_thread():
                    found = self._evaluate(x, labels, some, classes, metric)
                yield from found

    def details(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """``chosen_lr`` of each split, scaling and epochs."""
        return {"chosen_lr": [each["lr"] for each in facts], "scaling": self.scaling, "epochs": self.epochs}

    @torch.no_grad()
    def _evaluate(
        self, x: Tensor, labels: Tensor, splits: Sequence[Split], num_classes: int, metric: str
    ) -> list[Outcome]:
        """Train on the training parts with every learning rate, and keep for each the best on its validation part."""
        parts = [self._scaled(x, split) for split in splits]
        weights, biases = train_linear(
            torch.stack([train for train, _, _ in parts]),
            torch.stack([labels[split.train] for split in splits]),
            num_classes,
            self.lrs,
            epochs=self.epochs,
            batch_size=self.batch_size,
            momentum=self.momentum,
            seed=self.seed,
        )
        outcomes = []
        for split, (_, validation, test), weight, bias in zip(splits, parts, weights, biases, strict=True):
            values = [
                score(metric, torch.addmm(b, validation, w.T), labels[split.validation])
                for w, b in zip(weight, bias, strict=True)
            ]
            best = values.index(max(values))  # the first of equals: the smallest learning rate
            scores = torch.addmm(bias[best], test, weight[best].T)
            facts = {"lr": self.lrs[best]}
            outcomes.append(Outcome(score(metric, scores, labels[split.test]), values[best], "sgd", facts))
        return outcomes

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
    """Weights and biases of a softmax regression for each of S training parts and L learning rates.

    Those of a part are one layer of L · C outputs. The gradient of the mean cross-entropy by the logits is
    (softmax − one-hot) / rows; no regression sees another's. The order of the rows depends on ``(seed, epoch)`` only,
    on any device.

    Shapes:
        x: [S, n, d]; labels: [S, n] classes; result: [S, L, C, d], [S, L, C].
    """
    parts, n, d = x.shape
    shape = (parts, len(lrs), num_classes)
    outputs = len(lrs) * num_classes
    weight, weight_velocity = x.new_zeros(parts, outputs, d), x.new_zeros(parts, outputs, d)
    bias, bias_velocity = x.new_zeros(parts, outputs), x.new_zeros(parts, outputs)
    rates = x.new_tensor(lrs).repeat_interleave(num_classes)  # [L · C]
    targets = one_hot(labels, num_classes).to(x)  # [S, n, C]
    batches = math.ceil(n / batch_size)
    for epoch in range(epochs):
        order = torch.randperm(n, generator=generator(torch.device("cpu"), "probe order", seed, epoch)).to(x.device)
        for k, rows in enumerate(order.tensor_split(batches)):
            inputs = x[:, rows]  # [S, B, d]
            logits = torch.baddbmm(bias[:, None], inputs, weight.mT).unflatten(2, shape[1:])
            residual = logits.softmax(-1).sub_(targets[:, rows, None]).div_(len(rows)).flatten(2)  # [S, B, L · C]
            weight_velocity.mul_(momentum).baddbmm_(residual.mT, inputs)
            bias_velocity.mul_(momentum).add_(residual.sum(1))
            rate = rates * decay(epoch * batches + k, epochs * batches, "cosine")
            weight.addcmul_(weight_velocity, rate[:, None], value=-1)
            bias.addcmul_(bias_velocity, rate, value=-1)
    return weight.view(*shape, d), bias.view(shape)


class OnlineProbe(nn.Module):
    """A linear layer on detached representations: it sends no gradient to the encoder.

    Weights start at zero and draw no random numbers, so neither the encoder's initial weights nor its
    views depend on whether there is a probe. It computes in the precision of its own weights (float32),
    outside autocast. Rows with label -1 are unlabelled and left out.

    Args:
        in_dim: width d of the representation.
        num_classes: C.

    Raises:
        ValueError: for a size below 1.
    """

    def __init__(self, in_dim: int, num_classes: int) -> None:
        super().__init__()
        for name, number in (("in_dim", in_dim), ("num_classes", num_classes)):
            if number < 1:
                raise ValueError(f"{name} must be >= 1, got {number}")
        self.linear = skip_init(nn.Linear, in_dim, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start again, at zero."""
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean cross-entropy, to be minimised, and accuracy, over the labelled rows (0 where there is none).

        Shapes:
            h: [N, d] or anything that flattens to it row by row; labels: [N] classes, or -1.
            result: ``loss`` and ``accuracy``, scalars; only the loss has a gradient.

        Raises:
            RecipeError: for labels that are not one class a row.
        """
        if labels.dim() != 1:
            raise RecipeError(
                f"the online probe needs one class a row, got labels of shape {tuple(labels.shape)}: "
                f"leave it out for multi-label sets"
            )
        with full_precision(h.device):
            rows = h.detach().flatten(1).to(self.linear.weight.dtype)
            logits = precisely(linear, rows, self.linear.weight, self.linear.bias)  # [N, C]
            labelled = (labels != UNLABELLED).sum().clamp(min=1)
            loss = cross_entropy(logits, labels, reduction="sum", ignore_index=UNLABELLED) / labelled
        # At -1 no class is predicted, so an unlabelled row is never a hit.
        accuracy = (logits.detach().argmax(1) == labels).sum() / labelled
        return {"loss": loss, "accuracy": accuracy}
