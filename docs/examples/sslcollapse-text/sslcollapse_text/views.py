"""Views of tokenized texts: word deletion and span masking, as operations on whole batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d

from sslcollapse import Between, Probability, RecipeError

PADDING = -1
"""Stands after the last token of a text, in its ids and its words; no token of any tokenizer has this number."""


@dataclass(frozen=True, kw_only=True)
class TextViews:
    """How the views of a text are made.

    By default they are SimCSE's: all views are the same tokens, and the encoder's dropout, which is drawn anew for each
    view, is the only difference. Two changes make them stronger; both act on whole words, of which a tokenizer may have
    made several tokens.

    Args:
        word_deletion: probability that a word is deleted; one word always stays.
        span_masking: probability that a word is masked: its tokens become the mask token. Masked words come in spans.
        span: words in a span. Every place is the start of one with probability 1 − (1 − p)^(1/span), so that a word is
            in at least one of them with probability p; spans may overlap.
        strength: in [0, 1], multiplies both probabilities: 0 leaves texts as they are.
        count: views of each text.

    Raises:
        RecipeError: a probability or strength outside [0, 1], or a count or span below 1.

    Source: Gao, Yao and Chen 2021 (SimCSE), section 3, whose table 1 compares dropout with word deletion; Wei and Zou
    2019 (EDA) for random deletion; Wu et al. 2020 (CLEAR) for deletions as views of contrastive learning; Joshi et al.
    2020 (SpanBERT) for masked spans, whose lengths are random where ours are fixed.
    """

    word_deletion: Probability = 0.0
    span_masking: Probability = 0.0
    span: Annotated[int, Between(1, 64)] = 3
    strength: Probability = 1.0
    count: Annotated[int, Between(1, 100)] = 2

    def __post_init__(self) -> None:
        for name in ("word_deletion", "span_masking", "strength"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise RecipeError(f"{name}: must be in [0, 1], got {getattr(self, name)}")
        for name in ("span", "count"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name}: must be >= 1, got {getattr(self, name)}")

    def view(self, ids: Tensor, words: Tensor, mask: int, rng: torch.Generator) -> Tensor:
        """One view of texts [B, T] with the number of each token's word [B, T] → ids [B, T′], T′ ≤ T."""
        if self.span_masking * self.strength:
            ids = mask_spans(ids, words, self.span_masking * self.strength, self.span, mask, rng)
        if self.word_deletion * self.strength:
            ids = delete_words(ids, words, self.word_deletion * self.strength, rng)
        return trimmed(ids)


def delete_words(ids: Tensor, words: Tensor, p: float, rng: torch.Generator) -> Tensor:
    """Delete each word with probability p, but never all of a text; what is left moves together.

    Shapes:
        ids, words: [B, T], ``PADDING`` after the last token → [B, T].
    """
    draws = torch.rand(words.shape, generator=rng)  # one a word; a text has no more words than tokens
    draw = draws.gather(1, words.clamp(min=0)).masked_fill(words == PADDING, -1.0)  # [B, T], equal within a word
    kept = (draw >= p) | (draw == draw.amax(1, keepdim=True))
    gone = ~kept | (ids == PADDING)
    order = gone.byte().argsort(dim=1, stable=True)
    return ids.masked_fill(gone, PADDING).gather(1, order)


def mask_spans(ids: Tensor, words: Tensor, p: float, span: int, mask: int, rng: torch.Generator) -> Tensor:
    """Give the tokens of each word the id ``mask`` with probability p, in spans of ``span`` words.

    Shapes:
        ids, words: [B, T], ``PADDING`` after the last token → [B, T].
    """
    count, length = words.shape
    # Spans may start before the first word, so that it is masked as often as any other.
    starts = torch.rand(count, 1, length + span - 1, generator=rng) < 1.0 - (1.0 - p) ** (1.0 / span)
    masked = max_pool1d(starts.float(), span, stride=1)[:, 0] > 0  # [B, T], by word
    chosen = masked.gather(1, words.clamp(min=0)) & (words != PADDING)
    return ids.masked_fill(chosen, mask)


def trimmed(ids: Tensor) -> Tensor:
    """[B, T] → [B, T′] without the columns in which every text has ended."""
    used = int((ids != PADDING).any(0).sum())
    return ids[:, : max(1, used)].contiguous()
