"""From what the user names to weight matrices and, where the architecture is known, to networks that can run.

The one file of this room that knows recipes, runs and their training: what a run directory or a recipe of data holds.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.errors import RecipeError, SSLCollapseError
from sslcollapse.core.registry import RegistryError, remedy
from sslcollapse.core.untrusted import check_regular, check_zip, read_regular
from sslcollapse.nn.wrappers import coverage_of
from sslcollapse.rank.diagnose.matrices import find_stored
from sslcollapse.rank.diagnose.networks import (
    HUB,
    KINDS,
    TIMM,
    TORCHVISION,
    Target,
    matrices_of,
    network_target,
    timm_target,
    torchvision_target,
    unread,
)
from sslcollapse.rank.diagnose.shards import (
    StoredTensors,
    adapter_scaling,
    is_folder_of_weights,
    read_folder,
    read_safetensors,
)
from sslcollapse.rank.diagnose.state_dict import TargetError, check_stored, read_tensors, tensors_of

ENCODER = "encoder."
"""What names of the encoder's tensors begin with in a checkpoint."""

DIAGNOSED = 1024
"""Samples of inputs that are made a batch at a time, where nobody says how many."""


Given = nn.Module | Mapping[str, Any] | str | Path


def load_target(
    target: Given, *, pretrained: bool = False, entry: str | None = None, untrained: nn.Module | None = None
) -> Target:
    """Read whatever can be diagnosed; torch's random state is kept.

    Args:
        target: a network, wrapped or not; a state dict; a path; or ``timm:``, ``torchvision:`` or ``hf:`` and a name.
        pretrained: with the published weights of a timm or torchvision model instead of a random initialisation.
        entry: of a checkpoint that holds several networks, which; see ``read_tensors``.
        untrained: of a network, what its outputs are held against; None for a copy with new weights.

    Raises:
        TargetError: not there, damaged, or without weight matrices.
        DataError: no regular file.
        RunError: a run directory whose files do not belong together.
    """
    with torch.random.fork_rng(devices=[]):
        if isinstance(target, (nn.Module, Mapping)):
            if pretrained:
                raise TargetError(f"pretrained is for {TIMM}MODEL and {TORCHVISION}MODEL, not for what is in memory")
            return network_target(target, untrained) if isinstance(target, nn.Module) else _mapping(target, entry)
        if not isinstance(target, (str, Path)):
            raise TargetError(
                f"cannot diagnose a {type(target).__name__}: a target is a network, a state dict, {KINDS}"
            )
        return _load(str(target), pretrained, entry)


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


def _load(target: str, pretrained: bool, entry: str | None) -> Target:
    if target.startswith((TIMM, TORCHVISION)):
        return (timm_target if target.startswith(TIMM) else torchvision_target)(target.partition(":")[2], pretrained)
    if pretrained:
        raise TargetError(f"--pretrained: is for {TIMM}MODEL or {TORCHVISION}MODEL, and {target!r} is neither")
    if target.startswith(HUB):
        found = _folder(_downloaded(target.removeprefix(HUB)), entry)
        return replace(found, title=target + (f" ({found.title.partition(' (')[2]}" if " (" in found.title else ""))
    path = Path(target)
    try:
        there = path.exists()
    except OSError:  # a name that is too long
        there = False
    if not there:
        raise TargetError(f"{target[:1000]}: no such file or folder; a target is {KINDS}")
    if path.is_dir():
        return _folder(path, entry) if is_folder_of_weights(path) else replace(_run(path), run=path)
    check_regular(path)
    if path.name == "encoder.safetensors" and path.with_name("encoder.json").exists():
        return _exported(path)
    if path.suffix == ".safetensors":
        return _stored(str(path), read_safetensors(path), entry)
    tensors, place, others = read_tensors(path, entry)
    also = f"; --entry takes another: {', '.join(others)}" if others else ""
    return _stored(f"{path}{f', entry {place}{also}' if place else ''}", StoredTensors(tensors, tensors.__getitem__))


def _mapping(content: Mapping[str, Any], entry: str | None) -> Target:
    tensors, place = tensors_of(content, "the state dict", entry)
    title = f"a state dict of {len(tensors)} tensors{f', entry {place}' if place else ''}"
    return _stored(title, StoredTensors(tensors, tensors.__getitem__))


def _stored(
    title: str, tensors: StoredTensors, entry: str | None = None, scaling: Callable[[str, int], float] | None = None
) -> Target:
    if entry is not None:
        tensors = tensors.below(entry, title)
    later = tensors.is_file
    read, rule = tensors.read if later else None, {} if scaling is None else {"scaling": scaling}
    matrices, coverage = find_stored(tensors.shapes, read, **rule)
    if not len(matrices):
        raise TargetError(
            f"{title}: no weight matrices among its {len(tensors.shapes)} tensors; a layer is a tensor called 'weight' "
            f"of two or more dimensions that is no embedding{unread(coverage)}"
        )
    return Target(title, matrices if later else list(matrices), coverage)


def _folder(path: Path, entry: str | None) -> Target:
    """Weights as Hugging Face saves them; its config.json says what they are of."""
    config, scaling = _json(path / "config.json"), None
    adapter = _json(path / "adapter_config.json")
    kinds = config.get("architectures")
    kinds = ", ".join(map(str, kinds)) if isinstance(kinds, list) else str(kinds or "")
    words = [kinds, str(config.get("model_type") or "")]
    if adapter:
        base = str(adapter.get("base_model_name_or_path") or "an unknown network")
        words, scaling = [f"an adapter of {base}"], adapter_scaling(adapter)
    said = ", ".join(word for word in words if word)
    return _stored(f"{path}{f' ({said})' if said else ''}", read_folder(path), entry, scaling)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_regular(path)) if path.exists() else {}
    except (ValueError, RecursionError) as error:
        raise TargetError(f"{path}: is no JSON ({error}); download it again") from None
    return found if isinstance(found, dict) else {}


def _downloaded(name: str) -> Path:
    """The folder of a repository of the Hugging Face hub: its weights, as safetensors where it has them."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        try:
            files = HfApi().list_repo_files(name)
        except HFValidationError:
            raise
        except Exception:  # without a network what is in the cache will do
            files = []
        kinds = ("*.safetensors",) if any(file.endswith(".safetensors") for file in files) else ("*.bin",)
        # what a cache holds is taken as it is, so patterns matter only where something is downloaded
        return Path(snapshot_download(name, allow_patterns=["*.json", *(kinds if files else ("*",))]))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise TargetError(
            f"{HUB}{name}: cannot be downloaded ({type(error).__name__}: {reason}); with no network, download it where "
            "there is one, and give the folder"
        ) from None


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
    return Target(title, matrices_of(encoder, title), coverage_of(encoder), networks, reads=reads)
