"""The layer map: every weight matrix of a network by name, in order of depth.

Coefficients, spectra, tables and ablation grids are all indexed by the names given here. The rules:

* A layer is the weight of ``nn.Linear``, of PyTorch Geometric's ``Linear``, of a convolution (as
  [out, in·kh·kw], which is not the operator norm's matrix), of ``nn.MultiheadAttention``, or of any module
  with an ``effective_weight()`` method that returns [out, in] and a raw parameter called ``weight``.
  Vectors (normalisations), embeddings and transposed convolutions are not layers.
* A grouped convolution is one layer a group (``conv.group0``, ...). A depthwise one, with one output channel a
  group, has only vectors and is no layer. A fused query-key-value map is three
  (``attn.qkv.q``, ``.k``, ``.v``): a Linear whose name ends in ``qkv``, and the ``in_proj`` of
  ``nn.MultiheadAttention``.
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
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from sslcollapse.distributed import unsharded
from sslcollapse.errors import SSLCollapseError
from sslcollapse.registry import suggest

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SHORTCUT_NAMES = ("downsample", "shortcut", "skip", "residual")


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
    """

    name: str
    module: nn.Module
    depth: int
    shape: tuple[int, int]
    tensor: str = "weight"
    start: int = 0

    @property
    def parameter(self) -> nn.Parameter:
        """The stored tensor behind the weight: what the optimiser moves and what holds the gradient."""
        return _stored(self.module, self.tensor, self.name)

    def weight(self) -> Tensor:
        """The [out, in] matrix that the forward pass multiplies with, differentiable.

        Weight standardisation, weight and spectral norm and parametrizations are part of it. Of a sharded network
        (FSDP2) it is the whole weight, brought together from all ranks: every one of them must call.
        """
        return self._part(unsharded(_effective(self.module, self.tensor)))

    def rows(self, like_parameter: Tensor) -> Tensor:
        """The [out, in] part of a tensor shaped as ``parameter`` (its gradient, say) that is this layer's.

        Raises:
            LayerError: where the weight is stored in another shape, so that rows do not correspond.
        """
        part = self._part(like_parameter)
        if tuple(part.shape) != self.shape:
            raise LayerError(
                f"layer {self.name!r}: a tensor {tuple(like_parameter.shape)} has no rows of a weight "
                f"{list(self.shape)}; pass one shaped as the stored parameter, {tuple(self.parameter.shape)}"
            )
        return part

    def _part(self, whole: Tensor) -> Tensor:
        if whole.dim() > 2:
            whole = whole.flatten(1)
        out = self.shape[0]
        return whole if whole.shape[0] == out else whole[self.start : self.start + out]


def layer_map(module: nn.Module) -> dict[str, Layer]:
    """Name → layer of every weight matrix in a network, ordered by depth; empty where there is none.

    Reads the module tree only: it computes nothing and changes nothing. A network that is itself one Linear
    or convolution has a layer called ``weight``.

    Raises:
        LayerError: a weight that is not initialised yet (lazy modules), or that is no parameter.
    """
    if not isinstance(module, nn.Module):
        raise LayerError(f"layer_map needs a torch.nn.Module, got {type(module).__name__}")
    walk = _Walk()
    walk.visit(module, "")
    return {layer.name: layer for layer in sorted(walk.layers, key=lambda layer: layer.depth)}


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


