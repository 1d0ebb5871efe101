"""Files that somebody else made, read without believing what their headers claim and without running their code.

``docs/security.md`` says which files are read how.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import pickle
import pickletools
import re
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sslcollapse.core.errors import DataError
from sslcollapse.core.texts import printable

UNPACKED_BYTES = 64 * 2**20
UNPACKED_TIMES = 50
"""A packed file may unpack to the first, and beyond it to this many times its own size; published data sets need 10."""

_CODE = re.compile(r"\?|b1|[iu][1248]|f[248]")
_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def check_regular(path: Path) -> int:
    """Size in bytes of a file that is one: reading a pipe or a device might never end.

    Raises:
        DataError: it is something else.
        OSError: it is not there.
    """
    found = os.stat(path)
    if stat.S_ISREG(found.st_mode):
        return found.st_size
    kind = next((name for is_kind, name in _KINDS.items() if is_kind(found.st_mode)), "something else")
    raise DataError(f"{path}: {kind}, not a regular file; remove it, or put the file in its place")


def read_regular(path: Path) -> bytes:
    """The bytes of a file; raises as ``check_regular``."""
    check_regular(path)
    return Path(path).read_bytes()


def most_unpacked(size: int) -> int:
    """Bytes that a packed file of this size may hold."""
    return max(UNPACKED_BYTES, UNPACKED_TIMES * size)


def check_zip(path: Path) -> None:
    """Refuse a zip archive whose content is far larger than the file.

    Raises:
        DataError: it is.
        BadZipFile: no zip archive.
    """
    with zipfile.ZipFile(path) as archive:
        check_unpacked(path, sum(info.file_size for info in archive.infolist()))


def check_gzip(path: Path) -> None:
    """Refuse a gzip file whose content is far larger than the file; reads it once, a piece at a time.

    Raises:
        DataError: it is.
        OSError, EOFError: a damaged file.
    """
    most, total = most_unpacked(check_regular(path)), 0
    with gzip.open(path) as stream:
        while piece := stream.read(1 << 20):
            total += len(piece)
            if total > most:
                check_unpacked(path, total)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file, or of an ``.npy`` file under the name ``""``; nothing is unpickled.

    Raises:
        DataError: an array is of Python objects, or the file unpacks to far more than its size.
        BadZipFile, OSError, ValueError: a damaged file, or an array that claims another size than the file holds of it.
    """
    check_arrays(path)
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return {"": content}
    with content as arrays:
        return {name: arrays[name] for name in arrays.files}


def check_arrays(path: Path) -> None:
    """Compare what the headers of an ``.npz`` or ``.npy`` file claim with its size; raises as ``read_arrays``."""
    size = check_regular(path)
    with open(path, "rb") as file:
        if Path(path).suffix != ".npz" and file.read(2) != b"PK":
            file.seek(0)
            _check_header(file, size, str(path))
            return
    check_zip(path)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                with archive.open(info) as member:
                    _check_header(member, info.file_size, f"{path}, array {info.filename.removesuffix('.npy')!r}")


def _check_header(file: Any, size: int, place: str) -> None:
    """Compare what the header of an npy file claims with the bytes that follow it."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise DataError(f"{place}: an array in format {version}, which is not read; save it again with numpy.save")
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise DataError(f"{place}: an array of Python objects, which are not unpickled; save numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(
            f"{place}: claims shape {shape} of {dtype}, {math.prod(shape) * dtype.itemsize:,} bytes, and has "
            f"{size - file.tell():,}"
        )


def check_unpacked(path: Path, unpacked: int) -> None:
    """Refuse a file that holds, or says that it holds, far more than its size; raises DataError."""
    size = check_regular(path)
    if unpacked > most_unpacked(size):
        raise DataError(
            f"{path}: {size:,} bytes that unpack to {unpacked:,} or more, which no ordinary file does; it is refused"
        )


def unpickle(path: Path) -> Any:
    """What a pickle holds, if that is plain values, NumPy arrays and scipy.sparse CSR matrices; nothing of it is run.

    Text of Python 2 is read as latin-1, as the published data sets need. Whatever a pickle may name is replaced by
    something of this module that only keeps what it is given, so an array or matrix cannot be larger than its file.
    A ``defaultdict`` or ``OrderedDict`` becomes a dict; ``as_matrix`` makes a matrix of one.

    Raises:
        DataError: it asks for anything else; names the file and what it asked for.
        Exception: of a damaged file, as many kinds as there are bytes.
    """
    data = read_regular(path)
    for operation, argument, _ in pickletools.genops(data):  # also compares claimed lengths with the file's
        if "PUT" in operation.name and isinstance(argument, int) and argument > len(data):
            raise DataError(f"{path}: refused: its pickle numbers an object {argument:,}, with {len(data):,} bytes")
    try:
        return _finished(_Unpickler(io.BytesIO(data), encoding="latin1").load())
    except _RefusedError as error:
        raise DataError(
            f"{path}: refused: its pickle {error}; only NumPy arrays of numbers, scipy.sparse CSR matrices and plain "
            "values are read from pickles, and nothing was run. Get the file from where the dataset is published"
        ) from None


def as_matrix(value: Any, place: str) -> Any:
    """A matrix of what ``unpickle`` gave as one: ``scipy.sparse.csr_matrix`` or a two-dimensional array.

    Raises:
        DataError: it is none, or its parts do not fit.
    """
    import scipy.sparse as sp

    if isinstance(value, np.ndarray) and value.ndim == 2:
        return value
    if not isinstance(value, _Sparse):
        raise DataError(f"{place}: holds a {type(value).__name__.strip('_')} where a matrix should be")
    try:
        rows, columns = value.state["_shape"]
        parts = tuple(_finished(value.state[part]) for part in ("data", "indices", "indptr"))
        if len(parts[2]) != rows + 1:
            raise ValueError(f"{len(parts[2])} row pointers for {rows} rows")
        matrix = sp.csr_matrix(parts, (rows, columns))
        matrix.check_format(full_check=True)  # indices beyond the shape would be read from foreign memory
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{place}: no sparse matrix ({error})") from error
    return matrix


class _RefusedError(Exception):
    """Says what a pickle does that is refused."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What stands in for the class or function; refuses any that is not in the list."""
        if re.fullmatch(r"scipy\.sparse(\.\w+)?", module) and name in ("csr_matrix", "csr_array"):
            return _Sparse
        module = _OLD_NAMES.get(module, module.replace("numpy._core.", "numpy.core."))
        found = _STAND_INS.get((module, name))
        if found is None:
            raise _RefusedError(f"asks for {printable(f'{module}.{name}')}")
        return found

    def persistent_load(self, pid: Any) -> Any:
        """Refuse what lies outside the file."""
        raise _RefusedError("refers to something outside the file")


