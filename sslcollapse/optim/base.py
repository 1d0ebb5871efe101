"""What every optimizer recipe is: parameter groups, and the learning rate as a function of the step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from sslcollapse.core.schedules import ScheduleName, warmup_then_decay
from sslcollapse.layers.map import Layer


class Trainable(Protocol):
    """What is trained, as an optimizer sees it."""

    @property
    def layers(self) -> Mapping[str, Layer]:
        """Layer name → layer."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All of them, those that are not trained too."""

    def regularized_layers(self) -> set[str]:
        """Names of the layers with a penalty at some step."""

    def undecayed(self) -> set[nn.Parameter]:
        """Parameters without weight decay, since a constraint computes a weight from them."""


class OptimizerSpec:
    """The settings of an optimizer; ``build`` makes the optimizer over a module's trainable parameters.

    Args:
        lr: learning rate at the end of warm-up.
        weight_decay: of all parameters but those that the next arguments leave out.
        warmup_steps: steps of linear warm-up from 0.
        schedule: what follows warm-up.
        exclude_norm_and_bias: whether vectors (biases, and the scales of normalisations) get no weight decay.
        decay_regularized: whether matrices with a non-zero regularizer coefficient get weight decay too.

    Attributes:
        rate_on_device: whether the optimizer that is built takes a scalar tensor on its device as learning rate and
            never brings it to the host, so that its step can be captured as a CUDA graph.
    """

    rate_on_device: ClassVar[bool] = False

    def __init__(
        self,
        *,
        lr: float,
        weight_decay: float,
        warmup_steps: int,
        schedule: ScheduleName,
        exclude_norm_and_bias: bool,
        decay_regularized: bool,
    ) -> None:
        self.lr, self.weight_decay = lr, weight_decay
        self.warmup_steps, self.schedule = warmup_steps, schedule
        self.exclude_norm_and_bias, self.decay_regularized = exclude_norm_and_bias, decay_regularized

    def build(self, module: Trainable) -> torch.optim.Optimizer:
        """The optimizer over the module's trainable parameters."""
        raise NotImplementedError

    def lr_at(self, step: int, total: int) -> float:
        """Learning rate of optimiser step ``step`` (from 0) of ``total``."""
        return self.lr * warmup_then_decay(step, total, self.warmup_steps, self.schedule)

    def groups(self, module: Trainable) -> list[dict[str, Any]]:
        """Parameter groups with ``params``, ``weight_decay`` and ``excluded`` (vectors left out), none empty.

        A vector is a parameter of at most one dimension.
        """
        spared = set(module.undecayed())
        if not self.decay_regularized:
            spared |= {module.layers[name].parameter for name in module.regularized_layers()}
        decayed, undecayed, excluded = [], [], []
        for p in module.parameters():
            if not p.requires_grad:
                continue
            if self.exclude_norm_and_bias and p.dim() <= 1:
                excluded.append(p)
            elif p in spared:
                undecayed.append(p)
            else:
                decayed.append(p)
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay, "excluded": False},
            {"params": undecayed, "weight_decay": 0.0, "excluded": False},
            {"params": excluded, "weight_decay": 0.0, "excluded": True},
        ]
        return [group for group in groups if group["params"]]


@contextmanager
def rated(optimizer: torch.optim.Optimizer, rate: Tensor) -> Iterator[None]:
    """A context in which all groups have a scalar tensor as learning rate, and may be captured; then as before.

    Args:
        optimizer: of a spec with ``rate_on_device``, not wrapped by Accelerate.
        rate: float32 on a GPU, whose kernels read that.
    """
    capturing = rate.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    kept = ("lr", "capturable")
    before: list[dict[str, Any]] = [{k: group[k] for k in kept if k in group} for group in optimizer.param_groups]
    try:
        for group in optimizer.param_groups:
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = capturing
        yield
    finally:
        for group, values in zip(optimizer.param_groups, before, strict=True):
            group.update(values)


def stepped(optimizer: Any, scaler: Any) -> bool:
    """Take an optimiser step; whether it moved the weights, which it does not where a scaled gradient overflowed.

    Asked of the scaler, which lowers its scale after an overflow and at no other time. Accelerate's
    ``step_was_skipped`` stays False for a fused optimizer, whose kernel itself leaves the weights alone. The host waits
    for the device only where there is a scaler.

    Args:
        optimizer: as Accelerate prepared it.
        scaler: Accelerate's gradient scaler; None without one.
    """
    before = 0.0 if scaler is None else scaler.get_scale()
    optimizer.step()
    return scaler is None or bool(scaler.get_scale() >= before)


def check_momentum(momentum: float) -> float:
    """The momentum of a heavy-ball optimizer.

    Raises:
        ValueError: outside [0, 1); quotes it.
    """
    if not 0.0 <= momentum < 1.0:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    return momentum


def check_nesterov(nesterov: bool, momentum: float) -> bool:
    """Whether Nesterov's momentum is asked for.

    Raises:
        ValueError: where there is no momentum to look ahead with.
    """
    if nesterov and momentum == 0.0:
        raise ValueError("nesterov needs a momentum above 0; set momentum or leave nesterov out")
    return nesterov
