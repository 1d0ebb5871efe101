"""What every text dataset loads: texts, labels, fixed splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sslcollapse import DataError, Split


@dataclass(frozen=True)
class TextDataset:
    """Labelled texts.

    Args:
        title: as shown to people.
        texts: N of them.
        labels: [N] int64 classes.
        classes: their names.
        splits: name → fixed splits of rows; ``"public"`` is always there.
        pretrain: rows that pre-training and the tokenizer may see: never those of a test part.
    """

    title: str
    texts: Sequence[str]
    labels: Tensor
    classes: Sequence[str]
    splits: Mapping[str, Sequence[Split]]
    pretrain: Tensor

    def sizes(self) -> str:
        """How many texts and classes there are, and how they are divided, in words."""
        split = self.splits["public"][0]
        return (
            f"{len(self.texts):,} texts of {len(self.classes)} classes: {len(split.train):,} for training, "
            f"{len(split.validation):,} for validation, {len(split.test):,} for testing"
        )


class TextSource(Protocol):
    """A component of the kind ``text_dataset``."""

    num_classes: int

    def files(self) -> list[Path]:
        """Files that it reads from the data root."""
        ...

    def describe(self) -> str:
        """One line on what will be read."""
        ...

    def load(self) -> TextDataset:
        """Read it."""
        ...


def text_dataset(
    title: str, texts: Sequence[str], labels: Sequence[int], classes: Sequence[str], split: Split
) -> TextDataset:
    """A dataset with one public split, whose training and validation rows may be pre-trained on.

    Raises:
        DataError: a part of the split is empty, or lacks a class.
    """
    known = np.asarray(labels, dtype=np.int64)
    for name in ("train", "validation", "test"):
        missing = sorted(set(range(len(classes))) - set(known[getattr(split, name)].tolist()))
        if missing:
            raise DataError(
                f"{title}: the {name} part has no text of the class {classes[missing[0]]!r}; a probe needs all "
                f"{len(classes)} classes in every part"
            )
    pretrain = np.sort(np.concatenate([split.train, split.validation]))
    return TextDataset(
        title, list(texts), torch.from_numpy(known), list(classes), {"public": (split,)}, torch.from_numpy(pretrain)
    )


def stable_number(text: str) -> int:
    """A number from 0 to 2^64 − 1 that depends on the text alone, on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def plain(value: Any) -> str:
    """A text on one line: every run of white space becomes one space."""
    return " ".join(str(value).split())