class _StandIn:
    """What a pickle gets for a name: no more than ``make``, if that is given, can be called."""

    def __init__(self, name: str, make: Callable[..., Any] | None = None) -> None:
        self.name, self.make = name, make

    def __call__(self, *arguments: Any) -> Any:
        if self.make is None:
            raise _RefusedError(f"calls {self.name}")
        return self.make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError(f"changes {self.name}")


class _Type:
    """A ``numpy.dtype`` of numbers."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise _RefusedError(f"has an array of type {printable(repr(code))}")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="


class _Array:
    """A ``numpy.ndarray``, whose bytes are in the file."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        self.value = _array(raw, kind, shape, "F" if fortran else "C")


class _Sparse:
    """A matrix of scipy.sparse by its attributes."""

    state: Mapping[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state)


def _array(raw: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(kind, _Type) or not isinstance(raw, (str, bytes, bytearray)):
        raise _RefusedError(f"has an array of a {type(raw).__name__}")
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    flat = np.frombuffer(data, np.dtype(kind.code).newbyteorder(kind.order))  # type: ignore[arg-type]
    return flat.reshape(shape, order="F" if order == "F" else "C").copy(order="K")  # NumPy compares the two sizes


def _scalar(kind: Any, raw: Any) -> Any:
    return _array(raw, kind, (), "C").item()


def _mapping(*factory: Any) -> dict[Any, Any]:
    if not all(isinstance(part, _StandIn) for part in factory):
        raise _RefusedError("fills a dict while it makes it")
    return {}


def _reconstructor(cls: Any, *_: Any) -> _Sparse:
    if cls is not _Sparse:
        raise _RefusedError("makes an object of a class of its own")
    return _Sparse()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")  # how Python 3 writes bytes for Python 2


def _finished(value: Any) -> Any:
    """An unpickled value with arrays in place of their stand-ins, in itself or in a dict."""
    if isinstance(value, dict):
        return {key: item.value if isinstance(item, _Array) else item for key, item in value.items()}
    return value.value if isinstance(value, _Array) else value


_STAND_INS: dict[tuple[str, str], _StandIn] = {
    ("numpy", "ndarray"): _StandIn("numpy.ndarray"),
    ("numpy", "dtype"): _StandIn("numpy.dtype", _Type),
    ("numpy.core.multiarray", "_reconstruct"): _StandIn("numpy.ndarray", lambda *_: _Array()),
    ("numpy.core.multiarray", "scalar"): _StandIn("a NumPy scalar", _scalar),
    ("numpy.core.numeric", "_frombuffer"): _StandIn("numpy.ndarray", _array),
    ("collections", "defaultdict"): _StandIn("defaultdict", _mapping),
    ("collections", "OrderedDict"): _StandIn("OrderedDict", _mapping),
    ("copyreg", "_reconstructor"): _StandIn("object", _reconstructor),
    ("_codecs", "encode"): _StandIn("bytes", _encode),
    ("builtins", "list"): _StandIn("list"),
    ("builtins", "int"): _StandIn("int"),
    ("builtins", "object"): _StandIn("object"),
}
_OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
