"""LARS: SGD whose step on each matrix is relative to the matrix's length."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from sslcollapse.core.schedules import ScheduleName
from sslcollapse.optim.base import OptimizerSpec, Trainable, check_momentum, check_nesterov
from sslcollapse.recipe.schema import AtLeast, Momentum


class LARS(OptimizerSpec):
    """LARS (You et al. 2017): layer-wise adaptive rates for large batches, with warm-up and decay.

    Formula: λ = η ‖w‖ / (‖g‖ + β ‖w‖) for each parameter; v ← m v + λ (g + β w); w ← w − lr v. The learning rate
    multiplies v, not what enters it, as in torch's SGD. Where w or g is zero, λ = 1 and there is no decay.

    Args:
        lr: learning rate at the end of warm-up.
        momentum: m.
        nesterov: whether the step looks ahead, as for ``sgd``.
        weight_decay: β; the default is SimCLR's.
        trust_coefficient: η. solo-learn's CIFAR settings have 0.02 with ``clip``.
        clip: whether lr · λ is kept at or below lr, by λ ← min(λ / lr, 1): the rate of a parameter is then λ
            itself, and ``lr`` only bounds it (LARC).
        eps: added to the denominator.
        warmup_steps: steps of linear warm-up from 0.
        schedule: ``"cosine"`` or ``"linear"`` to 0 at the end of training, or ``"constant"``.
        exclude_norm_and_bias: whether biases and normalisations get neither weight decay nor adaptation (λ = 1),
            as SimCLR, BYOL and solo-learn's settings have it.
        decay_regularized: whether matrices with a non-zero regularizer coefficient get weight decay too, as for
            ``adamw``; they are adapted either way.

    Raises:
        ValueError: for a momentum outside [0, 1), or ``nesterov`` without momentum.

    Source: You, Gitman & Ginsburg 2017, arXiv 1708.03888, equation 6.

    lightly's LARS is not used: it adapts no parameter without weight decay, so that ``weight_decay=0`` is SGD
    unsaid and ``decay_regularized=False`` would change more than the decay; and it compares every norm with 0 on
    the host, which on a GPU waits for the device once a parameter.
    """

    def __init__(
        self,
        *,
        lr: Annotated[float, AtLeast(0)],
        momentum: Momentum = 0.9,
        nesterov: bool = False,
        weight_decay: Annotated[float, AtLeast(0)] = 1e-6,
        trust_coefficient: Annotated[float, AtLeast(0)] = 1e-3,
        clip: bool = False,
        eps: Annotated[float, AtLeast(0)] = 1e-8,
        warmup_steps: Annotated[int, AtLeast(0)] = 0,
        schedule: ScheduleName = "cosine",
        exclude_norm_and_bias: bool = True,
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
        self.trust_coefficient, self.clip, self.eps = trust_coefficient, clip, eps

    def build(self, module: Trainable) -> torch.optim.SGD:
        """The optimizer over the module's trainable parameters."""
        groups = self.groups(module)
        for group in groups:
            # Under another name, since torch's SGD would add its own decay after the adaptation.
            group["decay"], group["weight_decay"] = group["weight_decay"], 0.0
        return _AdaptedSGD(
            groups,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            trust_coefficient=self.trust_coefficient,
            clip=self.clip,
            eps=self.eps,
        )


class _AdaptedSGD(torch.optim.SGD):
    """torch's SGD on gradients replaced by λ (g + β w), in place."""

    def __init__(self, groups: Any, *, trust_coefficient: float, clip: bool, eps: float, **settings: Any) -> None:
        for group in groups:
            group.update(trust_coefficient=trust_coefficient, clip=clip, eps=eps)
        super().__init__(groups, **settings)

    def step(self, closure: Any = None) -> Any:
        """One step over all parameters that have a gradient."""
        if closure is not None:
            raise ValueError("closures are not supported: gradients must be there before the step")
        for group in self.param_groups:
            if not group["excluded"]:
                _adapt(group)
        return super().step()


@torch.no_grad()
def _adapt(group: dict[str, Any]) -> None:
    """Replace the gradients of a group by λ (g + β w), without waiting for the device."""
    weights = [p.detach() for p in group["params"] if p.grad is not None]
    gradients = [p.grad for p in group["params"] if p.grad is not None]
    if not weights:
        return
    decay = group["decay"]
    w_norm = torch.stack(torch._foreach_norm(weights))
    g_norm = torch.stack(torch._foreach_norm(gradients))
    rate: Tensor = group["trust_coefficient"] * w_norm / (g_norm + decay * w_norm + group["eps"])
    if group["clip"]:
        rate = (rate / group["lr"]).clamp(max=1.0)
    adapts = (w_norm > 0) & (g_norm > 0)
    torch._foreach_mul_(gradients, list(torch.where(adapts, rate, 1.0).unbind()))
    if decay:
        decayed = torch._foreach_mul(weights, list(torch.where(adapts, decay * rate, 0.0).unbind()))
        torch._foreach_add_(gradients, decayed)
