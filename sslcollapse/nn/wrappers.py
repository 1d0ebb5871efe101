"""The network inside the wrappers of data parallelism and compilation, and its layers by name."""

from __future__ import annotations

import numbers
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from sslcollapse.core.errors import SSLCollapseError
from sslcollapse.layers.layer import Coverage, described
from sslcollapse.layers.map import Layer, LayerError, layer_coverage, layer_map, select

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
    """Refuse what is not a network, and one whose weights are nowhere as a whole.

    Raises:
        SSLCollapseError: says what was given, and what to do.
    """
    if not isinstance(model, nn.Module):
        raise SSLCollapseError(f"{what} needs a torch.nn.Module as its first argument, got {type(model).__name__}")
    for name, part in model.named_modules():
        reason = _in_pieces(part)
        if reason is not None:
            place = f" ({name!r})" if name else ""
            raise SSLCollapseError(f"{what} cannot read {type(part).__name__}{place}: {reason}")


def _in_pieces(part: nn.Module) -> str | None:
    """Why a module does not hold its weights, and what to do; None where it does, or where shards can be gathered."""
    if _is_flat(part):
        return (
            "it keeps its weights as flat shards, so that no layer has its own. Use FSDP2, "
            "torch.distributed.fsdp.fully_shard, whose weights can be brought together"
        )
    if getattr(part, "_is_replica", False):
        return "it is a copy that nn.DataParallel makes for one forward pass. Give the network that is wrapped"
    if any(hasattr(parameter, "ds_id") for parameter in part.parameters(recurse=False)):
        return (
            "DeepSpeed's stage 3 keeps its weights in pieces. Use stage 1 or 2, or FSDP2, "
            "torch.distributed.fsdp.fully_shard"
        )
    return None


def _is_flat(part: nn.Module) -> bool:
    """Whether it is FSDP1's wrapper; looked up, not imported, since without that import there is none."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(part, fsdp.FullyShardedDataParallel)


def check_count(name: str, value: object) -> None:
    """Refuse what is no whole number of at least 1.

    Raises:
        ValueError: quotes it.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
