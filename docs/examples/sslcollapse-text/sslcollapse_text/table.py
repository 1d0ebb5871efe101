"""Texts in tables: CSV or Parquet, as data sets such as AG News are kept."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from sslcollapse import Between, DataError, MissingDataError, RecipeError, RunError, Split
from sslcollapse_text.data import TextDataset, plain, text_dataset

MOST_CLASSES = 1000


class TextTable:
    """Texts and labels in two tables, one for training and one for testing: CSV with a header line, or Parquet.

    Labels are words or whole numbers; the classes are the different labels of the training table, sorted. Rows are
    those of the training table and then those of the test table, all in memory. The split ``"public"`` takes a random
    part of the training rows for validation, always the same, and the whole test table for testing. Pre-training and
    the tokenizer see the training table only.

    Args:
        data_root: the data root.
        train: table of training texts (``.csv`` or ``.parquet``), absolute or relative to the data root.
        test: table of test texts.
        text: column of texts, or several that are put together in this order (AG News has a title and a description).
        label: column of labels.
        validation: share of the training texts that is for validation.
        name: as shown to people; None is the name of the folder that ``train`` is in.

    Raises:
        RecipeError: an ending that is not known, no column, one file for both, or a share outside (0, 1).
    """

    def __init__(
        self,
        data_root: Path,
        *,
        train: str,
        test: str,
        text: str | Sequence[str] = "text",
        label: str = "label",
        validation: Annotated[float, Between(0, 1, open="both")] = 0.1,
        name: str | None = None,
    ) -> None:
        self.columns = [text] if isinstance(text, str) else list(text)
        if not self.columns:
            raise RecipeError("text: needs at least one column, got []")
        if not 0.0 < validation < 1.0:
            raise RecipeError(f"validation: must be in (0, 1), got {validation}")
        root = Path(data_root).expanduser()
        self.paths = [root / Path(path).expanduser() for path in (train, test)]
        for path in self.paths:
            if path.suffix.lower() not in _READERS:
                raise RecipeError(f"{path}: a table of texts ends with {' or '.join(_READERS)}")
        if self.paths[0].resolve() == self.paths[1].resolve():
            raise RecipeError(f"test: {test!r} is the training table too; test texts must not be trained on")
        self.label, self.validation = label, validation
        self.title = name or self.paths[0].parent.name or self.paths[0].stem

    @property
    def num_classes(self) -> int:
        """Number of different labels of the training table.

        Raises:
            MissingDataError, DataError: see ``load``.
        """
        return len(self._dataset.classes)

    def files(self) -> list[Path]:
        """The two tables."""
        return list(self.paths)

    def describe(self) -> str:
        """One line for a dry run."""
        missing = [str(path) for path in self.paths if not path.is_file()]
        if missing:
            return f"{self.title}: tables of texts (not there: {', '.join(missing)})"
        return f"{self.title}: {self._dataset.sizes()}; in {' and '.join(map(str, self.paths))}"

    def load(self) -> TextDataset:
        """Read both tables.

        Raises:
            MissingDataError: a table is not there.
            DataError: it cannot be read, a column is missing, a text is empty, or a test label is no training label.
            RunError: it is Parquet and pyarrow is not installed.
        """
        return self._dataset

    @cached_property
    def _dataset(self) -> TextDataset:
        texts: list[str] = []
        labels: list[str] = []
        counts = []
        for path in self.paths:
            before = len(texts)
            for row, (words, label) in enumerate(_rows(path, self.columns, self.label)):
                if not words or not label:
                    what = "text" if not words else "label"
                    raise DataError(f"{path}, row {row}: no {what}; leave such rows out of the table")
                texts.append(words)
                labels.append(label)
            counts.append(len(texts) - before)
        classes = sorted(set(labels[: counts[0]]), key=_in_order)
        if not 2 <= len(classes) <= MOST_CLASSES:
            raise DataError(
                f"{self.paths[0]}: column {self.label!r} has {len(classes)} different labels, where 2 to "
                f"{MOST_CLASSES:,} classes can be told apart; the dataset's argument label names the column"
            )
        number = {label: k for k, label in enumerate(classes)}
        for row, label in enumerate(labels[counts[0] :]):
            if label not in number:
                raise DataError(f"{self.paths[1]}, row {row}: label {label!r} is not one of the training table")
        train, test = counts
        order = np.random.default_rng([0, train]).permutation(train)
        cut = max(1, round(self.validation * train))
        split = Split(np.sort(order[cut:]), np.sort(order[:cut]), np.arange(train, train + test))
        return text_dataset(self.title, texts, [number[label] for label in labels], classes, split)


def _in_order(label: str) -> tuple[int, int, str]:
    """Numbers as numbers, before words."""
    number = label.removeprefix("-")
    return (0, int(label), "") if number.isascii() and number.isdigit() else (1, 0, label)


def _rows(path: Path, columns: Sequence[str], label: str) -> Iterator[tuple[str, str]]:
    """(Text, label) of every row, on one line each."""
    if not path.is_file():
        what = "is no regular file" if path.exists() else "is not there"
        raise MissingDataError(f"the table of texts {path} {what}; copy it there, or name another in domain.dataset")
    try:
        for values in _READERS[path.suffix.lower()](path, [*columns, label]):
            yield (
                plain(" ".join("" if v is None else str(v) for v in values[:-1])),
                plain("" if values[-1] is None else values[-1]),
            )
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read ({error}); copy it there again") from error


def _from_csv(path: Path, columns: Sequence[str]) -> Iterator[Sequence[Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        _check_columns(path, list(reader.fieldnames or []), columns)
        for row in reader:
            yield [row[column] for column in columns]


def _from_parquet(path: Path, columns: Sequence[str]) -> Iterator[Sequence[Any]]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise RunError(
            f"{path}: Parquet needs the package pyarrow, which cannot be imported ({error}); install it with: "
            'pip install "sslcollapse[images]", or convert the table to CSV'
        ) from error
    table = pyarrow.parquet.ParquetFile(path)
    _check_columns(path, table.schema_arrow.names, columns)
    for batch in table.iter_batches(batch_size=4096, columns=list(dict.fromkeys(columns))):
        yield from zip(*(batch.column(column).to_pylist() for column in columns), strict=True)


def _check_columns(path: Path, known: Sequence[str], wanted: Sequence[str]) -> None:
    for column in wanted:
        if column not in known:
            raise DataError(
                f"{path}: no column {column!r} (columns: {', '.join(known) or 'none'}); the dataset's arguments text "
                "and label name them"
            )


_READERS = {".csv": _from_csv, ".parquet": _from_parquet}
