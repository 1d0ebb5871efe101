"""The layer map: every weight matrix of a network by name, in order of depth.

Coefficients, spectra, tables and ablation grids are all indexed by the names given here. The rules:

* A layer is a matrix that a module multiplies with: the weight of ``nn.Linear``, of PyTorch Geometric's ``Linear``, of
  a convolution (as [out, in·kh·kw], which is not the operator norm's matrix), of ``nn.MultiheadAttention``, or of any
  module with an ``effective_weight()`` method that returns [out, in] and a raw parameter called ``weight``. It is
  the matrix as it acts: after parametrizations, pruning masks, weight standardisation and low-rank adapters.
* What a module multiplies with is known by the class whose ``forward`` runs (``effective.py``). A subclass with a
  ``forward`` of its own is no layer; ``layer_coverage`` names it with the reason, as it does recurrent, scripted and
  quantised modules and parameters whose use is not known.
* Vectors (normalisations, also those of several dimensions), embeddings and transposed convolutions are not layers.
* A grouped convolution is one layer a group (``conv.group0``, ...). A depthwise one, with one output channel a
  group, has only vectors and is no layer.
* A stack of matrices is one layer a matrix, with a number after the parameter's name (``experts.weight.0``, ...): the
  relations of ``RGCNConv``, the outputs of ``nn.Bilinear``, experts, and other parameters [n, out, in] whose name or
  bias shows that they are stacks.
* A fused query-key-value map is three layers (``attn.qkv.q``, ``.k``, ``.v``) where the class that uses it is known
  (``fused.py``), or where a module says how it is cut: ``fused_maps = {"qkv": {"q": 64, "k": 16, "v": 16}}``, rows a
  part. Else it is one layer.
* A parameter that several modules share appears once, under the first name.
* Depth counts modules along the main path from 0, in the order of registration; the parts of one module
  share its depth. A module tree does not say what runs in parallel: only shortcuts are known to.
* A shortcut is a child that its parent lists in an attribute ``shortcuts`` (a tuple of child names), or one
  called ``downsample``, ``shortcut``, ``skip`` or ``residual`` that reads as many channels as the first layer
  of the parent's other children (else it comes before or after them, as in a ConvNeXt stage). All its layers
  have the depth of the last main-path layer of the same parent. Where a shortcut is a ``ModuleList``, its
  item k has the depth of the last layer in item k of the parent's first main-path ``ModuleList`` that has
  layers. A parent without main-path layers has no shortcuts.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sslcollapse.core.distributed import unsharded
from sslcollapse.core.errors import SSLCollapseError, suggest
from sslcollapse.layers.coverage import Coverage
from sslcollapse.layers.effective import CONVOLUTIONS as CONVOLUTIONS
from sslcollapse.layers.effective import effective, is_mixed, oriented, stored

if TYPE_CHECKING:
    from sslcollapse.layers.walk import Walk


class LayerError(SSLCollapseError, ValueError):
    """A network's layers cannot be mapped, or a name or glob matches none of them."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One weight matrix of a network, by name.

    Args:
        name: of the module within the network, with a suffix where the module has several layers.
        module: the module that multiplies with the weight.
        depth: position on the main path, from 0.
        shape: [out, in].
        tensor: attribute of ``module`` that holds the weight.
        start: first row of that weight, and first output channel of the module, that belongs to this layer.
        period: where the rows are spread over equal blocks (heads), rows of a block; else 0.
        width: rows of this layer in each block.
        item: which matrix of a stack this is; None where the weight is no stack.
    """

    name: str
    module: nn.Module
    depth: int
    shape: tuple[int, int]
    tensor: str = "weight"
    start: int = 0
    period: int = 0
    width: int = 0
    item: int | None = None

    @property
    def parameter(self) -> nn.Parameter:
        """The stored tensor behind the weight: what the optimiser moves and what holds the gradient."""
        parameter = stored(self.module, self.tensor)
        if parameter is None:
            raise LayerError(f"layer {self.name!r}: {self.tensor!r} was a parameter when the layers were mapped")
        return parameter

    def weight(self) -> Tensor:
        """The [out, in] matrix that the forward pass multiplies with, differentiable.

        Weight standardisation, weight and spectral norm, parametrizations, pruning masks and low-rank adapters are part
        of it. Reading it changes nothing in the module. Of a sharded network (FSDP2) it is the whole weight, brought
        together from all ranks: every one of them must call. ``weights`` reads those of many layers at less cost.
        """
        return self._part(unsharded(effective(self.module, self.tensor)))

    def rows(self, like_parameter: Tensor) -> Tensor:
        """The [out, in] part of a tensor shaped as ``parameter`` (its gradient, say) that is this layer's.

        Raises:
            LayerError: where the weight is stored in another shape, so that rows do not correspond.
        """
        whole = oriented(self.module, self.tensor, like_parameter)
        fits = self.item is None or whole.dim() > 2
        part = self._part(whole) if fits and not is_mixed(self.module, self.tensor) else whole[:0]
        if tuple(part.shape) != self.shape:
            raise LayerError(
                f"layer {self.name!r}: a tensor {tuple(like_parameter.shape)} has no rows of a weight "
                f"{list(self.shape)}; pass one shaped as the stored parameter, {tuple(self.parameter.shape)}"
            )
        return part

    @torch.no_grad()
    def assign(self, matrix: Tensor) -> None:
        """Write an [out, in] matrix into the stored tensor, in place; the rest of that tensor stays.

        Raises:
            LayerError: where what is stored is not what acts: a parametrized, pruned or adapted weight.
        """
        stored, module = self.module._parameters.get(self.tensor), self.module
        if stored is None or is_mixed(module, self.tensor):
            raise LayerError(
                f"layer {self.name!r}: its weight is computed from other tensors of {type(module).__name__} "
                "(a parametrization, a pruning mask, an adapter), so that it cannot be set"
            )
        whole = oriented(module, self.tensor, stored).clone(memory_format=torch.contiguous_format)
        if self.item is not None:
            whole.view(-1, *whole.shape[-2:])[self.item] = matrix
        else:
            own = self.channels(torch.arange(whole.shape[0], device=whole.device), 0)
            whole.flatten(1)[own] = matrix.to(whole.dtype)
        stored.copy_(oriented(module, self.tensor, whole))

    def channels(self, output: Tensor, dim: int) -> Tensor | None:
        """The channels of a module's output that are this layer's; None where the output has not as many.

        Args:
            output: of the module.
            dim: its dimension of channels.
        """
        dim = dim % output.dim()
        size, out = output.shape[dim], self.shape[0]
        if not self.period:
            return output.narrow(dim, self.start, out) if size >= self.start + out else None
        if size % self.period or size // self.period * self.width != out:
            return None
        return output.unflatten(dim, (-1, self.period)).narrow(dim + 1, self.start, self.width).flatten(dim, dim + 1)

    def _part(self, whole: Tensor) -> Tensor:
        if self.item is not None:
            whole = whole.flatten(0, -3)[self.item]
        return self._rows_of(whole)

    def _rows_of(self, whole: Tensor) -> Tensor:
        if whole.dim() > 2:
            whole = whole.flatten(1)
        out = self.shape[0]
        if whole.shape[0] == out:
            return whole
        part = self.channels(whole, 0)
        return whole[:0] if part is None else part


def weights(layers: Mapping[str, Layer]) -> dict[str, Tensor]:
    """Name → ``Layer.weight()`` of many layers, what several of them share being computed once.

    Layers that are matrices of one stack or parts of one map share a tensor. Computed for each of them, forward and
    backward, it would cost the square of their number. Every rank must call where the network is sharded (FSDP2).
    """
    found: dict[str, Tensor] = {}
    for group in by_tensor(layers):
        first = next(iter(group.values()))
        found |= _taken_apart(unsharded(effective(first.module, first.tensor)), group)
    return {name: found[name] for name in layers}


def by_tensor(layers: Mapping[str, Layer]) -> list[dict[str, Layer]]:
    """Layers in groups that share one tensor of one module, in the order of their first layers."""
    groups: dict[tuple[int, str], dict[str, Layer]] = {}
    for name, layer in layers.items():
        groups.setdefault((id(layer.module), layer.tensor), {})[name] = layer
    return list(groups.values())


def _taken_apart(whole: Tensor, group: Mapping[str, Layer]) -> dict[str, Tensor]:
    """The matrix of each layer of one tensor.

    By ``unbind`` and ``split``, whose backward pass writes the whole once, where that of an index or a slice writes a
    whole of zeros for every layer.
    """
    if len(group) == 1:
        return {name: layer._part(whole) for name, layer in group.items()}
    if any(layer.item is not None for layer in group.values()):
        items = whole.flatten(0, -3).unbind()
        return {
            name: layer._rows_of(whole if layer.item is None else items[layer.item]) for name, layer in group.items()
        }
    matrix = whole.flatten(1) if whole.dim() > 2 else whole
    period = next(iter(group.values())).period
    spans = {name: (layer.start, layer.start + (layer.width or layer.shape[0])) for name, layer in group.items()}
    blocks = matrix.unflatten(0, (-1, period)) if period and not matrix.shape[0] % period else matrix
    dim = blocks.dim() - matrix.dim()
    edges = sorted({0, blocks.shape[dim], *(edge for span in spans.values() for edge in span)})
    between = list(pairwise(edges))
    alike = all(layer.period == period for layer in group.values())
    if not alike or edges[-1] > blocks.shape[dim] or not set(spans.values()) <= set(between):
        return {name: layer._part(whole) for name, layer in group.items()}  # parts that overlap, or that do not fit
    pieces = dict(zip(between, blocks.split([stop - start for start, stop in between], dim), strict=True))
    return {name: pieces[span].flatten(0, dim) for name, span in spans.items()}


def layer_map(module: nn.Module) -> dict[str, Layer]:
    """Name → layer of every weight matrix in a network, ordered by depth; empty where there is none.

    Reads the module tree only: it computes nothing and changes nothing. A network that is itself one Linear
    or convolution has a layer called ``weight``. What is no layer is named by ``layer_coverage``.

    Raises:
        LayerError: a weight that is not initialised yet (lazy modules).
    """
    return _walked(module).ordered()


def layer_coverage(module: nn.Module) -> Coverage:
    """How much of a network ``layer_map`` holds, and what it leaves out, by name and with the reason.

    Raises:
        LayerError: as ``layer_map``.
    """
    walk = _walked(module)
    total = walk.packed + sum(parameter.numel() for parameter in module.parameters())
    return Coverage(total, walk.covered, tuple(walk.uncovered))


def _walked(module: nn.Module) -> Walk:
    from sslcollapse.layers.walk import Walk  # which needs Layer

    if not isinstance(module, nn.Module):
        raise LayerError(f"layer_map needs a torch.nn.Module, got {type(module).__name__}")
    walk = Walk()
    walk.visit(module, "")
    return walk


def select(layers: Mapping[str, Layer], pattern: str) -> dict[str, Layer]:
    """The layer of that exact name, else all layers that match the glob.

    Raises:
        LayerError: where nothing matches; the message suggests the nearest name and lists all.
    """
    names = [pattern] if pattern in layers else fnmatch.filter(layers, pattern)
    if not names:
        near, known = suggest(pattern, list(layers)), ", ".join(layers) or "none"
        raise LayerError(f"{pattern!r} matches no layer{near} (layers: {known})")
    return {name: layers[name] for name in names}
