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
    if size < FEWEST_TOKENS:
        raise RecipeError(f"vocabulary: must be >= {FEWEST_TOKENS}, got {size}")
    if kind == "bytes":
        return _bytes(texts, size)
    if kind == "wordpiece":
        return _wordpiece(texts, size)
    raise RecipeError(f"tokenizer: must be 'bytes', 'wordpiece' or a .json file, got {kind!r}")


def _bytes(texts: Sequence[str], size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        show_progress=False,
        special_tokens=[UNKNOWN, MASK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _wordpiece(texts: Sequence[str], size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(lowercase=True)
    # The library numbers the letters inside words in the order of a hash table, which is another in each process, and
    # breaks ties between pairs by these numbers. As special tokens letters are numbered in the order of this list.
    letters = sorted({letter for text in texts for letter in normalizer.normalize_str(text) if not letter.isspace()})
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, show_progress=False, special_tokens=[UNKNOWN, MASK, *(f"##{letter}" for letter in letters)]
    )
    trained: Any = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    trained.normalizer, trained.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    trained.train_from_iterator(texts, trainer)
    # A new one, in which they are special no more.
    tokenizer: Any = Tokenizer(models.WordPiece(trained.get_vocab(), unk_token=UNKNOWN))
    tokenizer.add_special_tokens([UNKNOWN, MASK])
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, trained.pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
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
    for row, encoding in enumerate(tokenizer.encode_batch(list(texts))):
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
