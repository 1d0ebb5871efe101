"""SGD with momentum as a recipe component."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

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

    rate_on_device = True

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
        return _SGD(self.groups(module), lr=self.lr, momentum=self.momentum, nesterov=self.nesterov)


class _SGD(torch.optim.SGD):
    """torch's SGD, which also takes a scalar tensor as learning rate without bringing it to the host.

    Not torch's fused kernel: it walks through memory, and a gradient need not be laid out as its parameter.
    """

    def step(self, closure: Any = None) -> Any:
        """One step over all parameters that have a gradient."""
        if not any(isinstance(group["lr"], Tensor) for group in self.param_groups):
            return super().step(closure)
        if closure is not None:
            raise ValueError("closures are not supported: gradients must be there before the step")
        for group in self.param_groups:
            self._step_of(group)
        return None

    @torch.no_grad()
    def _step_of(self, group: dict[str, Any]) -> None:
        """The formula of the class above, with the buffers that torch's step has."""
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        moves: Any = [p.grad for p in params]
        if group["weight_decay"]:
            moves = torch._foreach_add(moves, params, alpha=group["weight_decay"])
        if group["momentum"]:
            moves = self._with_momentum(params, moves, group["momentum"], group["nesterov"])
        torch._foreach_add_(params, torch._foreach_mul(moves, -group["lr"]))

    def _with_momentum(self, params: list[Tensor], moves: list[Tensor], momentum: float, nesterov: bool) -> Any:
        old = [(p, move) for p, move in zip(params, moves, strict=True) if "momentum_buffer" in self.state[p]]
        if old:
            buffers = [self.state[p]["momentum_buffer"] for p, _ in old]
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, [move for _, move in old])
        for p, move in zip(params, moves, strict=True):
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = move.clone()
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        return torch._foreach_add(moves, buffers, alpha=momentum) if nesterov else buffers