class _Walk:
    """One pass over a module tree; ``depth`` is that of the next main-path module."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.depth = 0
        self._seen: set[int] = set()

    def visit(self, module: nn.Module, name: str, fixed: int | None = None) -> None:
        """Add the layers of a module and its children, all at depth ``fixed`` inside a shortcut."""
        shape = _matrix_shape(module)
        if shape is not None:
            self._add(module, name, "weight", _parts(module, name, shape[0]), shape[1], fixed)
            return
        if isinstance(module, nn.MultiheadAttention):
            self._add_attention(module, name, fixed)
        children = [(child, part) for child, part in module.named_children() if child != "parametrizations"]
        shortcuts = {child for child, part in children if fixed is None and _is_shortcut(module, child, part)}
        found = len(self.layers)
        for child, part in children:
            if child not in shortcuts:
                self.visit(part, _join(name, child), fixed)
        main = self.layers[found:]
        last = max((layer.depth for layer in main), default=None)
        for child, part in children:
            if child not in shortcuts:
                continue
            if isinstance(part, nn.ModuleList) and main:
                for index, item in part.named_children():
                    depth = _parallel_depth(module, name, shortcuts, index, main)
                    self.visit(item, _join(name, child, index), depth)
            else:
                self.visit(part, _join(name, child), last)

    def _add_attention(self, module: nn.MultiheadAttention, name: str, fixed: int | None) -> None:
        width = module.embed_dim
        if module.in_proj_weight is not None:
            parts = [(f"in_proj.{part}", k * width, width) for k, part in enumerate("qkv")]
            self._add(module, name, "in_proj_weight", parts, width, fixed)
            return
        depth = self.depth if fixed is None else fixed  # three parameters, yet one step of the main path
        for part, columns in zip("qkv", (width, module.kdim, module.vdim), strict=True):
            self._add(module, name, f"{part}_proj_weight", [(f"in_proj.{part}", 0, width)], columns, depth)
        self.depth += fixed is None

    def _add(
        self,
        module: nn.Module,
        name: str,
        tensor: str,
        parts: list[tuple[str, int, int]],
        columns: int,
        fixed: int | None,
    ) -> None:
        label = name or type(module).__name__
        parameter = _stored(module, tensor, label)
        if is_lazy(parameter):
            raise LayerError(
                f"layer {label!r} has no weight yet: its first forward pass sets its shape; run the network once "
                "on a sample input, then ask for its layers"
            )
        if id(parameter) in self._seen:
            return
        self._seen.add(id(parameter))
        depth = self.depth if fixed is None else fixed
        for suffix, start, rows in parts:
            self.layers.append(Layer(_join(name, suffix) or tensor, module, depth, (rows, columns), tensor, start))
        self.depth += fixed is None


def _matrix_shape(module: nn.Module) -> tuple[int, int] | None:
    """[out, in] of the one matrix that a module multiplies with (of all groups together), or None."""
    if callable(getattr(module, "effective_weight", None)):
        weight = _stored(module, "weight", type(module).__name__)
        return weight.shape[0], math.prod(weight.shape[1:])
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, CONVOLUTIONS):
        if 1 < module.groups == module.out_channels:
            return None
        return module.out_channels, module.in_channels // module.groups * math.prod(module.kernel_size)
    # Looked up, not imported: where nobody has imported PyTorch Geometric there is none of its modules.
    geometric = sys.modules.get("torch_geometric.nn.dense.linear")
    if geometric is not None and isinstance(module, geometric.Linear):
        return module.out_channels, module.in_channels
    return None


def _parts(module: nn.Module, name: str, out: int) -> list[tuple[str, int, int]]:
    """(suffix, first row, number of rows) of each layer in a module's weight."""
    names = [""]
    if isinstance(module, CONVOLUTIONS) and module.groups > 1:
        names = [f"group{group}" for group in range(module.groups)]
    elif isinstance(module, nn.Linear) and name.endswith("qkv") and out % 3 == 0:
        names = ["q", "k", "v"]
    rows = out // len(names)
    return [(suffix, k * rows, rows) for k, suffix in enumerate(names)]


def _is_shortcut(parent: nn.Module, name: str, child: nn.Module) -> bool:
    declared = getattr(parent, "shortcuts", ())
    if isinstance(declared, tuple) and name in declared:
        return True
    if name not in _SHORTCUT_NAMES:
        return False
    others = (part for other, part in parent.named_children() if other not in _SHORTCUT_NAMES)
    widths = (width for part in others for width in _input_widths(part))
    return next(_input_widths(child), -1) == next(widths, None)


def _input_widths(module: nn.Module) -> Iterator[int]:
    """Number of input channels of each layer in a module."""
    for part in module.modules():
        if isinstance(part, CONVOLUTIONS):
            yield part.in_channels
        elif isinstance(part, nn.MultiheadAttention):
            yield part.embed_dim
        elif (shape := _matrix_shape(part)) is not None:
            yield shape[1]


def _parallel_depth(parent: nn.Module, name: str, shortcuts: set[str], index: str, main: list[Layer]) -> int:
    """Depth of item ``index`` in a list of shortcuts: that of the same item of the main path's first list."""
    for child, part in parent.named_children():
        path = _join(name, child)
        depths = [layer.depth for layer in main if layer.name.startswith(f"{path}.")]
        if child not in shortcuts and isinstance(part, nn.ModuleList) and depths:
            item = [layer.depth for layer in main if f"{layer.name}.".startswith(f"{path}.{index}.")]
            return max(item or depths)
    return max(layer.depth for layer in main)


def _effective(module: nn.Module, tensor: str) -> Tensor:
    protocol = getattr(module, "effective_weight", None)
    if tensor == "weight" and callable(protocol):
        return protocol()
    hook = _norm_hook(module, tensor)
    if isinstance(hook, SpectralNorm):
        return hook.compute_weight(module, do_power_iteration=False)
    # The attribute of the older weight norm is as old as the last forward pass, so it is computed again.
    return getattr(module, tensor) if hook is None else hook.compute_weight(module)


def _stored(module: nn.Module, tensor: str, label: str) -> nn.Parameter:
    parameter = module._parameters.get(tensor)
    if parameter is not None:
        return parameter
    if parametrize.is_parametrized(module, tensor):
        stored = module.get_submodule(f"parametrizations.{tensor}").parameters(recurse=False)
        # Weight norm stores lengths and directions: the directions are what is shaped as the weight.
        return max(stored, key=lambda candidate: candidate.numel())
    hook = _norm_hook(module, tensor)
    if hook is None:
        raise LayerError(
            f"layer {label!r}: {tensor!r} is not a parameter, and how it is computed is not known; make a "
            "pruning permanent (torch.nn.utils.prune.remove), or give the module an effective_weight() method "
            "and a parameter 'weight'"
        )
    return module.get_parameter(f"{tensor}_orig" if isinstance(hook, SpectralNorm) else f"{tensor}_v")


def _norm_hook(module: nn.Module, tensor: str) -> SpectralNorm | WeightNorm | None:
    """The hook of ``torch.nn.utils.weight_norm`` or ``spectral_norm`` that computes a weight, if any."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, (SpectralNorm, WeightNorm)) and hook.name == tensor:
            return hook
    return None


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)
