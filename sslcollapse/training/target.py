"""The target network of bootstrap objectives: a frozen copy that follows the online network."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.types import Branch, sample_rows
from sslcollapse.layers.effective import effective, oriented
from sslcollapse.layers.map import layer_map
from sslcollapse.nn.init import initialize
from sslcollapse.objectives.base import Objective


class TargetNetwork(nn.Module):
    """The frozen copy of encoder and projector that bootstrap objectives predict."""

    encoder: Any
    projector: Any

    def __init__(self, encoder: nn.Module, projector: nn.Module | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.requires_grad_(False)

    def forward(self, view: Any) -> Branch:
        """One view → branch without prediction."""
        h = sample_rows(self.encoder(view), view)
        return Branch(h, h if self.projector is None else self.projector(h), None)

    @torch.no_grad()
    def follow(self, online: Any, weight: float | Tensor, *, buffers: bool) -> None:
        """Move the parameters towards the online ones, which are what the online network multiplies with.

        Parameters only: BatchNorm's running statistics are the target's own, made by its own forward passes, unless
        ``buffers``, which are copied.

        Args:
            online: the ``SSLModule``.
            weight: how far; a scalar tensor where the host does not know it.
            buffers: whether they follow too.
        """
        targets, onlines = self.pairs(online)
        torch._foreach_lerp_(targets, onlines, [weight] * len(targets) if isinstance(weight, Tensor) else weight)
        if buffers:
            for name, own in self.named_buffers():
                own.copy_(online.get_buffer(name))

    def pairs(self, online: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Its parameters and the online parameters, or computed weights, that they follow, in the same order.

        Args:
            online: the ``SSLModule``.
        """
        if not online.constrained.tensors:
            return list(self.parameters()), [p for module in _followed(online) for p in module.parameters()]
        names, targets = zip(*self.named_parameters(), strict=True)
        return list(targets), [_acting(online, name) for name in names]


def _followed(online: Any) -> list[nn.Module]:
    return [online.encoder] + ([] if online.projector is None else [online.projector])


def target_of(online: Any, initialization: str, scheme: str | None) -> TargetNetwork:
    """The target of an online network, before constraints, which it does not have.

    Args:
        online: with encoder and projector.
        initialization: ``"own"`` weights, drawn again, or a ``"copy"``.
        scheme: of ``initialize``, which own weights of the encoder are drawn by; None for the encoder's own.
    """
    target = TargetNetwork(copy.deepcopy(online.encoder), copy.deepcopy(online.projector))
    if initialization == "own":
        target.encoder.reset_parameters()
        if scheme is not None:
            initialize(layer_map(target.encoder).values(), scheme)
        if target.projector is not None:
            target.projector.reset_parameters()
    elif initialization != "copy":
        raise ValueError(f"target_initialization must be 'own' or 'copy', got {initialization!r}")
    return target


def initialization_left(objective: Objective, steps: int) -> float | None:
    """Share of its initialisation that a target has left after all steps: the product of momenta; None without one.

    With 1 % or less it has turned over: what is predicted is what the online network has been.
    """
    return math.prod(objective.momentum_at(step, steps) for step in range(steps)) if objective.needs_target else None


def _acting(online: nn.Module, name: str) -> Tensor:
    """A parameter, or what stands in its place where a constraint computes it."""
    owner, _, tensor = name.rpartition(".")
    module = online.get_submodule(owner)
    parameter = module._parameters.get(tensor)
    return oriented(module, tensor, effective(module, tensor)) if parameter is None else parameter
