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
    """Any text encoder of ``transformers``, from its configuration; initialised at random, or with published weights.

    With published weights the configuration is that of their ``config.json``, since an export holds the recipe's words
    and its own weights, and is loaded without the folder that training began with. The tokenizer must be theirs too:
    ``domain.tokenizer`` is their ``tokenizer.json``.

    Args:
        in_shape: (T, V): tokens of a text at most, and tokens of the vocabulary.
        model: type of the model in ``transformers``, such as ``"bert"``, ``"distilbert"`` or ``"modernbert"``.
        config: entries of its configuration, such as ``dict(hidden_size=64, num_hidden_layers=2)``; others have the
            defaults of ``transformers``, but for the vocabulary and the number of places, which are the domain's.
        pretrained_from: a folder with the weights of such a model, or its name on the hub; None initialises at random.
        pooling: ``"mean"`` over the tokens of a text, or ``"cls"``, its first token.

    Raises:
        ValueError: for a type or an entry that ``transformers`` refuses, weights of another configuration, or a model
            that reads fewer tokens than the vocabulary has.
        MissingDataError: the weights cannot be had.
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
        model: str,
        config: Mapping[str, Any] | None = None,
        pretrained_from: str | None = None,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        self.length, self.vocabulary = text_shape(in_shape, "huggingface_text")
        if pooling not in ("mean", "cls"):
            raise ValueError(f"pooling must be 'mean' or 'cls', got {pooling!r}")
        self.name, self.config, self.source, self.pooling = model, dict(config or {}), pretrained_from, pooling
        self.model = self._built()
        known = self.model.get_input_embeddings().num_embeddings
        if known < self.vocabulary:
            raise ValueError(
                f"config: the model knows {known:,} tokens, the domain's vocabulary has {self.vocabulary:,}; set "
                f"domain.vocabulary={known}, and domain.tokenizer to the tokenizer.json of published weights"
            )
        self.out_dim = int(self.model.config.hidden_size)

    def reset_parameters(self) -> None:
        """Initialise the model again, or with ``pretrained_from`` read its weights again."""
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
        # Some models count places from 1 or 2 on; 0 is what stands for padding in ``forward``.
        sizes = {"vocab_size": self.vocabulary, "max_position_embeddings": self.length + 2, "pad_token_id": 0}
        settings = {name: value for name, value in (sizes | self.config).items() if name != "model_type"}
        try:
            model = _without_pooler(AutoModel.from_config(AutoConfig.for_model(self.name, **settings)))
        except Exception as error:  # configurations check their entries in many ways, some by failing
            raise ValueError(f"transformers refuses a {self.name!r} with {self.config}: {error}") from error
        if self.source is None:
            return model
        try:
            published = _without_pooler(AutoModel.from_pretrained(self.source))
        except (OSError, ValueError) as error:
            raise MissingDataError(
                f"encoder.pretrained_from: {self.source} cannot be loaded ({error}); name a folder with config.json "
                "and model.safetensors, or check the network"
            ) from error
        try:
            model.load_state_dict(published.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"pretrained_from: the weights of {self.source} are of another configuration than this {self.name!r}; "
                f"give the entries of its config.json as config ({error})"
            ) from error
        return model


def _without_pooler(model: Any) -> Any:
    """The model without the layer behind BERT's [CLS] token, which would get no gradient here, where it can be none."""
    if "add_pooling_layer" in inspect.signature(type(model).__init__).parameters:
        model.pooler = None
    return model
