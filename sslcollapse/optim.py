"""Optimizers as recipe components: construction, parameter groups, and the learning rate as a function of the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from sslcollapse.module import SSLModule
from sslcollapse.schedules import ScheduleName, warmup_then_decay
from sslcollapse.spec import AtLeast


class AdamW:
    """AdamW (Loshchilov & Hutter 2019) with linear warm-up, then a decaying learning rate.

    Args:
        lr: learning rate at the end of warm-up.
        weight_decay: decoupled weight decay, on all parameters as BGRL's authors have it.
        betas: decay rates of the moment estimates.
        eps: added to the denominator.
        warmup_steps: steps of linear warm-up from 0.
        schedule: ``"cosine"`` or ``"linear"`` to 0 at the end of training, or ``"constant"``.
        decay_regularized: whether matrices with a non-zero regularizer coefficient get weight decay too;
            it pulls singular values below 1 against WERank. On by default, so that a comparison with and
            without a regularizer changes one thing only.
    """

    def __init__(
        self,
        *,
        lr: Annotated[float, AtLeast(0)],
        weight_decay: Annotated[float, AtLeast(0)] = 1e-5,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        warmup_steps: Annotated[int, AtLeast(0)] = 0,
        schedule: ScheduleName = "cosine",
        decay_regularized: bool = True,
    ) -> None:
        self.lr, self.weight_decay, self.betas, self.eps = lr, weight_decay, betas, eps
        self.warmup_steps, self.schedule = warmup_steps, schedule
        self.decay_regularized = decay_regularized

    def build(self, module: SSLModule) -> torch.optim.AdamW:
        """The optimizer over the module's trainable parameters, fused into one kernel a step."""
        spared = set()
        if not self.decay_regularized:
            spared = {module.layers[name].parameter for name in module.regularized_layers()}
        trainable = [p for p in module.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trainable if p not in spared], "weight_decay": self.weight_decay},
            {"params": [p for p in trainable if p in spared], "weight_decay": 0.0},
        ]
        return _TurningAdamW(
            [group for group in groups if group["params"]],
            lr=self.lr,
            betas=(self.betas[0], self.betas[1]),
            eps=self.eps,
            fused=True,
        )

    def lr_at(self, step: int, total: int) -> float:
        """Learning rate of optimiser step ``step`` (from 0) of ``total``."""
        return self.lr * warmup_then_decay(step, total, self.warmup_steps, self.schedule)


class _TurningAdamW(torch.optim.AdamW):
    """AdamW that updates matrices stored column by column (a GCN's weights) as their transposes.

    torch's fused kernel walks through memory: it copies a column-major matrix at every step, which on a CPU takes
    longer than the update, and it pairs wrong elements where a gradient is not laid out as its parameter. Here it
    is, and both are laid out as rows during the step. The moment estimates of such a matrix are kept, and saved, as
    [in, out].
    """

    def step(self, closure: Any = None) -> Any:
        """One step over all parameters that have a gradient."""
        if closure is not None:
            raise ValueError("closures are not supported: gradients must be there before the step")
        moved = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        for p in moved:
            if p.grad.stride() != p.stride():
                p.grad = torch.empty_like(p).copy_(p.grad)
        turned = [p for p in moved if _by_columns(p)]
        for p in turned:
            _turn(p)
        try:
            return super().step()
        finally:
            for p in turned:
                _turn(p)


def _by_columns(p: Tensor) -> bool:
    return p.device.type == "cpu" and p.dim() == 2 and not p.is_contiguous() and p.t().is_contiguous()


def _turn(p: Tensor) -> None:
    grad, p.grad = p.grad, None
    p.data = p.data.t()
    p.grad = None if grad is None else grad.t()
