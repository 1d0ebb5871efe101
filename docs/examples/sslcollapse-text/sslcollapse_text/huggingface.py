"""Adapter that runs any encoder of Hugging Face's ``transformers``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from sslcollapse import MissingDataError, RunError
from sslcollapse_text.transformer import Pooling, text_shape
from sslcollapse_text.views import PADDING


class HuggingFace(nn.Module):
    """Any text encoder of ``transformers``: a new one from a configuration, or a pretrained one.

    A new one has the domain's vocabulary. A pretrained one needs the tokenizer that it was trained with:
    ``domain.tokenizer`` is then its ``tokenizer.json``.

    Args:
        in_shape: (T, V): tokens of a text at most, and tokens of the vocabulary.
        model: type of a new model in ``transformers``, such as ``"bert"``, ``"distilbert"`` or ``"modernbert"``.
        config: other entries of its configuration, such as ``dict(hidden_size=64, num_hidden_layers=2)``.
        pretrained: a folder with a model, or its name on the hub; ``model`` and ``config`` are then left out.
        pooling: ``"mean"`` over the tokens of a text, or ``"cls"``, its first token.

    Raises:
        ValueError: for both or neither of ``model`` and ``pretrained``, a type or entry that ``transformers`` refuses,
            or a model that reads fewer tokens than the vocabulary has.
        MissingDataError: the pretrained model cannot be had.
        RunError: ``transformers`` is not installed.

    Shapes:
        [N, T′] ids, −1 where a text has ended → [N, out_dim].
    """

    model: Any
    reads: ClassVar = ("sequence",)

    def __init__(
        self,
        in_shape: Sequence[int],
        *,
        model: str | None = None,
        config: Mapping[str, Any] | None = None,
        pretrained: str | None = None,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        self.length, self.vocabulary = text_shape(in_shape, "huggingface_text")
        if (model is None) == (pretrained is None):
            raise ValueError(f"needs either model or pretrained, got model={model!r}, pretrained={pretrained!r}")
        if pretrained is not None and config:
            raise ValueError(f"config: a pretrained model has its own; leave out {dict(config)}")
        if pooling not in ("mean", "cls"):
            raise ValueError(f"pooling must be 'mean' or 'cls', got {pooling!r}")
        self.name, self.config, self.pretrained, self.pooling = model, dict(config or {}), pretrained, pooling
        self.model = self._built()
        known = self.model.get_input_embeddings().num_embeddings
        if known < self.vocabulary:
            raise ValueError(
                f"the model knows {known:,} tokens, the domain's vocabulary has {self.vocabulary:,}; a pretrained "
                "model needs its own tokenizer: domain.tokenizer='<folder>/tokenizer.json' and its domain.vocabulary"
            )
        self.out_dim = int(self.model.config.hidden_size)

    def reset_parameters(self) -> None:
        """Initialise the model again, or with ``pretrained`` load its weights again."""
        self.model.load_state_dict(self._built().state_dict())

    def forward(self, ids: Tensor) -> Tensor:
        """[N, T′] → [N, out_dim]."""
        present = ids != PADDING
        hidden = self.model(input_ids=ids.clamp(min=0), attention_mask=present.long()).last_hidden_state  # [N, T′, d]
        if self.pooling == "cls":
            return hidden[:, 0]
        weights = present.unsqueeze(2).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)

    def _built(self) -> Any:
        try:
            from transformers import AutoConfig, AutoModel
        except ImportError as error:
            raise RunError(
                f"the encoder huggingface_text needs the package transformers, which cannot be imported ({error}); "
                'install it with: pip install "sslcollapse-text[huggingface]"'
            ) from error
        if self.pretrained is not None:
            try:
                return _without_pooler(AutoModel.from_pretrained(self.pretrained))
            except (OSError, ValueError) as error:
                raise MissingDataError(
                    f"encoder huggingface_text: {self.pretrained} cannot be loaded ({error}); name a folder with "
                    "config.json and model.safetensors, or check the network"
                ) from error
        # Some models count places from 1 or 2 on; 0 is what stands for padding in ``forward``.
        sizes = {"vocab_size": self.vocabulary, "max_position_embeddings": self.length + 2, "pad_token_id": 0}
        settings = sizes | self.config
        try:
            configuration = AutoConfig.for_model(str(self.name), **settings)
            return _without_pooler(AutoModel.from_config(configuration))
        except Exception as error:  # configurations check their entries in many ways, some by failing
            raise ValueError(f"transformers refuses a {self.name!r} with {self.config}: {error}") from error


def _without_pooler(model: Any) -> Any:
    """The model without the layer behind BERT's [CLS] token, which would get no gradient here, where it can be none."""
    if "add_pooling_layer" in inspect.signature(type(model).__init__).parameters:
        model.pooler = None
    return model
