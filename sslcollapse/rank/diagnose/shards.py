"""Tensors of safetensors files and of folders of shards, read one at a time: a checkpoint may be larger than memory."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.errors import suggest
from sslcollapse.core.texts import printable
from sslcollapse.core.untrusted import check_regular, check_zip, read_regular
from sslcollapse.rank.diagnose.state_dict import TargetError, check_stored, damaged, natural, plain_names, read_tensors

SINGLE = ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "adapter_model.bin")
"""What a folder's weights are called where they are one file, the first of these that is there."""

INDEX = ".index.json"

_LONGEST = 255
"""Bytes of a file's name."""

_TYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "BOOL": torch.bool},
}


@dataclass(frozen=True)
class StoredTensors:
    """Tensors by name, in the order of a network as far as it is known.

    Attributes:
        shapes: name → tensor on the meta device: shape and type, no values.
        read: name → its values; nothing is kept.
        is_file: whether values are read from files; else ``shapes`` has them.
    """

    shapes: Mapping[str, Tensor]
    read: Callable[[str], Tensor]
    is_file: bool = False

    def below(self, entry: str, title: str) -> StoredTensors:
        """Those whose names begin with an entry, without it.

        Raises:
            TargetError: there is none; says what names begin with.
        """
        start = f"{entry}."
        found = {name.removeprefix(start): tensor for name, tensor in self.shapes.items() if name.startswith(start)}
        if not found:
            known = list(dict.fromkeys(name.partition(".")[0] for name in self.shapes))
            raise TargetError(
                f"{title}: no name begins with {start!r}{suggest(entry, known)} (they begin with: "
                f"{printable(', '.join(known[:8]))})"
            )
        return StoredTensors(found, lambda name: self.read(start + name), self.is_file)


def read_safetensors(path: Path) -> StoredTensors:
    """The tensors of one file.

    Raises:
        TargetError: a damaged file.
        DataError: no regular file.
    """
    shapes = _shapes(path)
    return _stored(dict.fromkeys(shapes, path), {path: shapes})


def is_folder_of_weights(path: Path) -> bool:
    """Whether a folder has weights as Hugging Face saves them, in one file or in shards with an index."""
    return any((path / name).exists() for name in SINGLE) or _index(path) is not None or bool(_loose(path))


def read_folder(path: Path) -> StoredTensors:
    """The tensors of a folder: one file, shards with their index, or shards that have lost it.

    Raises:
        TargetError: an index that is damaged or leads out of the folder, a shard or a tensor that is missing.
        DataError: a shard that is no regular file.
    """
    index = _index(path)
    if index is not None:
        return _indexed(path, index)
    single = [path / name for name in SINGLE if (path / name).exists()][:1]
    files = single or _whole(path, _loose(path))
    shapes = {file: _shapes(file) for file in files}
    return _stored({name: file for file in files for name in shapes[file]}, shapes)


def _index(path: Path) -> Path | None:
    found = sorted(path.glob(f"*{INDEX}"), key=lambda file: (".safetensors" not in file.name, file.name))
    return found[0] if found else None


def _loose(path: Path) -> list[Path]:
    return [file for file in sorted(path.glob("*.safetensors")) if re.search(r"-\d+-of-\d+$", file.stem)]


def _whole(path: Path, files: list[Path]) -> list[Path]:
    """The same files, once their names say that none is missing."""
    there: dict[str, set[int]] = {}
    for file in files:
        number, count = re.findall(r"\d+", file.stem)[-2:]
        there.setdefault(count, set()).add(int(number))
    for count, numbers in there.items():
        if len(numbers) < int(count):
            raise TargetError(
                f"{path}: {len(numbers)} of {int(count)} shards are there, by their names (-of-{count}), and no "
                "index; download the others, since what they hold would be judged by its absence"
            )
    return files


