"""Images in Parquet tables, as dataset hubs keep them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from sslcollapse.core.errors import DataError, MissingDataError, RecipeError, RunError
from sslcollapse.core.untrusted import check_regular, check_unpacked, most_unpacked
from sslcollapse.domains.download import missing_text, reason
from sslcollapse.domains.vision.data import (
    EMBEDDED_RECIPE,
    ImageDataset,
    check_apart,
    check_dataset,
    check_fraction,
    official_split,
    statistics_of,
)
from sslcollapse.domains.vision.decode import CHANNELS, EncodedImages, Mode, probe_size
from sslcollapse.recipe.schema import Above, Between, Share

FEW_ROWS = 2**16
"""A table may have this many rows, and more only with a byte for each."""

MOST_ROWS = 1024
"""Rows that are read at a time."""

FEW_CLASSES = 1000
"""A table without names of classes may have this many, and more only with an image for each."""


class ImageTable:
    """Encoded images and labels in two Parquet tables, one for training and one for testing.

    A table has a column of images (a struct with a field ``bytes``, or plain binary; JPEG, PNG or another of
    ``decode.FORMATS``) and one of integer labels from 0. Without ``size``, all images must have the size of the first
    training image, which must be square; with it, an image of another size is scaled until its shorter side is ``size``
    and its middle is cut out. Encoded images are held in memory and decoded when they are read.

    Rows and the split ``"public"`` are as with the other datasets: the test table for testing, a fixed random part
    of the training rows for validation. Pre-training sees all training images.

    Args:
        data_root: the data root.
        train: table of training images, absolute or relative to the data root.
        test: table of test images.
        size: height and width to which images are decoded; None is that of the first image.
        mode: "RGB", or "L" for grey; images of other modes are converted.
        mean: mean of each channel, of values in [0, 1]; None is ImageNet's, or 0.5 for grey.
        std: standard deviation of each channel; None as for ``mean``.
        image: name of the column of images.
        label: name of the column of labels.
        validation: share of the training images that is for validation.
        name: as shown to people; None is the name of the folder that ``train`` is in.
    """

    def __init__(
        self,
        data_root: Path,
        *,
        train: str,
        test: str,
        size: Annotated[int, Between(1, 65_535)] | None = None,
        mode: Mode = "RGB",
        mean: Sequence[float] | None = None,
        std: Sequence[Annotated[float, Above(0)]] | None = None,
        image: str = "image",
        label: str = "label",
        validation: Share = 0.1,
        name: str | None = None,
    ) -> None:
        if size is not None and size < 1:
            raise RecipeError(f"size must be >= 1, got {size}")
        self.data_root = Path(data_root).expanduser()
        self.paths = check_apart(*(self.data_root / Path(path).expanduser() for path in (train, test)))
        self.given_size, self.mode, self.channels = size, mode, CHANNELS[mode]
        self.mean, self.std = statistics_of(mode, mean, std)
        self.image, self.label = image, label
        self.validation = check_fraction(validation)
        self.title = name or self.paths[0].parent.name or self.paths[0].stem

    @cached_property
    def size(self) -> int:
        """Height and width: as given, else from the header of the first training image.

        Raises:
            MissingDataError, DataError: the table cannot be read, or its first image is not square.
        """
        if self.given_size is not None:
            return self.given_size
        path = self.paths[0]
        with _explained(path):
            first = next(self._open(path).iter_batches(batch_size=1, columns=[self.image]), None)
            if first is None or not first.num_rows:
                raise DataError(f"{path}: the table has no rows")
            data = _binary(first.column(0), path, self.image)[0].as_py()
        width, height = probe_size(_present(data, path, 0), f"{path}, row 0")
        if width != height:
            raise DataError(
                f"{path}, row 0: the image is {width}x{height}, not square; give the dataset a size to resize images to"
            )
        return width

    @cached_property
    def num_classes(self) -> int:
        """Number of classes: of the names in the table's metadata, else one more than the largest training label.

        Raises:
            MissingDataError, DataError: the table cannot be read.
        """
        path = self.paths[0]
        with _explained(path):
            table = self._open(path)
            names = _class_names(table.schema_arrow.metadata or {}, self.label)
            if names is not None:
                return len(names)
            labels = _labels(table.read(columns=[self.label]).column(0), path, self.label)
        largest, most = int(labels.max(initial=-1)), max(FEW_CLASSES, len(labels))
        if largest >= most:
            raise DataError(
                f"{path}, row {int(labels.argmax())}: label {largest} would make {largest + 1:,} classes of "
                f"{len(labels):,} images; number the classes from 0"
            )
        return largest + 1

    def files(self) -> list[Path]:
        """The two tables."""
        return list(self.paths)

    def describe(self) -> str:
        """One line for a dry run."""
        missing = [str(path) for path in self.paths if not path.is_file()]
        if missing:
            return f"{self.title}: image tables {' and '.join(map(str, self.paths))} (not there: {', '.join(missing)})"
        counts = []
        for path in self.paths:
            with _explained(path):
                counts.append(self._open(path).metadata.num_rows)
        shape = f"{self.channels}x{self.size}x{self.size}"
        return (
            f"{self.title}: {counts[0]:,} training, {counts[1]:,} test images {shape}, {self.num_classes} classes; in "
            f"{' and '.join(map(str, self.paths))}"
        )

    def load(self) -> ImageDataset:
        """Read the tables; images are decoded when they are read.

        Raises:
            MissingDataError: a table is not there.
            DataError: a table is truncated or corrupt, a column is missing or of another type, a label is null.
            RunError: pyarrow is not installed.
        """
        columns, labels = [], []
        for path in self.paths:
            with _explained(path):
                table = _read_bounded(self._open(path), path, [self.image, self.label])
                columns.append(_binary(table.column(self.image), path, self.image))
                labels.append(_labels(table.column(self.label), path, self.label))
        train, test = map(len, labels)
        if not train:
            raise DataError(f"{self.paths[0]}: the table has no rows")
        for path, part in zip(self.paths, labels, strict=True):
            _check_range(part, self.num_classes, path)
        dataset = ImageDataset(
            self.title,
            TableImages(self.paths, columns, self.size, self.mode, resize=self.given_size is not None),
            torch.from_numpy(np.concatenate(labels)),
            self.num_classes,
            {"public": (official_split(train, test, self.validation),)},
            torch.arange(train),
        )
        return check_dataset(dataset)

    def _open(self, path: Path) -> Any:
        """The Parquet file, whose columns have been checked."""
        if path.is_dir():
            raise DataError(f"{path}: a folder; name one Parquet file")
        if not path.exists():
            raise MissingDataError(
                f"{self.title}: the table {path} is not there. {missing_text([path], self.data_root, EMBEDDED_RECIPE)}"
            )
        size = check_regular(path)
        table = _pyarrow().parquet.ParquetFile(path)
        if table.metadata.num_rows > size + FEW_ROWS:
            raise DataError(f"{path}: {table.metadata.num_rows:,} rows in {size:,} bytes, too few to hold images")
        known = table.schema_arrow.names
        for column in (self.image, self.label):
            if column not in known:
                raise DataError(
                    f"{path}: no column {column!r} (columns: {', '.join(known)}); the dataset's arguments image and "
                    "label name the two"
                )
        return table


def _read_bounded(table: Any, path: Path, columns: list[str]) -> Any:
    """Columns of a Parquet file, read in pieces, so that a value that many rows share cannot fill the memory."""
    groups = []
    for k in range(table.num_row_groups):
        group = table.metadata.row_group(k)
        chunks = [group.column(c) for c in range(group.num_columns)]
        groups.append(sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] in columns))
    check_unpacked(path, sum(groups))
    most, batches, total = most_unpacked(check_regular(path)), [], 0
    for k, unpacked in enumerate(groups):
        rows = min(MOST_ROWS, max(1, most // max(1, unpacked)))  # no value is larger than its group
        for batch in table.iter_batches(batch_size=rows, row_groups=[k], columns=columns):
            total += batch.nbytes
            check_unpacked(path, total)
            batches.append(batch)
    return _pyarrow().Table.from_batches(batches) if batches else table.read(columns=columns)


class TableImages(EncodedImages):
    """Images in the binary columns of tables, one table after the other.

    Args:
        paths: of the tables, for messages.
        columns: of each table, an arrow ``ChunkedArray`` of binary.
        size: see ``EncodedImages``.
        mode: see ``EncodedImages``.
        resize: see ``EncodedImages``.
    """

    def __init__(self, paths: Sequence[Path], columns: Sequence[Any], size: int, mode: Mode, resize: bool) -> None:
        super().__init__(sum(map(len, columns)), size, mode, resize)
        self.paths, self.columns = paths, columns

    def encoded(self, row: int) -> bytes:
        """The bytes of a row."""
        table, position = self._find(row)
        return _present(self.columns[table][position].as_py(), self.paths[table], position)

    def place(self, row: int) -> str:
        """Table and row."""
        table, position = self._find(row)
        return f"{self.paths[table]}, row {position}"

    def _find(self, row: int) -> tuple[int, int]:
        for table, column in enumerate(self.columns):
            if row < len(column):
                return table, row
            row -= len(column)
        raise IndexError(row)


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise RunError(
            f'the dataset "image_table" needs the package pyarrow, which cannot be imported ({error}); install it '
            'with: pip install "sslcollapse[images]"'
        ) from error
    return pyarrow


class _explained:  # noqa: N801  (a context manager, used as a function)
    """What pyarrow raises about a file becomes a DataError that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, (DataError, MissingDataError, RunError)):
            return
        if isinstance(error, (OSError, ValueError, _pyarrow().ArrowException)):
            raise DataError(
                f"{self.path}: cannot be read as Parquet ({reason(error)}); the file is truncated or corrupt: copy "
                "it there again"
            ) from error


