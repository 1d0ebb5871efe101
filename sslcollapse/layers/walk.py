"""One pass over a module tree, by the rules of the layer map: layers in order of depth, and what is none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from sslcollapse.layers.effective import (
    CONVOLUTIONS,
    LORA,
    RAW,
    matrix_shape,
    protocol,
    runs,
    stack_shape,
    stored,
    unread_forward,
)
from sslcollapse.layers.fused import Cut, Part, cuts
from sslcollapse.layers.layer import (
    Layer,
    LayerError,
    Uncovered,
    count,
    is_norm,
    is_stack,
    is_table,
    is_vector,
    is_weight,
)

_SHORTCUT_NAMES = ("downsample", "shortcut", "skip", "residual")
_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")
_MULTIPLIES = re.compile("Linear|Conv|LSTM|GRU|RNN|Embedding|Bilinear")
_ATTENTION = "torch.nn.modules.activation.MultiheadAttention"


class Walk:
    """One pass over a module tree; ``depth`` is that of the next main-path module."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self._left: list[tuple[Uncovered, set[int]]] = []
        self.packed = 0
        self.covered = 0
        self.depth = 0
        self._seen: set[int] = set()
        self._cuts: dict[int, Cut] = {}

    def ordered(self) -> dict[str, Layer]:
        """The layers by name, in order of depth."""
        return {layer.name: layer for layer in sorted(self.layers, key=lambda layer: layer.depth)}

    @property
    def uncovered(self) -> list[Uncovered]:
        """What is no layer, less what another module has as one."""
        return [part for part, tensors in self._left if not tensors or not tensors <= self._seen]

    def visit(self, module: nn.Module, name: str, fixed: int | None = None) -> None:
        """Add the layers of a module and its children, all at depth ``fixed`` inside a shortcut."""
        if self._closed(module, name):
            return
        shape = matrix_shape(module)
        if shape is not None:
            self._add_matrix(module, name, shape, fixed)
            return
        self._add_raw(module, name, fixed)
        for cut in cuts(module):
            if (fused := _descendant(module, cut.child)) is not None:
                self._cuts[id(fused)] = cut
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

    def _closed(self, module: nn.Module, name: str) -> bool:
        """Note a module of which no part can be read; whether it is one."""
        kind = type(module).__name__
        packed = 0
        if isinstance(module, torch.jit.ScriptModule):
            reason = "it is scripted, so its classes are not known; take the network before torch.jit.script or trace"
        elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            reason = f"{kind} is recurrent: it multiplies with its weights at every step"
        elif type(module).__module__.startswith(_QUANTISED) and _MULTIPLIES.search(kind):
            packed = sum(weight.numel() for weight in _packed(module))  # no parameters, so they are counted apart
            self.packed += packed
            reason = f"{kind} is quantised: its weights are whole numbers"
        else:
            return False
        parameters = [parameter for parameter in module.parameters() if not is_lazy(parameter)]
        if parameters or packed:
            self._leave(name or kind, reason, parameters, packed)
        return True

    def _leave(
        self, name: str, reason: str, parameters: Sequence[nn.Parameter], packed: int = 0, *, unread: bool = True
    ) -> None:
        tensors = {id(parameter) for parameter in parameters}
        if not tensors or not any(tensors <= listed for _, listed in self._left):
            size = packed + sum(parameter.numel() for parameter in parameters)
            self._left.append((Uncovered(name, reason, size, unread), tensors))

    def _add_matrix(self, module: nn.Module, name: str, shape: tuple[int, int], fixed: int | None) -> None:
        label = name or type(module).__name__
        parameter = stored(module, "weight")
        groups = 1
        if isinstance(module, CONVOLUTIONS) and protocol(module) is None:
            groups = module.groups
        if parameter is None:
            self._leave(label, "its weight is no parameter, and how it is computed is not known", _large(module))
            return
        if is_lazy(parameter):
            raise _uninitialised(label)
        if 1 < groups == shape[0]:
            self._leave(label, "a depthwise convolution has only vectors", [parameter], unread=False)
            return
        if protocol(module) is None and (reason := unread_forward(module)):
            self._leave(label, reason, _large(module))
            return
        parts = [Part("", 0, shape[0])]
        if groups > 1:
            rows = shape[0] // groups
            parts = [Part(f"group{group}", group * rows, rows) for group in range(groups)]
        elif id(module) in self._cuts:
            parts = self._cuts[id(module)].parts(shape[0]) or parts
        self._add(module, name, "weight", parts, shape, fixed, parameter)
        if runs(module) == LORA:
            adapters = (p for key, p in module.named_parameters() if not key.startswith("base_layer."))
            self.covered += sum(p.numel() for p in adapters)

    def _add_raw(self, module: nn.Module, name: str, fixed: int | None) -> None:
        """The parameters that a module holds besides its children."""
        if isinstance(module, nn.MultiheadAttention) and runs(module) == _ATTENTION:
            self._add_attention(module, name, fixed)
            return
        depth = self.depth if fixed is None else fixed  # of one module, whatever the number of its parameters
        known = RAW.get(runs(module), ())
        before = len(self.layers)
        for tensor, parameter in _own(module).items():
            label = _join(name, tensor)
            if is_lazy(parameter):
                raise _uninitialised(label)
            if (is_vector(parameter.shape) and tensor not in known) or id(parameter) in self._seen:
                continue
            bias = getattr(module, "bias", None)
            stack = tensor in known
            if not stack and is_weight(tensor) and stored(module, tensor) is not None:
                shape = bias.shape if isinstance(bias, Tensor) else None
                stack = bool(is_stack(label, parameter.shape, shape, list(module._parameters)))
                stack = stack and not is_norm(type(module).__name__) and shape != parameter.shape
            if not stack:
                reason, unread = _unknown(module, tensor)
                self._leave(label, reason, [parameter], unread=unread)
                continue
            whole = stack_shape(module, tensor, parameter)
            out, columns = whole[-2], whole[-1]
            if len(whole) == 2:
                self._add(module, label, tensor, [Part("", 0, out)], (out, columns), depth, parameter)
                continue
            self._see(parameter)
            for item in range(count(whole[:-2])):
                self.layers.append(Layer(_join(label, str(item)), module, depth, (out, columns), tensor, item=item))
        self.depth += fixed is None and len(self.layers) > before

    def _add_attention(self, module: nn.MultiheadAttention, name: str, fixed: int | None) -> None:
        width = module.embed_dim
        maps = {"in_proj_weight": ("qkv", width)}
        if not module._qkv_same_embed_dim:
            columns = (width, module.kdim, module.vdim)
            maps = {f"{part}_proj_weight": (part, size) for part, size in zip("qkv", columns, strict=True)}
        depth = self.depth if fixed is None else fixed  # of three parameters it may be, yet one step of the main path
        for tensor, (letters, size) in maps.items():
            parameter = stored(module, tensor)
            if parameter is None:
                self._leave(_join(name, tensor), "it is no parameter, and how it is computed is not known", [])
                continue
            parts = [Part(f"in_proj.{part}", k * width, width) for k, part in enumerate(letters)]
            self._add(module, name, tensor, parts, (width, size), depth, parameter)
        self.depth += fixed is None

    def _add(
        self,
        module: nn.Module,
        name: str,
        tensor: str,
        parts: list[Part],
        shape: tuple[int, int],
        fixed: int | None,
        parameter: nn.Parameter,
    ) -> None:
        if id(parameter) in self._seen:
            return
        self._see(parameter)
        depth = self.depth if fixed is None else fixed
        for part in parts:
            rows = part.width if not part.period else shape[0] // part.period * part.width
            self.layers.append(
                Layer(
                    _join(name, part.name) or tensor,
                    module,
                    depth,
                    (rows, shape[1]),
                    tensor,
                    part.start,
                    part.period,
                    part.width if part.period else 0,
                )
            )
        self.depth += fixed is None

    def _see(self, parameter: nn.Parameter) -> None:
        self._seen.add(id(parameter))
        self.covered += parameter.numel()