def _indexed(path: Path, index: Path) -> StoredTensors:
    try:
        places = json.loads(read_regular(index))["weight_map"]
        if not (places and all(isinstance(key, str) and isinstance(file, str) for key, file in places.items())):
            raise ValueError("its weight_map is not a map from names to files")
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise TargetError(f"{index}: no index of shards ({type(error).__name__}: {error}); download it again") from None
    files = sorted(set(places.values()))
    for file in files:
        if Path(file).name != file or file in ("", ".", "..") or len(file.encode()) > _LONGEST:
            named = printable(file[:_LONGEST])
            raise TargetError(f"{index}: refused: names {named!r}, which does not lie in the folder itself")
    if missing := [file for file in files if not (path / file).exists()]:
        raise TargetError(
            f"{path}: {len(missing)} of {len(files)} shards are missing: {printable(', '.join(missing[:5]))}; "
            "download them, since what they hold would be judged by its absence"
        )
    shapes = {path / file: _shapes(path / file) for file in files}
    for name, file in places.items():
        if name not in shapes[path / file]:
            raise TargetError(f"{index}: says that {printable(name)} is in {file}, and it is not; download both again")
    return _stored({name: path / file for name, file in places.items()}, shapes)


def _stored(places: Mapping[str, Path], shapes: Mapping[Path, Mapping[str, Tensor]]) -> StoredTensors:
    stored = {name: shapes[places[name]][name] for name in sorted(places, key=natural)}
    own = {plain: name for name, plain in plain_names(stored).items()}

    def read(name: str) -> Tensor:
        return _read(places[own[name]], own[name])

    return StoredTensors({plain: stored[name] for plain, name in own.items()}, read, is_file=True)


def _shapes(path: Path) -> dict[str, Tensor]:
    """Name → tensor on the meta device."""
    check_regular(path)
    if path.suffix == ".safetensors":
        return _safe(path, _safe_shapes)
    if not zipfile.is_zipfile(path):  # a format that can only be read as a whole
        return {name: _on_meta(tensor) for name, tensor in read_tensors(path)[0].items()}
    check_zip(path)
    return {name: _on_meta(tensor) for name, tensor in _mapped(path).items()}


def _read(path: Path, name: str) -> Tensor:
    """Values of one tensor. The file is opened for it, so that its pages leave memory with the tensor."""
    if path.suffix == ".safetensors":
        found: Tensor = _safe(path, lambda file: file.get_tensor(name))
        return found
    return _mapped(path)[name] if zipfile.is_zipfile(path) else read_tensors(path)[0][name]


def _safe(path: Path, use: Callable[[Any], Any]) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return use(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error) from None


def _safe_shapes(file: Any) -> dict[str, Tensor]:
    found = {}
    for name in list(file.keys()):
        piece = file.get_slice(name)
        kind = _TYPES.get(piece.get_dtype(), torch.uint8)  # types of few bits count as whole numbers
        found[name] = torch.empty(piece.get_shape(), dtype=kind, device="meta")
    return found


def _mapped(path: Path) -> dict[str, Tensor]:
    """Tensors of a file of torch.save, of which nothing is read before it is used."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        return read_tensors(path)[0]  # says what was refused
    except Exception as error:  # damaged files fail in as many ways as there are bytes
        raise damaged(path, error) from None
    tensors = {
        name: value
        for name, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    check_stored(tensors, path)
    return tensors


def _on_meta(tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized:
        return torch.empty(tensor.shape, dtype=torch.uint8, device="meta")
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


_LARGEST = 1e30
"""An α that is larger, infinite or NaN is none."""


def adapter_scaling(config: Mapping[str, Any]) -> Callable[[str, int], float]:
    """Name of a layer and rank of its adapter → what PEFT multiplies BA with: α/r, or α/√r where the config says so."""
    alpha, patterns = config.get("lora_alpha"), config.get("alpha_pattern")
    patterns = patterns if isinstance(patterns, Mapping) else {}

    def scaling(layer: str, rank: int) -> float:
        own = next((value for key, value in patterns.items() if layer == key or layer.endswith(f".{key}")), alpha)
        if isinstance(own, bool) or not isinstance(own, (int, float)) or not abs(own) < _LARGEST or not rank:
            return 1.0
        return own / (rank**0.5 if config.get("use_rslora") else rank)

    return scaling
