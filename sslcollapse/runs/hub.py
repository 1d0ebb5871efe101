"""An exported encoder with the ``from_pretrained``, ``save_pretrained`` and ``push_to_hub`` of huggingface_hub.

encoder = HubEncoder.from_run("runs/quickstart/<hash>/seed0")
encoder.push_to_hub("me/quickstart")
encoder = HubEncoder.from_pretrained("me/quickstart")     # or a folder
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, hf_hub_download
from torch import nn

from sslcollapse.core.files import write_atomic
from sslcollapse.runs.export import encoder_bytes, load_encoder

WEIGHTS, DESCRIPTION = "encoder.safetensors", "encoder.json"


class HubEncoder(
    nn.Module,
    ModelHubMixin,
    library_name="sslcollapse",
    tags=["self-supervised-learning", "feature-extraction"],
):
    """A trained encoder and its description, as the two files of an export.

    A repository of the hub holds exactly these files beside its card, so what is downloaded is tensors and JSON, and
    no code is run. Without a network, ``from_pretrained`` reads a folder.

    Args:
        encoder: one view in, [N, out_dim] out.
        description: the content of ``encoder.json``.

    Shapes:
        a view of N samples → [N, out_dim].
    """

    def __init__(self, encoder: nn.Module, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.encoder, self.description = encoder, dict(description)
        self.out_dim: int = self.description["out_dim"]

    @classmethod
    def from_run(cls, path: Path | str) -> HubEncoder:
        """The encoder of a run directory, or of an ``encoder.safetensors`` with its ``encoder.json``, in eval mode.

        Raises:
            RunError: see ``load_encoder``.
        """
        return cls(*load_encoder(path)).eval()

    def forward(self, view: Any) -> Any:
        """A view of N samples → [N, out_dim]."""
        return self.encoder(view)

    def _save_pretrained(self, save_directory: Path) -> None:
        write_atomic(save_directory / WEIGHTS, encoder_bytes(self.encoder))
        write_atomic(save_directory / DESCRIPTION, (json.dumps(self.description, indent=2) + "\n").encode())

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> HubEncoder:
        if Path(model_id).is_dir():
            return cls.from_run(model_id)
        known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        where = {name: options[name] for name in known if name in options}
        paths = [hf_hub_download(repo_id=model_id, filename=name, **where) for name in (DESCRIPTION, WEIGHTS)]
        return cls.from_run(paths[-1])
