"""Networks as targets of a diagnosis: in memory, of timm, of torchvision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sslcollapse.core.errors import SSLCollapseError, suggest
from sslcollapse.layers.layer import Coverage, LayerError, described, weights
from sslcollapse.nn.init import unreadable
from sslcollapse.nn.wrappers import check_model, coverage_of, layers_of, unwrap
from sslcollapse.rank.diagnose.matrices import Matrix
from sslcollapse.rank.diagnose.state_dict import TargetError

TIMM, TORCHVISION, HUB = "timm:", "torchvision:", "hf:"
KINDS = (
    "a run directory, an exported encoder.safetensors, a .safetensors or .pt state dict, a folder of shards, "
    "timm:MODEL, torchvision:MODEL or hf:ORG/NAME"
)

Networks = Callable[[tuple[int, ...]], tuple[nn.Module, nn.Module]]
"""Shape of one input → the network and an untrained one of the same architecture."""


@dataclass(frozen=True)
class Target:
    """What is diagnosed.

    Attributes:
        title: one line on what it is.
        matrices: weight matrices by depth, or in the order of the file; of a safetensors file or a folder they are read
            as they are asked for, one at a time.
        coverage: how much of the parameters the matrices hold, and what is left out, with the reason.
        networks: makes the networks for inputs of a shape; None where only tensors are known.
        trained: whether the network has seen data, so that its BatchNorms have statistics of their own.
        reads: kinds of input that the network reads; None where it does not say.
        run: run directory whose records say how ranks have moved.
    """

    title: str
    matrices: Collection[Matrix]
    coverage: Coverage
    networks: Networks | None = None
    trained: bool = True
    reads: Sequence[str] | None = None
    run: Path | None = None


def timm_target(name: str, pretrained: bool) -> Target:
    """A model of timm without its classifier, by name."""
    import timm

    known = timm.is_model(name)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True) if known else None
    default = tuple(config.input_size) if config is not None else (3, 224, 224)
    kind = "published weights" if pretrained else "random initialisation; --pretrained takes the published weights"

    def networks(shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
        return _timm_model(name, shape, pretrained, 0), _timm_model(name, shape, False, 1)

    model = _timm_model(name, default, pretrained, 0)
    return Target(
        f"{TIMM}{name} ({kind})",
        matrices_of(model, name),
        coverage_of(model),
        networks=networks,
        trained=pretrained,
        reads=("image",),
    )


def torchvision_target(name: str, pretrained: bool) -> Target:
    """A model of torchvision, by name."""
    from torchvision.models import get_model, list_models

    if name not in list_models():
        near = suggest(name, list_models())
        raise TargetError(f"{TORCHVISION}{name}: torchvision has no model of that name{near}")

    def made(weights: str | None, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                model: nn.Module = get_model(name, weights=weights).eval()
            except Exception as error:
                raise TargetError(f"{TORCHVISION}{name}: cannot be made ({type(error).__name__}: {error})") from None
            return model

    model = made("DEFAULT" if pretrained else None, 0)
    kind = "published weights" if pretrained else "random initialisation; --pretrained takes the published weights"
    return Target(
        f"{TORCHVISION}{name} ({kind})",
        matrices_of(model, name),
        coverage_of(model),
        networks=lambda shape: (model, made(None, 1)),
        trained=pretrained,
        reads=("image",),
    )


def network_target(model: nn.Module, untrained: nn.Module | None) -> Target:
    """A network in memory, wrapped or not."""
    check_model(model, "diagnose")
    network = unwrap(model)

    def networks(shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
        return network, renewed(network) if untrained is None else unwrap(untrained)

    title = f"a {type(network).__name__} in memory"
    return Target(title, matrices_of(model, title), coverage_of(model), networks)


def renewed(network: nn.Module) -> nn.Module:
    """A copy with new weights, by the modules' own ``reset_parameters``; what has none is left as it was.

    Raises:
        TargetError: it cannot be copied.
    """
    try:
        twin = copy.deepcopy(network)
    except Exception as error:
        raise TargetError(
            f"{type(network).__name__} cannot be copied ({type(error).__name__}: {error}), so that there is no "
            "untrained one to hold its outputs against; make one and give it as untrained="
        ) from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in twin.modules():
            reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
            if callable(reset):
                reset()
    return twin


def _timm_model(name: str, in_shape: tuple[int, ...], pretrained: bool, seed: int) -> nn.Module:
    """The model without its classifier, with the names that timm's own state dict has."""
    from sslcollapse.encoders.timm import Timm

    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Timm(in_shape, model=name, pretrained=pretrained).model.eval()
    except SSLCollapseError:
        raise
    except ValueError as error:
        raise TargetError(f"{TIMM}{name}: {error}") from error


def matrices_of(network: nn.Module, title: str) -> list[Matrix]:
    """The weights of a network, as they act."""
    with torch.no_grad():
        try:
            layers = layers_of(network)
        except LayerError as error:
            raise TargetError(f"{title}: no weight matrices in this network; {error}") from None
        found = [Matrix(name, layers[name].depth, weight) for name, weight in weights(layers).items()]
    for matrix in found:
        if reason := unreadable(matrix.weight):
            raise TargetError(f"{title}: the weight of {matrix.name} {reason}")
    if not found:
        raise TargetError(f"{title}: no weight matrices in this network{unread(coverage_of(network))}")
    return found


def unread(coverage: Coverage) -> str:
    """What is left out, for the end of a sentence."""
    return f"; {described(coverage.unread)}" if coverage.unread else ""