def _uninitialised(label: str) -> LayerError:
    return LayerError(
        f"layer {label!r} has no weight yet: its first forward pass sets its shape; run the network once "
        "on a sample input, then ask for its layers"
    )


def _large(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if not is_vector(parameter.shape)]


def _packed(module: Any) -> list[Tensor]:
    """The quantised weights of a module, as far as it shows them."""
    if hasattr(module, "get_weight"):
        shown = module.get_weight()
        return list(shown.values()) if isinstance(shown, dict) else [shown]
    shown = getattr(module, "weight", None)
    shown = shown() if callable(shown) else shown
    return [shown] if isinstance(shown, Tensor) else []


def _own(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of a module that are no child's, by the name under which it uses them."""
    own = {name: parameter for name, parameter in module._parameters.items() if parameter is not None}
    chains: Any = getattr(module, "parametrizations", {}) if parametrize.is_parametrized(module) else {}
    for tensor in chains:
        if (parameter := stored(module, tensor)) is not None:
            own[tensor] = parameter
    return own


def _unknown(module: nn.Module, tensor: str) -> tuple[str, bool]:
    """Why a parameter is no layer, and whether it may be a matrix all the same."""
    kind = type(module).__name__
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "an embedding is a table, not multiplied with", False
    if is_norm(kind):
        return "a normalisation scales entry by entry", False
    if is_table(tensor):
        return "an embedding, by its name", False
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return f"{kind} is a transposed convolution", True
    return (
        f"how {kind} uses it is not known; a method effective_weight() that returns [out, in] and a parameter 'weight' "
        "make a module a layer",
        True,
    )


def _descendant(module: nn.Module, path: str) -> nn.Module | None:
    for name in path.split("."):
        child = module._modules.get(name)
        if child is None:
            return None
        module = child
    return module


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
        elif (shape := matrix_shape(part)) is not None:
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


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)
