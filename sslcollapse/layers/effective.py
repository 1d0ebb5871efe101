"""The matrix that a module multiplies with, where that is known, and the stored tensor behind it.

What is known is the class whose ``forward`` would run: a subclass with a ``forward`` of its own may do anything with
its weight, so it is read only where it stands in the tables below. Classes of other libraries are named as strings, so
that none of these libraries is imported.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

LINEAR = {
    "sslcollapse.nn.inputs.FeatureLinear",
    "torch.nn.modules.linear.Linear",
    "timm.layers.linear.Linear",
    "torch_geometric.nn.dense.linear.Linear",
    "transformers.models.falcon.modeling_falcon.FalconLinear",
    "transformers.pytorch_utils.Conv1D",
}
LORA = "peft.tuners.lora.layer.Linear"
_CONVOLUTION = {f"torch.nn.modules.conv.Conv{n}d" for n in (1, 2, 3)} | {
    f"timm.layers.conv2d_same.{name}" for name in ("Conv2dSame", "Conv2dSameExport")
}
_STANDARDISED = {
    f"timm.layers.std_conv.{name}" for name in ("StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame")
}
_RELATIONAL = {f"torch_geometric.nn.conv.rgcn_conv.{name}" for name in ("RGCNConv", "FastRGCNConv")}
RAW = {
    "torch.nn.modules.linear.Bilinear": ("weight",),
    "torch_geometric.nn.dense.linear.HeteroLinear": ("weight",),
} | dict.fromkeys(_RELATIONAL, ("weight", "root"))
"""Class → its parameters that are matrices or stacks of them, besides those of Linear layers and convolutions."""

_TRANSPOSED = {
    ("transformers.pytorch_utils.Conv1D", "weight"),
    ("torch_geometric.nn.dense.linear.HeteroLinear", "weight"),
} | {(path, tensor) for path in _RELATIONAL for tensor in RAW[path]}


def runs(module: nn.Module, method: str = "forward") -> str:
    """Path of the class whose method a call runs; empty where the module itself has another function in its place."""
    if method in vars(module) and "_hf_hook" not in vars(module):  # accelerate's hooks call the class's forward
        return ""
    kind: Any = type(module)  # mypy takes a class of modules for something without a hash
    return _owner(kind, method)


@lru_cache(maxsize=1024)
def _owner(kind: Any, method: str) -> str:
    return _path(next((cls for cls in kind.__mro__ if method in vars(cls)), kind))


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def protocol(module: nn.Module) -> Callable[[], Tensor] | None:
    """A module's own method that returns what it multiplies with, if any."""
    # Not by getattr on the module, which is slow where there is none, and a penalty asks at every step.
    if "effective_weight" not in vars(module) and not hasattr(type(module), "effective_weight"):
        return None
    method = module.effective_weight
    return method if callable(method) else None


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer of torch, PyTorch Geometric, Hugging Face or PEFT, or a subclass of one."""
    kind: Any = type(module)
    return _is_linear(kind)


@lru_cache(maxsize=1024)
def _is_linear(kind: Any) -> bool:
    return any(_path(cls) in LINEAR or _path(cls) == LORA for cls in kind.__mro__)


def unread_forward(module: nn.Module) -> str | None:
    """Why the weight of a linear layer or convolution is not known; None where it is."""
    owner = runs(module)
    known = owner in LINEAR or owner in _STANDARDISED
    if owner in _CONVOLUTION:
        known = runs(module, "_conv_forward") in _CONVOLUTION
    if owner == LORA:
        if getattr(module, "lora_variant", None):
            return "its adapter is a variant of LoRA that is not read"
        return unread_forward(module.get_submodule("base_layer"))
    if known:
        return None
    kind = type(module).__name__
    return (
        f"{kind} has a forward of its own, so what it multiplies with is not known; give it a method "
        "effective_weight() that returns [out, in]"
    )


def stored(module: nn.Module, tensor: str) -> nn.Parameter | None:
    """The parameter behind a weight: what the optimiser moves; None where how the weight is computed is not known."""
    if runs(module) == LORA:
        return stored(module.get_submodule("base_layer"), tensor)
    parameter = module._parameters.get(tensor)
    if parameter is not None:
        return parameter
    if parametrize.is_parametrized(module, tensor):
        originals = module.get_submodule(f"parametrizations.{tensor}").parameters(recurse=False)
        # Weight norm stores lengths and directions: the directions are what is shaped as the weight.
        return max(originals, key=lambda candidate: candidate.numel(), default=None)
    hook = _hook(module, tensor)
    if hook is None:
        return None
    return module._parameters.get(f"{tensor}_v" if isinstance(hook, WeightNorm) else f"{tensor}_orig")


def effective(module: nn.Module, tensor: str) -> Tensor:
    """The weight as a forward pass now would use it, differentiable: [out, in, ...], or a stack [..., out, in].

    Nothing of the module changes: spectral norms take the vectors that they have, as they do in eval mode.
    """
    if tensor == "weight" and (said := protocol(module)) is not None:
        return said() if not parametrize.is_parametrized(module) else _resting(module).effective_weight()
    owner = runs(module)
    if owner == LORA:
        return _adapted(module, tensor)
    weight = _computed(module, tensor)
    if owner in _STANDARDISED:
        return _standardised(module, weight)
    if is_mixed(module, tensor):
        weight = torch.einsum("rb,bio->rio", module.comp, weight)
    return oriented(module, tensor, weight)


def oriented(module: nn.Module, tensor: str, value: Tensor) -> Tensor:
    """A tensor shaped as the stored one, with out before in."""
    return value.mT if (runs(module), tensor) in _TRANSPOSED else value


def is_mixed(module: nn.Module, tensor: str) -> bool:
    """Whether the matrices of a stack are mixed out of what is stored, so that none of it belongs to one of them."""
    return runs(module) in _RELATIONAL and tensor == "weight" and getattr(module, "comp", None) is not None


def stack_shape(module: nn.Module, tensor: str, parameter: Tensor) -> tuple[int, ...]:
    """Shape of what ``effective`` gives for one of ``RAW``, without computing it."""
    shape = parameter.shape
    mixture: Any = module
    leading = mixture.comp.shape[:1] if is_mixed(module, tensor) else shape[:-2]
    swapped = (runs(module), tensor) in _TRANSPOSED
    return (*leading, *(reversed(shape[-2:]) if swapped else shape[-2:]))


def matrix_shape(module: nn.Module) -> tuple[int, int] | None:
    """[out, in] of the one matrix that a module multiplies with (of all groups together), or None."""
    if protocol(module) is not None:
        weight = stored(module, "weight")
        return None if weight is None else (weight.shape[0], math.prod(weight.shape[1:]))
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, CONVOLUTIONS):
        return module.out_channels, module.in_channels // module.groups * math.prod(module.kernel_size)
    if not is_linear(module):
        return None
    if runs(module) == LORA:
        return matrix_shape(module.get_submodule("base_layer"))
    widths: Any = module
    return (widths.out_channels, widths.in_channels) if hasattr(module, "out_channels") else (widths.nf, widths.nx)


def _computed(module: nn.Module, tensor: str) -> Tensor:
    if parametrize.is_parametrized(module, tensor):
        chain = module.get_submodule(f"parametrizations.{tensor}")
        # Within a forward pass that computes it once for all views: what that pass multiplies with.
        held = vars(chain).get("held")
        return _parametrized(chain) if held is None else held
    hook = _hook(module, tensor)
    if isinstance(hook, SpectralNorm):
        return hook.compute_weight(module, do_power_iteration=False)
    # The attribute that a hook leaves is as old as the last forward pass, so it is computed again.
    if isinstance(hook, WeightNorm):
        return hook.compute_weight(module)
    return getattr(module, tensor) if hook is None else hook.apply_mask(module)


def _parametrized(chain: Any) -> Tensor:
    """What a chain of parametrizations computes in eval mode; in training mode some move their buffers."""
    values = [chain.original] if chain.is_tensor else [getattr(chain, f"original{k}") for k in range(chain.ntensors)]
    for step in chain:
        # A copy, which shares all tensors: setting the mode of the module itself would be seen by other threads.
        values = [_quiet(step)(*values)]
    return values[0]


def _quiet(module: nn.Module) -> nn.Module:
    """A copy in eval mode, its children as well, which shares all tensors."""
    twin = copy.copy(module)
    vars(twin).update(training=False, _modules={name: _quiet(child) for name, child in module.named_children()})
    return twin


def _resting(module: Any) -> Any:
    """A parametrized module without its parametrizations, with what they compute in their place; shares all else."""
    twin: Any = object.__new__(type(module).__bases__[0])
    vars(twin).update(vars(module))
    vars(twin).update({tensor: _computed(module, tensor) for tensor in module.parametrizations})
    return twin


def _standardised(module: Any, weight: Tensor) -> Tensor:
    """Every output channel brought to mean 0 and variance 1, times its gain where there is one (timm's classes)."""
    rows = weight.flatten(1)
    var, mean = torch.var_mean(rows, dim=1, correction=0, keepdim=True)
    rows = (rows - mean) * torch.rsqrt(var + module.eps)
    gain = getattr(module, "gain", None)
    return rows if gain is None else rows * (gain.flatten(1) * module.scale)


def _adapted(module: Any, tensor: str) -> Tensor:
    """The weight of the layer inside plus the products of its active low-rank adapters."""
    weight = effective(module.base_layer, tensor)
    sign, names = 1, [] if module.merged_adapters else module.active_adapters
    if module.disable_adapters:  # the forward pass begins by taking out again what is merged
        sign, names = -1, module.merged_adapters
    flip = runs(module.base_layer) == "transformers.pytorch_utils.Conv1D"
    for adapter in names:
        if adapter in module.lora_A:
            delta = module.get_delta_weight(adapter)
            weight = weight + sign * (delta.mT if flip else delta)
    return weight


def _hook(module: nn.Module, tensor: str) -> Any:
    """The hook of torch's older weight norm, spectral norm or pruning that computes a weight, if any."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, (SpectralNorm, WeightNorm)) and hook.name == tensor:
            return hook
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == tensor:
            return hook
    return None
