"""The text domain: its samples are tokenized texts, and SimCSE's views are its default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from sslcollapse import AtLeast, Component, RecipeError, SampleDomain, Samples
from sslcollapse_text import TEXT_DATASETS
from sslcollapse_text.data import TextDataset, TextSource
from sslcollapse_text.tokens import FEWEST_TOKENS, encode, mask_token, read_tokenizer, train_tokenizer
from sslcollapse_text.views import PADDING, TextViews, trimmed

DEFAULT_VIEWS = TextViews()
MEASURED_TOKENS = 3072
"""Texts of larger vocabularies are not measured as counts of tokens."""


class TextDomain(SampleDomain):
    """Texts: views by dropout alone (SimCSE), word deletion and span masking.

    Args:
        data_root: folder in which the dataset's files are looked for.
        dataset: which texts.
        views: how the views are made.
        batch_size: texts a step over all ranks.
        tokenizer: ``"bytes"`` or ``"wordpiece"``, trained on the texts that are pre-trained on; or the path of a
            ``tokenizer.json``, absolute or relative to the data root, as a pretrained encoder has it.
        vocabulary: tokens of the tokenizer at most.
        length: tokens of a text at most; what comes after is cut off.

    A view is a tensor [B, T′] of token ids, −1 where a text has ended.
    """

    kind = "sequence"

    def __init__(
        self,
        data_root: Path,
        *,
        dataset: Annotated[dict[str, Any], Component("text_dataset")],
        views: TextViews = DEFAULT_VIEWS,
        batch_size: Annotated[int, AtLeast(2)] = 128,
        tokenizer: str = "bytes",
        vocabulary: Annotated[int, AtLeast(FEWEST_TOKENS)] = 2048,
        length: Annotated[int, AtLeast(2)] = 32,
    ) -> None:
        super().__init__(data_root, batch_size=batch_size)
        if tokenizer not in ("bytes", "wordpiece") and not tokenizer.endswith(".json"):
            raise RecipeError(
                f"domain.tokenizer: must be 'bytes', 'wordpiece' or the path of a tokenizer.json, got {tokenizer!r}"
            )
        self.source: TextSource = TEXT_DATASETS.build(dataset, data_root)
        self.text_views = views if isinstance(views, TextViews) else TextViews(**views)
        self.views = self.text_views.count
        self.tokenizer_name, self.vocabulary, self.length = tokenizer, vocabulary, length
        self.in_shape: tuple[int, ...] = (length, vocabulary)

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        """Number of classes."""
        return self.source.num_classes

    def describe(self) -> str:
        """One line on the data that will be read."""
        return f"{self.source.describe()}; {self.tokenizer_name} tokenizer, at most {self.length} tokens a text"

    def read(self) -> Samples:
        """The texts as tokens."""
        self.dataset: TextDataset = self.source.load()
        texts = self.dataset.texts
        if self.tokenizer_name.endswith(".json"):
            path = Path(self.data_root).expanduser() / Path(self.tokenizer_name).expanduser()
            self.tokenizer = read_tokenizer(path, self.vocabulary)
        else:
            seen = [texts[row] for row in self.dataset.pretrain.tolist()]
            self.tokenizer = train_tokenizer(seen, self.tokenizer_name, self.vocabulary)  # type: ignore[arg-type]
        self.mask = mask_token(self.tokenizer)
        if self.mask is None and self.text_views.span_masking:
            raise RecipeError("domain.views.span_masking: the tokenizer has no mask token; set it to 0")
        tokens = torch.stack(encode(self.tokenizer, texts, self.length), dim=1)  # [N, 2, T]
        return Samples(tokens, self.dataset.labels, self.dataset.splits, self.dataset.pretrain)

    def augment(self, batch: Tensor, rng: torch.Generator) -> Tensor:
        """[B, 2, T] ids and words → one view [B, T′]."""
        return self.text_views.view(batch[:, 0], batch[:, 1], self.mask or 0, rng)

    def plain(self, batch: Tensor) -> Tensor:
        """[B, 2, T] → ids [B, T′]."""
        return trimmed(batch[:, 0])

    def measurable(self, view: Tensor) -> Tensor | None:
        """How often each text has each token [B, V], or None of large vocabularies."""
        return token_counts(view, self.vocabulary) if self.vocabulary <= MEASURED_TOKENS else None

    def baselines(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """How often each text has each token."""
        return {"bag_of_words": lambda view: token_counts(view, self.vocabulary)}

    def show(self, view: Tensor) -> list[str]:
        """The texts of a view."""
        rows = [[token for token in row if token != PADDING] for row in view.tolist()]
        return self.tokenizer.decode_batch(rows, skip_special_tokens=False)


def token_counts(ids: Tensor, vocabulary: int) -> Tensor:
    """[B, T] → [B, V]: how often each text has each token."""
    present = (ids != PADDING).float()
    return torch.zeros(len(ids), vocabulary, device=ids.device).scatter_add_(1, ids.clamp(min=0), present)
