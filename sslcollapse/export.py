"""The exported encoder: weights and what is needed to build it, loadable without the recipe file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from sslcollapse import __version__
from sslcollapse.checkpoint import write_atomic
from sslcollapse.errors import RunError
from sslcollapse.recipe import recipe_hash
from sslcollapse.registry import ENCODERS


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
        description = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "encoder.safetensors")
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise RunError(
            f"{folder}: no readable exported encoder (encoder.safetensors and encoder.json): {error}"
        ) from error
    missing = [field for field in ("encoder", "in_shape") if field not in description]
    if missing:
        raise RunError(
            f"{folder / 'encoder.json'}: has no {', '.join(map(repr, missing))}; it is damaged or of another version "
            "of this package: train the recipe again with --overwrite"
        )
    encoder = ENCODERS.build(description["encoder"], tuple(description["in_shape"]))
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(f"{folder}: encoder.safetensors does not fit encoder.json: {error}") from error
    return encoder.eval(), description
