"""Tokenizers: trained on the training texts with the ``tokenizers`` library, or read from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from sslcollapse import DataError, MissingDataError, RecipeError
from sslcollapse_text.views import PADDING

UNKNOWN, MASK = "[UNK]", "[MASK]"
MASKS = (MASK, "<mask>")
"""The mask token of a tokenizer, whichever it has."""

Kind = Literal["bytes", "wordpiece"]
FEWEST_TOKENS = 300
"""Below that a byte tokenizer has no room for a single merge."""


class Tokens(NamedTuple):
    """Texts as tokens.

    Shapes:
        ids: [N, T], ``PADDING`` after the last token of a text.
        words: [N, T] number of the word of each token within its text; ``PADDING`` as in ids.
    """

    ids: Tensor
    words: Tensor


def train_tokenizer(texts: Sequence[str], kind: Kind, size: int) -> Any:
    """A tokenizer of at most ``size`` tokens from these texts; equal texts give an equal tokenizer.

    ``"bytes"`` merges pairs of bytes (Radford et al. 2019, GPT-2): it has no unknown characters. ``"wordpiece"`` has
    lower-case pieces of words (Devlin et al. 2019, BERT), and an unknown token for what was not in the texts.

    Raises:
        RecipeError: an unknown kind, or a size that is too small.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if size < FEWEST_TOKENS:
        raise RecipeError(f"vocabulary: must be >= {FEWEST_TOKENS}, got {size}")
    settings: dict[str, Any] = dict(vocab_size=size, show_progress=False, special_tokens=[UNKNOWN, MASK])
    tokenizer: Any
    trainer: Any
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **settings)
    elif kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**settings)
    else:
        raise RecipeError(f"tokenizer: must be 'bytes', 'wordpiece' or a .json file, got {kind!r}")
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def read_tokenizer(path: Path, size: int) -> Any:
    """A tokenizer from its ``tokenizer.json``.

    Raises:
        MissingDataError: the file is not there.
        DataError: it is no such file, or has more than ``size`` tokens.
    """
    from tokenizers import Tokenizer

    if not path.is_file():
        raise MissingDataError(f"tokenizer: the file {path} is not there; copy it there, or train one with 'bytes'")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{path}: cannot be read as a tokenizer ({error}); it must be a tokenizer.json") from error
    if tokenizer.get_vocab_size() > size:
        raise DataError(
            f"{path}: has {tokenizer.get_vocab_size():,} tokens, where domain.vocabulary is {size:,}; set it to as many"
        )
    return tokenizer


def mask_token(tokenizer: Any) -> int | None:
    """The id of the tokenizer's mask token; None where it has none."""
    return next((found for name in MASKS if (found := tokenizer.token_to_id(name)) is not None), None)


def encode(tokenizer: Any, texts: Sequence[str], length: int) -> Tokens:
    """Texts as their first ``length`` tokens.

    A special token that is no part of a word, such as BERT's [CLS], counts as a word of its own.

    Raises:
        DataError: a text has no tokens.
    """
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=length)
    ids = torch.full((len(texts), length), PADDING)
    words = torch.full((len(texts), length), PADDING)
    for row, encoding in enumerate(tokenizer.encode_batch_fast(list(texts))):
        if not encoding.ids:
            raise DataError(f"text {row} has no tokens: {texts[row][:80]!r}; leave it out")
        ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids)
        words[row, : len(encoding.ids)] = torch.tensor(_in_turn(encoding.word_ids))
    return Tokens(ids, words)


def _in_turn(words: Sequence[int | None]) -> list[int]:
    """Numbers of words from 0 in the order of the text; every None gets one of its own."""
    numbers: list[int] = []
    before: int | None = None
    for word in words:
        new = not numbers or word is None or word != before
        numbers.append((numbers[-1] if numbers else -1) + new)
        before = word
    return numbers
