"""SSLModule: the one ``nn.Module`` that is handed to Accelerate."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.distributed import Gather
from sslcollapse.layers import Layer, layer_map
from sslcollapse.objectives.base import Objective
from sslcollapse.registry import ENCODERS, OBJECTIVES, REGULARIZERS
from sslcollapse.regularizers.base import WeightPenalty
from sslcollapse.regularizers.coefficients import CoefficientFunction, resolve_coefficient
from sslcollapse.types import Batch, Branch


class SSLModule(nn.Module):
    """Online encoder and heads, target network, objective and regularizers; one forward gives the loss.

    Args:
        encoder: one view in, [N, out_dim] out.
        objective: says which heads and target it needs; they are built here.
        regularizers: name → weight penalty.
        total_steps: length of training, which schedules are relative to.

    Attributes:
        layers: layer name → ``Layer`` of the online network; head layers are prefixed with the head's name.
    """

    encoder: Any
    projector: Any
    predictor: Any
    objective: Objective
    target: Target | None

    def __init__(
        self,
        encoder: nn.Module,
        objective: Objective,
        regularizers: Mapping[str, WeightPenalty] | None = None,
        *,
        total_steps: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = objective.projector(self.encoder.out_dim)
        embedding_dim = self.encoder.out_dim if self.projector is None else self.projector.out_dim
        self.predictor = objective.predictor(int(embedding_dim))
        self.objective = objective
        self.regularizers = nn.ModuleDict(regularizers or {})
        self.total_steps = total_steps
        self.target = _target_of(self, objective.target_initialization) if objective.needs_target else None
        self.layers = self._layer_map()
        penalties = dict(regularizers or {})
        self._penalized = {name: self._layers_of(penalty) for name, penalty in penalties.items()}
        self._coefficients: dict[str, CoefficientFunction] = {
            name: resolve_coefficient(penalty.coefficient, self._penalized[name], total_steps)
            for name, penalty in penalties.items()
        }

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any], in_dim: int) -> SSLModule:
        """Build all networks that a resolved recipe asks for, from torch's global random state."""
        regularizers = {name: REGULARIZERS.build(spec) for name, spec in recipe["regularizers"].items()}
        return cls(
            ENCODERS.build(recipe["encoder"], in_dim),
            OBJECTIVES.build(recipe["objective"]),
            regularizers,
            total_steps=recipe["train"]["steps"],
        )

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The loss of optimiser step ``step`` (from 0) and its named parts, all scalars.

        Keys: ``loss``; ``objective/<part>``; ``regularizer/<name>/<layer>/penalty`` and ``.../weighted``.
        """
        online = [self.branch(view) for view in batch.views]
        target = None
        if self.target is not None:
            with torch.no_grad():
                target = [self.target(view) for view in batch.views]
        losses = self.objective(online, target, Gather(enabled=not batch.replicated))
        parts = {f"objective/{name}": value for name, value in losses.items()}
        total = sum(losses.values())
        for name, layer, penalty, coefficient in self.penalties(step):
            weighted = coefficient * penalty
            total = total + weighted
            parts[f"regularizer/{name}/{layer}/penalty"] = penalty.detach()
            parts[f"regularizer/{name}/{layer}/weighted"] = weighted.detach()
        return {"loss": total, **parts}

    def branch(self, view: Any) -> Branch:
        """One view through the online network."""
        h = self.encoder(view)
        z = h if self.projector is None else self.projector(h)
        return Branch(h, z, None if self.predictor is None else self.predictor(z))

    def penalties(self, step: int, *, inactive: bool = False) -> Iterator[tuple[str, str, Tensor, float]]:
        """(regularizer, layer, penalty, coefficient) at a step; those with coefficient 0 only if ``inactive``."""
        for name, regularizer in self.regularizers.items():
            coefficients = self._coefficients[name](step)
            layers = {layer: self._penalized[name][layer] for layer, value in coefficients.items() if value or inactive}
            for layer, penalty in regularizer(layers).items():
                yield name, layer, penalty, coefficients[layer]

    def coefficients(self, step: int) -> dict[str, dict[str, float]]:
        """Regularizer → layer → coefficient at a step."""
        return {name: at(step) for name, at in self._coefficients.items()}

    def regularized_layers(self) -> set[str]:
        """Names of the layers that some regularizer gives a non-zero coefficient at some step."""
        return {
            layer
            for at in self._coefficients.values()
            for step in range(self.total_steps)
            for layer, value in at(step).items()
            if value
        }

    @torch.no_grad()
    def update_target(self, step: int) -> None:
        """Move the target's parameters towards the online ones; call once after each real optimiser step.

        Parameters only: BatchNorm's running statistics are the target's own, made by its own forward passes.
        """
        if self.target is None:
            return
        momentum = self.objective.momentum_at(step, self.total_steps)
        targets, onlines = self.target.pairs(self)
        torch._foreach_lerp_(targets, onlines, 1.0 - momentum)

    def _layer_map(self) -> dict[str, Layer]:
        layers = layer_map(self.encoder)
        for head in ("projector", "predictor"):
            module = getattr(self, head)
            if module is not None:
                for name, layer in layer_map(module).items():
                    layers[f"{head}.{name}"] = replace(layer, name=f"{head}.{name}")
        return layers

    def _layers_of(self, penalty: WeightPenalty) -> dict[str, Layer]:
        heads = ("projector", "predictor")
        return {
            name: layer
            for name, layer in self.layers.items()
            if next((head for head in heads if name.startswith(f"{head}.")), "encoder") in penalty.networks
        }


class Target(nn.Module):
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
        h = self.encoder(view)
        return Branch(h, h if self.projector is None else self.projector(h), None)

    def pairs(self, online: SSLModule) -> tuple[list[Tensor], list[Tensor]]:
        """Target parameters and the online parameters that they follow, in the same order."""
        followed = [online.encoder] + ([] if online.projector is None else [online.projector])
        return list(self.parameters()), [p for module in followed for p in module.parameters()]


def _target_of(online: SSLModule, initialization: str) -> Target:
    target = Target(copy.deepcopy(online.encoder), copy.deepcopy(online.projector))
    if initialization == "own":
        target.encoder.reset_parameters()
        if target.projector is not None:
            target.projector.reset_parameters()
    elif initialization != "copy":
        raise ValueError(f"target_initialization must be 'own' or 'copy', got {initialization!r}")
    return target
