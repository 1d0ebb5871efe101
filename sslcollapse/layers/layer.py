"""A layer: one matrix that a network multiplies with, by name; and what of a network no layer holds, and why."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from sslcollapse.core.distributed import sharded_as, unsharded
from sslcollapse.core.errors import SSLCollapseError
from sslcollapse.layers.effective import CONVOLUTIONS as CONVOLUTIONS
from sslcollapse.layers.effective import effective, is_mixed, oriented, stored

HEADS = ("projector", "predictor", "decoder")
"""Networks beside the encoder, whose names begin those of their layers: ``projector.0``."""


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

        Of a sharded network (FSDP2) every rank writes its part: all of them must call, with the same matrix.

        Raises:
            LayerError: where what is stored is not what acts: a parametrized, pruned or adapted weight.
        """
        stored, module = self.module._parameters.get(self.tensor), self.module
        if stored is None or is_mixed(module, self.tensor):
            raise LayerError(
                f"layer {self.name!r}: its weight is computed from other tensors of {type(module).__name__} "
                "(a parametrization, a pruning mask, an adapter), so that it cannot be set"
            )
        whole = oriented(module, self.tensor, unsharded(stored)).clone(memory_format=torch.contiguous_format)
        if self.item is not None:
            whole.view(-1, *whole.shape[-2:])[self.item] = matrix
        else:
            own = self.channels(torch.arange(whole.shape[0], device=whole.device), 0)
            whole.flatten(1)[own] = matrix.to(whole.dtype)
        stored.copy_(sharded_as(oriented(module, self.tensor, whole), stored))

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


_SHOWN = 3
_VECTOR_KERNEL = 31
"""Convolutions over one dimension have kernels up to this length, by and large; matrices in a stack are larger."""

_EMBEDDING = re.compile(r"(^|_)(emb|embed|embeds|embedding|embeddings|wte|wpe)(_|$)")
_TABLE = re.compile(_EMBEDDING.pattern + r"|(^|_)(pos|tokens?|table|rel|latents?|prompts?|bias|biases)(_|$)")
_NORM = re.compile(r"(^|_)(ln|bn|gn)(_|\d|$)|norm(?!al)", re.IGNORECASE)
_WEIGHT = re.compile(r"(.*_)?(weights?|proj|kernel)\d*|w\d*")
_STACK = re.compile(r"(^|_)(experts?|relations?|bilinear)(_|$)")


@dataclass(frozen=True)
class Uncovered:
    """A part of a network that is no layer.

    Attributes:
        name: of the module, or of the parameter where the rest of its module is read.
        reason: why it is no layer.
        parameters: its number of entries.
        unread: it multiplies with matrices, or may do so; else it is no layer by the rules (an embedding, say).
    """

    name: str
    reason: str
    parameters: int
    unread: bool = True


@dataclass(frozen=True)
class Coverage:
    """How much of a network its layers hold.

    Attributes:
        parameters: of the whole network.
        covered: those behind layers. Biases and normalisations are vectors: not covered, and not listed either.
        uncovered: what else there is, in the order of the network.
    """

    parameters: int
    covered: int
    uncovered: Sequence[Uncovered] = ()

    @property
    def share(self) -> float:
        """Share of the parameters that is behind layers; 0 where there are no parameters."""
        return self.covered / self.parameters if self.parameters else 0.0

    @property
    def unread(self) -> list[Uncovered]:
        """The parts that may hold matrices and are not read."""
        return [part for part in self.uncovered if part.unread]

    def __str__(self) -> str:
        share = f"the layers hold {self.covered:,} of {self.parameters:,} parameters ({self.share:.1%})"
        return f"{share}; {described(self.unread)}" if self.unread else share


def described(parts: Sequence[Uncovered]) -> str:
    """One clause on parts that are not read: the first few with their reasons, the largest first."""
    ordered = sorted(parts, key=lambda part: -part.parameters)
    shown = [f"{part.name} ({part.parameters:,} parameters: {part.reason})" for part in ordered[:_SHOWN]]
    rest = f", and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return f"not read: {', '.join(shown)}{rest}"


def is_vector(shape: Sequence[int]) -> bool:
    """Whether a tensor has at most one dimension that is not 1: a bias, a gain, a token."""
    return sum(size != 1 for size in shape) < 2


def is_embedding(name: str) -> bool:
    """Whether the last part of a module's name says that it is an embedding."""
    return _EMBEDDING.search(name.rpartition(".")[2]) is not None


def is_table(name: str) -> bool:
    """Whether the last part of a tensor's name says that it is looked up or added, not multiplied with."""
    return _TABLE.search(name.rpartition(".")[2]) is not None


def is_norm(name: str) -> bool:
    """Whether the last part of a module's name says that it is a normalisation."""
    return _NORM.search(name.rpartition(".")[2]) is not None


def is_weight(name: str) -> bool:
    """Whether the last part of a tensor's name says that it is a weight."""
    return _WEIGHT.fullmatch(name.rpartition(".")[2]) is not None


def is_stack(
    name: str, shape: Sequence[int], bias: Sequence[int] | None = None, siblings: Sequence[str] = ()
) -> bool | None:
    """Whether a tensor of three dimensions is a stack of matrices; None where it could be a kernel as well.

    A name says so (``experts``, ``relations``, ``bilinear``), or a bias does: a convolution's has an entry for each
    slice of the first dimension, that of a stack has a row for each slice or is shared by all. Without a bias the last
    dimension decides, since long kernels are rare.

    Args:
        name: of the tensor.
        shape: of the tensor.
        bias: shape of the bias beside it, if any.
        siblings: names of the other tensors of its module.
    """
    if len(shape) != 3 or min(shape[1:]) == 1:
        return False
    module, _, leaf = name.rpartition(".")
    if "root" in siblings or any(_STACK.search(part) for part in (module.rpartition(".")[2], leaf)):
        return True
    if bias is not None and (len(bias) > 1 or bias[0] != shape[0]):
        return True
    if shape[2] <= _VECTOR_KERNEL:
        return False
    return True if bias is None else None


def count(shape: Sequence[int]) -> int:
    """Number of entries."""
    return math.prod(shape)
