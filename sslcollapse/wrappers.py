"""The network inside the wrappers of data parallelism and compilation, and its layers by name."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from sslcollapse.coverage import Coverage, described
from sslcollapse.errors import SSLCollapseError
from sslcollapse.layers import Layer, LayerError, layer_coverage, layer_map, select

_COMPILED = "_orig_mod"


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel, DataParallel and ``torch.compile``, in whatever order they are."""
    while True:
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        elif _COMPILED in model._modules:
            model = model.get_submodule(_COMPILED)
        else:
            return model


def layers_of(model: nn.Module, patterns: str | Sequence[str] = "*") -> dict[str, Layer]:
    """Name → layer of a network, wrapped or not, that match one of the globs or exact names; ordered by depth.

    Wrappers leave no trace in the names: a layer of a compiled part is called as that of the part itself.

    Raises:
        LayerError: a glob matches nothing (the message lists the layers), or there are no layers.
    """
    found: dict[str, Layer] = {}
    for name, layer in layer_map(unwrap(model)).items():
        plain = _plain(name)
        found[plain] = layer if plain == name else replace(layer, name=plain)
    if not found and (unread := coverage_of(model).unread):
        raise LayerError(f"this network has no layers; {described(unread)}")
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if not patterns:
        raise LayerError(f"layers must name at least one layer or glob (layers: {', '.join(found) or 'none'})")
    chosen = {name for pattern in patterns for name in select(found, pattern)}
    return {name: layer for name, layer in found.items() if name in chosen}


def coverage_of(model: nn.Module) -> Coverage:
    """How much of a network, wrapped or not, its layers hold; wrappers leave no trace in the names."""
    coverage = layer_coverage(unwrap(model))
    return replace(coverage, uncovered=[replace(part, name=_plain(part.name)) for part in coverage.uncovered])


def warn_of_unread(model: nn.Module, layers: str | Sequence[str], what: str) -> None:
    """Warn of parts of a network that may hold matrices and are not read, where all layers are asked for."""
    if layers != "*" or not (coverage := coverage_of(model)).unread:
        return
    warnings.warn(f"{what}: {coverage}; sslcollapse.layer_coverage(model) lists all", stacklevel=3)


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def check_model(model: object, what: str) -> None:
    """Refuse what is not a network.

    Raises:
        SSLCollapseError: says what was given.
    """
    if not isinstance(model, nn.Module):
        raise SSLCollapseError(f"{what} needs a torch.nn.Module as its first argument, got {type(model).__name__}")
