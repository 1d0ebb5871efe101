"""AdamW as a recipe component."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from sslcollapse.core.schedules import ScheduleName
from sslcollapse.optim.base import OptimizerSpec, Trainable
from sslcollapse.recipe.schema import AtLeast, Momentum


class AdamW(OptimizerSpec):
    """AdamW (Loshchilov & Hutter 2019) with linear warm-up, then a decaying learning rate.

    Args:
        lr: learning rate at the end of warm-up.
        weight_decay: decoupled weight decay, on all parameters as BGRL's authors have it; with 0 this is Adam.
        betas: decay rates of the moment estimates.
        eps: added to the denominator.
        warmup_steps: steps of linear warm-up from 0.
        schedule: ``"cosine"`` or ``"linear"`` to 0 at the end of training, or ``"constant"``.
        exclude_norm_and_bias: whether biases and normalisations get no weight decay.
        decoupled: False adds weight_decay · W to the gradient instead, which is Adam (Kingma & Ba 2015) with L2
            regularisation, as GRACE's authors train.
        decay_regularized: whether matrices with a non-zero regularizer coefficient get weight decay too;
            it pulls singular values below 1 against WERank. On by default, so that a comparison with and
            without a regularizer changes one thing only.

    Raises:
        ValueError: for ``betas`` that are not two numbers in [0, 1).
    """

    rate_on_device = True

    def __init__(
        self,
        *,
        lr: Annotated[float, AtLeast(0)],
        weight_decay: Annotated[float, AtLeast(0)] = 1e-5,
        betas: Sequence[Momentum] = (0.9, 0.999),
        eps: Annotated[float, AtLeast(0)] = 1e-8,
        warmup_steps: Annotated[int, AtLeast(0)] = 0,
        schedule: ScheduleName = "cosine",
        exclude_norm_and_bias: bool = False,
        decay_regularized: bool = True,
        decoupled: bool = True,
    ) -> None:
        super().__init__(
            lr=lr,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            schedule=schedule,
            exclude_norm_and_bias=exclude_norm_and_bias,
            decay_regularized=decay_regularized,
        )
        if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {list(betas)}")
        self.betas, self.eps, self.decoupled = (betas[0], betas[1]), eps, decoupled

    def build(self, module: Trainable) -> torch.optim.Adam:
        """The optimizer over the module's trainable parameters, fused into one kernel a step."""
        return _TurningAdam(
            self.groups(module),
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            decoupled_weight_decay=self.decoupled,
            fused=True,
        )


class _TurningAdam(torch.optim.Adam):
    """Adam that updates matrices stored column by column (a GCN's weights) as their transposes.

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
