"""From what the user names to weight matrices and, where the architecture is known, to networks that can run.

The one file of this room that knows recipes, runs and their training: what a run directory or a recipe of data holds.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.errors import RecipeError, SSLCollapseError
from sslcollapse.core.registry import RegistryError, remedy
from sslcollapse.core.untrusted import check_regular, check_zip, read_regular
from sslcollapse.layers.layer import Coverage, described
from sslcollapse.layers.map import layer_coverage, layer_map, weights
from sslcollapse.rank.diagnose.matrices import Matrix, find_matrices
from sslcollapse.rank.diagnose.state_dict import TargetError, check_stored, read_tensors

ENCODER = "encoder."
"""What names of the encoder's tensors begin with in a checkpoint."""

TIMM = "timm:"
KINDS = "a run directory, an exported encoder.safetensors, a .safetensors or .pt state dict, or timm:MODEL"

Networks = Callable[[tuple[int, ...]], tuple[nn.Module, nn.Module]]
"""Shape of one input → the network and an untrained one of the same architecture."""


DIAGNOSED = 1024
"""Samples of inputs that are made a batch at a time, where nobody says how many."""


@dataclass(frozen=True)
class Target:
    """What is diagnosed.

    Attributes:
        title: one line on what it is.
        matrices: weight matrices by depth, or in the order of the file.
        coverage: how much of the parameters the matrices hold, and what is left out, with the reason.
        networks: makes the networks for inputs of a shape; None where only tensors are known.
        trained: whether the network has seen data, so that its BatchNorms have statistics of their own.
        reads: kinds of input that the network reads; None where it does not say.
    """

    title: str
    matrices: Sequence[Matrix]
    coverage: Coverage
    networks: Networks | None = None
    trained: bool = True
    reads: Sequence[str] | None = None


def load_target(target: str, *, pretrained: bool = False) -> Target:
    """Read a run directory, an exported encoder, a state dict or a model of timm; torch's random state is kept.

    Args:
        target: path, or ``timm:`` and a model's name.
        pretrained: with the published weights of the timm model instead of a random initialisation.

    Raises:
        TargetError: not there, damaged, or without weight matrices.
        DataError: no regular file.
        RunError: a run directory whose files do not belong together.
    """
    with torch.random.fork_rng(devices=[]):
        return _load(target, pretrained)


def load_data(path: Path) -> dict[str, Any]:
    """The recipe of ``--data``. A Python file is run: before a target is loaded, which may need what it registers.

    Raises:
        RecipeError: see ``sslcollapse.recipe.load``.
    """
    from sslcollapse.recipe import load

    return load(path)


def with_data(
    target: Target, data: Mapping[str, Any], samples: int | None
) -> tuple[nn.Module, nn.Module, Iterable[Any], Tensor | None, str]:
    """The network of a target, an untrained one, views of a recipe's probe set, the rows that count, and what they are.

    Args:
        target: with a known architecture.
        data: recipe whose domain supplies the inputs, as ``load_data`` has read it.
        samples: at most this many; None is all nodes of graphs and ``DIAGNOSED`` images.

    Raises:
        TargetError: a target that is tensors only, or that reads other inputs than the recipe's.
        RecipeError, MissingDataError, DataError: see the recipe's domain.
    """
    if target.networks is None:
        raise TargetError(
            f"--data: {target.title} is tensors without an architecture, so it cannot be run; give a run directory, an "
            "exported encoder or timm:MODEL"
        )
    from sslcollapse.recipe import resolve_data
    from sslcollapse.training.build import build_domain

    try:
        recipe = resolve_data(data)
        domain = build_domain(recipe)
    except (RecipeError, RegistryError) as error:
        if not (advice := remedy(error)):
            raise
        raise TargetError(f"--data: {error}{advice}") from error
    if target.reads is not None and domain.kind not in target.reads:
        raise TargetError(
            f"--data: its views are of kind {domain.kind}, and the encoder reads {' or '.join(target.reads)}"
        )
    trained, untrained = target.networks(domain.in_shape)
    domain.load()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    views, rows = domain.probe_set().to(device).measured(samples, DIAGNOSED)
    return trained.to(device), untrained, views, rows, f"{recipe['name']} ({domain.describe()})"


