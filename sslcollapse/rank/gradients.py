"""Whether a penalty's gradient outweighs or opposes the objective's, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from sslcollapse.core.memory import to_host
from sslcollapse.layers.map import Layer


class Penalized(Protocol):
    """A network with penalties on its weights."""

    @property
    def layers(self) -> Mapping[str, Layer]:
        """Layer name → layer."""

    def weight_penalties(self, step: int) -> Iterator[tuple[str, str, Tensor, float]]:
        """(regularizer, layer, penalty, coefficient) at a step."""


def penalty_gradients(module: Penalized, step: int) -> dict[str, dict[str, float]]:
    """Compare the gradients of penalty and objective on every regularised weight; call after ``backward``.

    The parameters' ``grad`` is the sum of both (its mean over ranks), and the penalty's part is the same on all
    ranks, so the objective's part is the difference: no second backward pass through the network.

    Returns:
        layer → ``norm_ratio`` ‖g_penalty‖ / ‖g_objective‖ and ``cosine`` between the two.
    """
    sums: dict[str, Tensor] = {}
    with torch.enable_grad():
        for _, name, penalty, coefficient in module.weight_penalties(step):
            sums[name] = sums[name] + coefficient * penalty if name in sums else coefficient * penalty
    # In one backward pass: layers that share a tensor share a graph, and the gradient of that tensor is the sum of all.
    parameters = {name: module.layers[name].parameter for name in sums}
    distinct = {id(parameter): parameter for parameter in parameters.values()}
    gradients = torch.autograd.grad(list(sums.values()), list(distinct.values())) if sums else ()
    gradient = dict(zip(distinct, gradients, strict=True))
    compared = []
    for name in sums:
        layer = module.layers[name]
        ours = layer.rows(gradient[id(layer.parameter)])
        objective = layer.rows(_gradient(layer.parameter)) - ours
        ours_norm, objective_norm = ours.norm(), objective.norm()
        tiny = torch.finfo(ours.dtype).tiny
        compared += [
            ours_norm / objective_norm.clamp(min=tiny),
            (ours.conj() * objective).sum().real / (ours_norm * objective_norm).clamp(min=tiny),
        ]
    device = compared[0].device if compared else None
    # The host waits once for all layers.
    values = to_host(torch.stack([value.to(device, torch.float64) for value in compared])).tolist() if compared else []
    pairs = zip(values[::2], values[1::2], strict=True)
    return {name: {"norm_ratio": ratio, "cosine": cosine} for name, (ratio, cosine) in zip(sums, pairs, strict=True)}


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def gradient_warnings(
    gradients: Mapping[str, Mapping[str, float]], outweighs: float = 1.0, opposes: float = -0.5
) -> list[str]:
    """One line for each layer whose coefficient is too high.

    That is: the penalty's gradient is longer than the objective's (``norm_ratio > outweighs``), or points against
    it (``cosine < opposes``) with at least a tenth of its length.
    """
    lines = []
    for name, values in gradients.items():
        ratio, cosine = values["norm_ratio"], values["cosine"]
        if ratio > outweighs:
            lines.append(f"{name}: the penalty's gradient is {ratio:.1f} times the objective's; lower its coefficient")
        elif cosine < opposes and ratio > 0.1:
            lines.append(
                f"{name}: the penalty's gradient opposes the objective's (cosine {cosine:.2f}, {ratio:.2f} times "
                "as long); lower its coefficient"
            )
    return lines
