"""The exported encoder: weights and what is needed to build it, loadable without the recipe file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sslcollapse import __version__
from sslcollapse.checkpoint import write_atomic
from sslcollapse.errors import RunError
from sslcollapse.rebuild import rebuild
from sslcollapse.recipe import recipe_hash
from sslcollapse.untrusted import check_regular, read_regular


def save_encoder(
    folder: Path, encoder: nn.Module, recipe: Mapping[str, Any], in_shape: Sequence[int], step: int
) -> None:
    """Write ``encoder.safetensors`` and ``encoder.json`` into ``folder``."""
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    write_atomic(folder / "encoder.safetensors", save(tensors, metadata={"format": "pt"}))
    description = {
        "encoder": recipe["encoder"],
        "in_shape": list(in_shape),
        "out_dim": encoder.out_dim,
        "step": step,
        "hash": recipe_hash(recipe),
        "recipe": dict(recipe),
        "version": __version__,
    }
    write_atomic(folder / "encoder.json", (json.dumps(description, indent=2) + "\n").encode())


def load_encoder(path: Path | str) -> tuple[nn.Module, dict[str, Any]]:
    """The encoder in a run directory (or the path of its ``encoder.safetensors``), in eval mode, and its description.

    Nothing but the two files is read, no code of them is run and no network is asked: arguments that would fetch
    weights are left out (``offline``).

    Raises:
        RunError: when the files are absent or do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).exists():
        raise RunError(
            f"{path}: no such run directory or encoder.safetensors; runs are in runs/ unless --out said else"
        )
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    try:
        description = json.loads(read_regular(folder / "encoder.json"))
        check_regular(folder / "encoder.safetensors")
        tensors = load_file(folder / "encoder.safetensors")
        if not isinstance(description, dict):
            raise ValueError(f"encoder.json holds a {type(description).__name__}, not a description")
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
    files = ("encoder.json", "encoder.safetensors")
    return rebuild(description["encoder"], description["in_shape"], tensors, folder, files), description


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