def _load(target: str, pretrained: bool) -> Target:
    if target.startswith(TIMM):
        return _timm(target.removeprefix(TIMM), pretrained)
    if pretrained:
        raise TargetError(f"--pretrained: is for {TIMM}MODEL, and {target!r} is not one")
    path = Path(target)
    try:
        there = path.exists()
    except OSError:  # a name that is too long
        there = False
    if not there:
        raise TargetError(f"{target[:1000]}: no such file or folder; a target is {KINDS}")
    if path.is_dir():
        return _run(path)
    check_regular(path)
    if path.name == "encoder.safetensors" and path.with_name("encoder.json").exists():
        return _exported(path)
    tensors, entry = read_tensors(path)
    matrices, coverage = find_matrices(tensors)
    if not matrices:
        raise TargetError(
            f"{path}: no weight matrices among its {len(tensors)} tensors; a layer is a tensor called 'weight' "
            f"of two or more dimensions that is no embedding{_unread(coverage)}"
        )
    return Target(f"{path}{f', entry {entry}' if entry else ''}", matrices, coverage)


def _run(path: Path) -> Target:
    if (path / "encoder.safetensors").exists():
        return _exported(path)
    if not (path / "recipe.json").exists():
        raise TargetError(
            f"{path}: no run directory (no encoder.safetensors or recipe.json in it); a target is {KINDS}"
        )
    from sslcollapse.runs.rebuild import rebuild
    from sslcollapse.training.build import build_domain
    from sslcollapse.training.checkpoint import load_latest_checkpoint

    for file in (path / "checkpoints").glob("step*"):
        if not file.is_dir():
            check_regular(file)
            if zipfile.is_zipfile(file):
                check_zip(file)
    try:
        state = load_latest_checkpoint(path / "checkpoints")
        recipe = json.loads(read_regular(path / "recipe.json"))
        in_shape = tuple(build_domain(recipe).in_shape)
        tensors = {
            name.removeprefix(ENCODER): tensor for name, tensor in state["module"].items() if name.startswith(ENCODER)
        }
        check_stored(tensors, path)
        encoder = rebuild(recipe["encoder"], in_shape, tensors, path, ("recipe.json", "its checkpoint"))
        title, seed = f"{path} (checkpoint of step {state['step']})", recipe["seed"]
    except RegistryError as error:
        raise TargetError(f"{path}: {error}{remedy(error)}") from error
    except SSLCollapseError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, UnpicklingError) as error:
        raise TargetError(f"{path}: its checkpoint and recipe.json do not belong together: {error}") from error
    return _encoder(title, encoder, recipe["encoder"], in_shape, seed)


def _exported(path: Path) -> Target:
    from sslcollapse.runs.export import load_encoder

    try:
        encoder, description = load_encoder(path)
        spec, in_shape, step = description["encoder"], tuple(description["in_shape"]), description["step"]
        seed = int(description["recipe"]["seed"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, SSLCollapseError):
            raise
        raise TargetError(f"{path}: encoder.json lacks what an export has ({error!r}); export it again") from error
    return _encoder(f"{path} (encoder after step {step})", encoder, spec, in_shape, seed)


def _encoder(title: str, encoder: nn.Module, spec: dict[str, Any], in_shape: tuple[int, ...], seed: int) -> Target:
    def networks(shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
        if tuple(shape) != in_shape:
            raise TargetError(f"--data: its samples have shape {list(shape)}, the encoder reads {list(in_shape)}")
        from sslcollapse.core.registry import ENCODERS
        from sslcollapse.runs.rebuild import offline

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            return encoder, ENCODERS.construct(offline(spec), in_shape)

    reads: Any = getattr(encoder, "reads", None)
    return Target(title, _matrices(encoder, title), layer_coverage(encoder), networks, reads=reads)


def _timm(name: str, pretrained: bool) -> Target:
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
        _matrices(model, name),
        layer_coverage(model),
        networks=networks,
        trained=pretrained,
        reads=("image",),
    )


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


def _matrices(network: nn.Module, title: str) -> list[Matrix]:
    with torch.no_grad():
        layers = layer_map(network)
        found = [Matrix(name, layers[name].depth, weight) for name, weight in weights(layers).items()]
    if not found:
        raise TargetError(f"{title}: no weight matrices in this network{_unread(layer_coverage(network))}")
    return found


def _unread(coverage: Coverage) -> str:
    return f"; {described(coverage.unread)}" if coverage.unread else ""
