"""Outputs of layers that penalties on features read in a training step, with their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.errors import RecipeError
from sslcollapse.layers.map import Layer
from sslcollapse.rank.covariance import MAX_ROWS, layer_output, unread
from sslcollapse.rank.recorder import EAGER


class LayerOutputs:
    """A context around forward passes, which keeps what some layers put out; without layers it does nothing.

    Of a convolution or a token layer, which has many rows a sample, the same evenly spaced positions of every sample
    are kept, so that all ranks together have the rows that one process would have: at most ``MAX_ROWS`` over all ranks,
    and at least one a sample. Compiled networks run eagerly, since compiled code skips hooks that are set after it.

    Args:
        layers: name → layer of the network that runs.
        ranks: whose samples come together.
    """

    def __init__(self, layers: Mapping[str, Layer], ranks: int = 1) -> None:
        self._layers, self._ranks = dict(layers), ranks
        self._kept: dict[str, list[Tensor]] = {name: [] for name in layers}
        self._unread: dict[str, str] = {}
        self._hooks = ExitStack()

    def __enter__(self) -> LayerOutputs:
        for layer in self._layers.values():
            self._hooks.callback(layer.module.register_forward_hook(self._keeper(layer)).remove)
        if self._layers:
            self._hooks.enter_context(EAGER.held())
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.close()

    def rows(self, name: str) -> list[Tensor]:
        """[n, out] of every forward pass through a layer.

        Raises:
            RecipeError: the layer did not run, or does not show its product.
        """
        if name in self._unread:
            raise RecipeError(f"the output of the layer {name!r} cannot be read: {self._unread[name]}")
        if not self._kept[name]:
            raise RecipeError(f"the layer {name!r} did not run in this forward pass, so that it has no output")
        return self._kept[name]

    def _keeper(self, layer: Layer) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            own = layer_output(layer, output)
            if own is None or own[0].dim() < 2:
                kind = type(module).__name__
                self._unread[layer.name] = f"{kind} does not show the product of this weight, or {unread(output)}"
                return
            rows = own[0].movedim(own[1], -1)  # [N, out] or [B, ..., out]
            if rows.dim() == 2:
                rows = rows.clone()  # what comes next may change it in place
            else:
                rows = rows.flatten(1, -2)
                taken = _positions(rows.shape[0] * self._ranks, rows.shape[1], rows.device)
                rows = rows.index_select(1, taken).flatten(0, 1)
            self._kept[layer.name].append(rows)

        return keep


def _positions(samples: int, positions: int, device: torch.device) -> Tensor:
    """Which positions of each sample are taken: all, or as many from the middle of equal stretches."""
    taken = min(positions, max(1, MAX_ROWS // samples))
    return ((2 * torch.arange(taken, device=device) + 1) * positions) // (2 * taken)
