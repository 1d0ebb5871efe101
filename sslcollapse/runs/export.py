"""The exported encoder: weights and what is needed to build it, loadable without the recipe file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sslcollapse import __version__
from sslcollapse.core.errors import RecipeError, RunError
from sslcollapse.core.files import write_atomic
from sslcollapse.core.untrusted import check_regular, read_regular
from sslcollapse.recipe import recipe_hash
from sslcollapse.runs.rebuild import rebuild, why_not_loadable


def save_encoder(
    folder: Path,
    encoder: nn.Module,
    recipe: Mapping[str, Any],
    in_shape: Sequence[int],
    step: int,
    *,
    hash_: str | None = None,
) -> None:
    """Write ``encoder.safetensors`` and ``encoder.json`` into ``folder``; the hash is computed unless it is given."""
    write_atomic(folder / "encoder.safetensors", encoder_bytes(encoder))
    description = {
        "encoder": recipe["encoder"],
        "in_shape": list(in_shape),
        "out_dim": encoder.out_dim,
        "step": step,
        "hash": hash_ or recipe_hash(recipe),
        "recipe": dict(recipe),
        "version": __version__,
    }
    write_atomic(folder / "encoder.json", (json.dumps(description, indent=2) + "\n").encode())


def encoder_bytes(encoder: nn.Module) -> bytes:
    """An encoder's tensors as a safetensors file.

    A tensor under several names is stored once, under the first; the file's metadata has the other names, each with
    the stored one.
    """
    from safetensors.torch import save

    state, shared = encoder.state_dict(), _shared_names(encoder)
    tensors = {name: _whole(value.detach().cpu()) for name, value in state.items() if name not in shared}
    return save(tensors, metadata={"format": "pt", **shared})


def check_exportable(encoder: nn.Module, spec: Mapping[str, Any], in_shape: Sequence[int]) -> None:
    """Make sure that an encoder can be exported after training, and loaded; copies none of its tensors.

    Args:
        encoder: as it is before training.
        spec: ``{"type": name, ...}``, what it was built from.
        in_shape: shape of one input.

    Raises:
        RecipeError: something in its state dict is no dense tensor, or of a type that safetensors does not know; it
            is named. Or the description does not lead to these tensors again; the reason is given.
    """
    from safetensors.torch import save

    for name, value in encoder.state_dict().items():
        if not isinstance(value, Tensor):
            reason = f"is a {type(value).__name__} and no tensor"
        elif is_lazy(value) or value.is_meta or value.layout != torch.strided:
            reason = "is sparse, or has no values yet"
        else:
            try:
                save({name: torch.empty(0, dtype=value.dtype)})
                continue
            except Exception as error:  # of safetensors, in many kinds
                reason = f"is of type {value.dtype}, which safetensors does not store: {error}"
        raise RecipeError(
            f"encoder: it cannot be exported after training, since {name!r} in its state dict {reason}; let its state "
            "dict have dense tensors only"
        )
    if obstacle := why_not_loadable(spec, list(in_shape), encoder.state_dict()):
        raise RecipeError(f"encoder: what is exported after training could not be loaded again: {obstacle}")


def _shared_names(encoder: nn.Module) -> dict[str, str]:
    """Each further name of a tensor → its first one."""
    first: dict[Any, str] = {}
    shared = {}
    for name, value in encoder.state_dict().items():
        if value.numel():
            place = value.untyped_storage().data_ptr(), value.storage_offset(), value.shape, value.stride(), value.dtype
            if first.setdefault(place, name) != name:
                shared[name] = first[place]
    return shared


def _whole(tensor: Tensor) -> Tensor:
    """The tensor in a storage of its own size: safetensors refuses two that are parts of one."""
    tensor = tensor.contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size() else tensor.clone()


def _share(encoder: nn.Module, shared: Mapping[str, str]) -> None:
    """Give names that share a tensor in a file the same one in the network, where building it has not done so."""
    parameters = dict(encoder.named_parameters(remove_duplicate=False))
    for name, kept in shared.items():
        if name in parameters and kept in parameters and parameters[name] is not parameters[kept]:
            owner, _, leaf = name.rpartition(".")
            setattr(encoder.get_submodule(owner), leaf, parameters[kept])


def load_encoder(path: Path | str) -> tuple[nn.Module, dict[str, Any]]:
    """The encoder in a run directory (or the path of its ``encoder.safetensors``), in eval mode, and its description.

    Nothing but the two files is read, no code of them is run and no network is asked: arguments that would fetch
    weights are left out (``offline``).

    Raises:
        RunError: when the files are absent or do not belong together.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).exists():
        raise RunError(
            f"{path}: no such run directory or encoder.safetensors; runs are in runs/ unless --out said else"
        )
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    try:
        description = json.loads(read_regular(folder / "encoder.json"))
        check_regular(folder / "encoder.safetensors")
        with safe_open(folder / "encoder.safetensors", framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
            metadata = file.metadata() or {}
        if not isinstance(description, dict):
            raise ValueError(f"encoder.json holds a {type(description).__name__}, not a description")
    except FileNotFoundError as error:
        if (folder / "recipe.json").exists() and not (folder / "result.json").exists():
            raise RunError(
                f"{folder}: this run is not finished and has no exported encoder yet; go on with the command that "
                "started it and --resume"
            ) from error
        raise RunError(
            f"{folder}: no readable exported encoder: {Path(error.filename).name} is not there; a run directory is "
            "such as runs/NAME/HASH/seed0"
        ) from error
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise RunError(
            f"{folder}: no readable exported encoder (encoder.safetensors and encoder.json): {error}"
        ) from error
    missing = [field for field in ("encoder", "in_shape") if field not in description]
    if missing:
        raise RunError(
            f"{folder / 'encoder.json'}: has no {', '.join(map(repr, missing))}; it is damaged or of another version "
            "of this package: train the recipe again with --overwrite"
        )
    shared = {name: kept for name, kept in metadata.items() if kept in tensors and name not in tensors}
    tensors |= {name: tensors[kept] for name, kept in shared.items()}
    files = ("encoder.json", "encoder.safetensors")
    encoder = rebuild(description["encoder"], description["in_shape"], tensors, folder, files)
    _share(encoder, shared)
    return encoder, description


_PLAIN_NAMES: dict[str, list[tuple[str, str]]] = {
    "timm": [(r"^model\.", "")],
    "pyg": [(r"^module\.", "")],
    "resnet18": [],
    "resnet34": [],
    "resnet50": [],
    "gcn": [
        (r"^(convs\.\d+)\.weight$", r"\1.lin.weight"),
        (r"^norm_acts\.(\d+)\.norm\.", r"norms.\1."),
        (r"^norm_acts\.(\d+)\.activation\.", r"activations.\1."),
    ],
    "sage": [
        (r"^(convs\.\d+)\.neighbors\.", r"\1.lin_l."),
        (r"^(convs\.\d+)\.root\.", r"\1.lin_r."),
        (r"^norm_acts\.(\d+)\.norm\.", r"norms.\1."),
        (r"^norm_acts\.(\d+)\.activation\.", r"activations.\1."),
    ],
}
"""Encoder → patterns and replacements that turn its names of tensors into those of the library it is of."""


def plain_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Tensors of an exported encoder under the names of timm, torchvision or PyTorch Geometric.

    * ``timm`` and ``pyg``: those of the model itself, ``timm.create_model(..., num_classes=0)`` or the class of
      ``torch_geometric.nn``.
    * ``resnet18``, ``resnet34``, ``resnet50``: torchvision's without ``fc``. With the stem ``"cifar"`` the network must
      have a 3×3 ``conv1`` of stride 1 and no ``maxpool``.
    * ``gcn`` and ``sage``: ``convs.<l>`` is a ``GCNConv`` or ``SAGEConv`` of PyTorch Geometric, ``norms.<l>`` and
      ``activations.<l>`` what follows it, ``skips.<l>`` a Linear of ``sage``. Standardised weights are given as the
      forward pass multiplies with them, so the plain convolution needs no standardisation.

    Args:
        path: a run directory, or its ``encoder.safetensors``.

    Raises:
        RunError: as ``load_encoder``; also for an encoder whose architecture is this package's own.
    """
    encoder, description = load_encoder(path)
    kind = description["encoder"]["type"]
    if kind not in _PLAIN_NAMES:
        raise RunError(
            f"{path}: encoder {kind!r} is an architecture of this package and no other library's (plain modules are "
            f"known for {', '.join(_PLAIN_NAMES)}); use the module that load_encoder returns"
        )
    tensors = {name: value.detach() for name, value in encoder.state_dict().items()}
    if kind == "gcn":
        for name, module in encoder.named_modules():
            if hasattr(module, "effective_weight"):
                tensors[f"{name}.weight"] = module.effective_weight().detach().contiguous()
    for pattern, replacement in _PLAIN_NAMES[kind]:
        tensors = {re.sub(pattern, replacement, name): value for name, value in tensors.items()}
    return tensors