def _binary(column: Any, path: Path, name: str) -> Any:
    """A column of encoded images as binary: its own values, or the field ``bytes`` of its structs."""
    pa = _pyarrow()
    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        column = pa.compute.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(
            f"{path}: column {name!r} has type {kind}; images are structs with a field 'bytes', or plain binary"
        )
    return column


def _labels(column: Any, path: Path, name: str) -> np.ndarray:
    """A column of labels [N], int64."""
    if not _pyarrow().types.is_integer(column.type):
        raise DataError(f"{path}: column {name!r} has type {column.type}; labels are integers from 0")
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(f"{path}, row {row}: no label in column {name!r}")
    return np.asarray(column.to_numpy()).astype(np.int64)


def _check_range(labels: np.ndarray, num_classes: int, path: Path) -> None:
    """Refuse a label that is no class, by its row in its own table."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise DataError(
            f"{path}, row {wrong[0]}: label {labels[wrong[0]]} is not one of the {num_classes} classes of training, "
            f"0 to {num_classes - 1}; leave out images without a class"
        )


def _present(data: bytes | None, path: Path, row: int) -> bytes:
    if not data:
        raise DataError(f"{path}, row {row}: no image bytes; the table must contain the images, not paths to them")
    return data


def _class_names(metadata: dict[bytes, bytes], label: str) -> list[str] | None:
    """Names of the classes in the metadata that dataset hubs write, if there are any."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return names if isinstance(names, list) else None
