"""SGD with momentum as a recipe component."""

from __future__ import annotations

from typing import Annotated

import torch

from sslcollapse.core.schedules import ScheduleName
from sslcollapse.optim.base import OptimizerSpec, Trainable, check_momentum, check_nesterov
from sslcollapse.recipe.schema import AtLeast, Momentum


class SGD(OptimizerSpec):
    """SGD with momentum, linear warm-up, then a decaying learning rate.

    Formula: v ← m v + g + β w; w ← w − lr v.

    Args:
        lr: learning rate at the end of warm-up; lightly's CIFAR-10 setting is 0.06 · batch size / 128.
        momentum: m.
        nesterov: whether the step looks ahead: w ← w − lr (g + β w + m v).
        weight_decay: β, coupled with the gradient; the default is lightly's on CIFAR-10.
        warmup_steps: steps of linear warm-up from 0.
        schedule: ``"cosine"`` or ``"linear"`` to 0 at the end of training, or ``"constant"``.
        exclude_norm_and_bias: whether biases and normalisations get no weight decay. Off by default: lightly's
            CIFAR-10 setting decays all parameters.
        decay_regularized: whether matrices with a non-zero regularizer coefficient get weight decay too, as for
            ``adamw``.

    Raises:
        ValueError: for a momentum outside [0, 1), or ``nesterov`` without momentum.
    """

    def __init__(
        self,
        *,
        lr: Annotated[float, AtLeast(0)],
        momentum: Momentum = 0.9,
        nesterov: bool = False,
        weight_decay: Annotated[float, AtLeast(0)] = 5e-4,
        warmup_steps: Annotated[int, AtLeast(0)] = 0,
        schedule: ScheduleName = "cosine",
        exclude_norm_and_bias: bool = False,
        decay_regularized: bool = True,
    ) -> None:
        super().__init__(
            lr=lr,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            schedule=schedule,
            exclude_norm_and_bias=exclude_norm_and_bias,
            decay_regularized=decay_regularized,
        )
        self.momentum = check_momentum(momentum)
        self.nesterov = check_nesterov(nesterov, momentum)

    def build(self, module: Trainable) -> torch.optim.SGD:
        """The optimizer over the module's trainable parameters."""
        # Not fused: that kernel walks through memory, and a gradient need not be laid out as its parameter.
        return torch.optim.SGD(self.groups(module), lr=self.lr, momentum=self.momentum, nesterov=self.nesterov)
