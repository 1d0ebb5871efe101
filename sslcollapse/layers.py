"""The layer map: every weight matrix of a network, by name, ordered by depth.

One map is shared by coefficients, spectra, tables and plots. What counts as a layer: ``nn.Linear``, PyTorch
Geometric's ``Linear``, convolutions as [out, in·kh·kw], and any module with ``effective_weight()``. A grouped
convolution is one layer a group, a fused qkv projection three, tied weights one.

Depth counts layers from 0 along the main path, in the order of registration. A layer inside a child called
``downsample``, ``shortcut``, ``skip`` or ``residual`` (or named in its parent's ``shortcuts``) lies parallel to the
main path and gets the depth of the last main-path layer registered before it in the same parent module, or
that of the parent's first layer where none comes before.
"""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from sslcollapse.errors import RecipeError
from sslcollapse.registry import suggest

SHORTCUT_NAMES = frozenset({"downsample", "shortcut", "skip", "residual"})


@dataclass(frozen=True)
class Layer:
    """One weight matrix of a network.

    Attributes:
        name: dotted path in the network, with a suffix for a part of a fused weight (``attn.qkv.q``).
        module: the module that owns the weight and whose output is the layer's output.
        depth: position along the main path, from 0.
        shape: (out, in).
        parameter_name: attribute of ``module`` that stores the weight.
        start, stop: which rows of the stored weight belong to this layer.
    """

    name: str
    module: nn.Module
    depth: int
    shape: tuple[int, int]
    parameter_name: str = "weight"
    start: int = 0
    stop: int | None = None

    @property
    def parameter(self) -> nn.Parameter:
        """The stored parameter; under a parametrization the original that is trained."""
        parametrizations = getattr(self.module, "parametrizations", None)
        if parametrizations is not None and self.parameter_name in parametrizations:
            chain = parametrizations[self.parameter_name]
            return chain.original if hasattr(chain, "original") else chain.original1
        return getattr(self.module, self.parameter_name)

    def weight(self) -> Tensor:
        """The effective [out, in] weight that the forward pass uses, differentiable."""
        if hasattr(self.module, "effective_weight"):
            return self.module.effective_weight()
        return self.rows(getattr(self.module, self.parameter_name))

    def rows(self, tensor: Tensor) -> Tensor:
        """The part [out, in] of a tensor shaped like the parameter (its gradient, say) that is this layer's."""
        if self.start == 0 and self.stop is None:
            return tensor if tensor.dim() == 2 else tensor.flatten(1)
        return tensor[self.start : self.stop].flatten(1)

    def output_columns(self, output: Tensor, dim: int) -> Tensor:
        """The part of the module's output that is this layer's, along the channel dimension."""
        if self.start == 0 and self.stop is None:
            return output
        return output.narrow(dim, self.start, self.shape[0])


def layer_map(module: nn.Module) -> dict[str, Layer]:
    """All layers of a network by name, ordered by depth; empty for a network without any.

    Raises:
        ValueError: for a lazy module whose parameters are not initialised yet.
    """
    found: list[Layer] = []
    seen: set[int] = set()
    _visit(module, "", 0, False, found, seen)
    return {layer.name: layer for layer in sorted(found, key=lambda layer: layer.depth)}


def select(layers: Mapping[str, Layer], pattern: str) -> list[str]:
    """Names that equal ``pattern`` or, where none does, match it as a glob.

    Raises:
        RecipeError: when nothing matches; lists the layers.
    """
    names = [pattern] if pattern in layers else fnmatch.filter(layers, pattern)
    if not names:
        raise RecipeError(
            f"{pattern!r} matches no layer{suggest(pattern, list(layers))} (layers: {', '.join(layers) or 'none'})"
        )
    return names


def _visit(module: nn.Module, name: str, depth: int, parallel: bool, found: list[Layer], seen: set[int]) -> int:
    """Add the layers of ``module`` from ``depth`` on; return the depth of the next main-path layer."""
    for part in _own_layers(module, name, depth):
        if id(part.parameter) in seen and part.start == 0:
            return depth
        found.append(part)
    if found and found[-1].module is module:
        seen.add(id(found[-1].parameter))
        depth += 0 if parallel else 1
    first = depth
    shortcuts = SHORTCUT_NAMES.union(getattr(module, "shortcuts", ()))
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        if child_name in shortcuts and not parallel:
            for index, skip in enumerate([child] if not isinstance(child, nn.ModuleList) else child):
                skip_path = path if skip is child else f"{path}.{index}"
                # The k-th of a list of skips joins the input of the (k+1)-th layer; a single one ends its block.
                beside = max(depth - 1, first) if skip is child else min(first + index, max(depth - 1, first))
                _visit(skip, skip_path, beside, True, found, seen)
        else:
            depth = _visit(child, path, depth, parallel, found, seen)
    return depth


def _own_layers(module: nn.Module, name: str, depth: int) -> Iterator[Layer]:
    """The layers whose weight this module itself stores."""
    label = name or type(module).__name__
    if isinstance(getattr(module, "weight", None), UninitializedParameter):
        raise ValueError(f"{label}: its weight is not initialised yet; run one batch through the network first")
    if hasattr(module, "effective_weight"):
        out_dim, in_dim = module.effective_weight().shape
        yield Layer(label, module, depth, (out_dim, in_dim))
    elif isinstance(module, nn.MultiheadAttention):
        names = ("q", "k", "v")
        if module.in_proj_weight is not None:
            size = module.embed_dim
            for index, part in enumerate(names):
                start = index * size
                yield Layer(f"{label}.{part}", module, depth, (size, size), "in_proj_weight", start, start + size)
        else:
            for part in names:
                attribute = f"{part}_proj_weight"
                shape = getattr(module, attribute).shape
                yield Layer(f"{label}.{part}", module, depth, (shape[0], shape[1]), attribute)
    elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        out_dim, columns = module.out_channels // module.groups, module.weight[0].numel()
        for group in range(module.groups):
            if module.groups == 1:
                yield Layer(label, module, depth, (out_dim, columns))
            else:
                start = group * out_dim
                yield Layer(f"{label}.group{group}", module, depth, (out_dim, columns), "weight", start, start + out_dim)
    elif isinstance(module, _linear_types()):
        out_dim, in_dim = module.weight.shape
        if label.rpartition(".")[2] == "qkv" and out_dim % 3 == 0:
            size = out_dim // 3
            for index, part in enumerate(("q", "k", "v")):
                yield Layer(f"{label}.{part}", module, depth, (size, in_dim), "weight", index * size, (index + 1) * size)
        else:
            yield Layer(label, module, depth, (out_dim, in_dim))


def _linear_types() -> tuple[type, ...]:
    # PyTorch Geometric's Linear is not an nn.Linear; where it was never imported, no module can be one.
    library = sys.modules.get("torch_geometric.nn.dense.linear")
    return (nn.Linear, library.Linear) if library is not None else (nn.Linear,)


