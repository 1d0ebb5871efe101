"""The tensors in a file, read without running any code of the file."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.errors import SSLCollapseError
from sslcollapse.core.texts import printable
from sslcollapse.core.untrusted import check_regular, check_zip

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "network", "encoder", "backbone", "teacher", "student")
"""Entries of a checkpoint that hold the state dict, the first of these that is there."""

DEEPEST = 20
"""How deep in a checkpoint the state dict is looked for."""

MOST_VIEWS = 4
"""All tensors together may have this many times what is stored: some are views of others."""


class TargetError(SSLCollapseError, ValueError):
    """What should be diagnosed cannot be found or read, or holds no weight matrices."""


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Tensors of a ``.safetensors`` file or of what ``torch.save`` wrote, and the entries they were found in.

    A pickle is read with torch's weights-only reader, which builds tensors and plain containers and nothing else.
    In a safetensors file, which does not keep the order of a network, names are sorted, numbers in them as numbers.

    Raises:
        TargetError: a damaged file, one that needs code to be run or claims more than it stores, or one without a
            state dict.
        DataError: no regular file, or one that unpacks to far more than its size.
    """
    check_regular(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path), ""
    if zipfile.is_zipfile(path):
        check_zip(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats: what cannot be read is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from None
    except Exception as error:  # damaged files fail in as many ways as there are bytes
        raise _damaged(path, error) from None
    tensors, entry = _unwrap(content, path, "")
    check_stored(tensors, path)
    return _without_prefix(tensors), entry


def check_stored(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that have more elements than are stored, as ``zeros(1).expand(100000, 100000)`` has.

    Raises:
        TargetError: names the first, or says that all together are far larger than what is stored.
    """
    views, storages = {}, {}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta:
            continue
        stored, claimed = tensor.untyped_storage(), tensor.numel() * tensor.element_size()
        if claimed > stored.nbytes():
            raise TargetError(
                f"{path}: refused: {printable(name)} is of shape {list(tensor.shape)}, {claimed:,} bytes, of which "
                f"{stored.nbytes():,} are stored; save it with .contiguous()"
            )
        storages[stored.data_ptr()] = stored.nbytes()
        views[(tensor.data_ptr(), tensor.shape, tensor.stride())] = claimed
    if sum(views.values()) > MOST_VIEWS * sum(storages.values()):
        raise TargetError(
            f"{path}: refused: its tensors have {sum(views.values()):,} bytes, of which {sum(storages.values()):,} are "
            "stored; save copies in place of views"
        )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None
    return _without_prefix({name: tensors[name] for name in sorted(tensors, key=_natural)})


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]+)", name)
    numbers = {part: part.lstrip("0") for part in parts[1::2]}  # compared by their lengths first: they may be endless
    return [(1, len(numbers[part]), numbers[part]) if part in numbers else (0, 0, part) for part in parts]


def _unwrap(content: Any, path: Path, entry: str) -> tuple[dict[str, Tensor], str]:
    if entry.count(".") > DEEPEST:
        raise TargetError(f"{path}: its entries lie more than {DEEPEST} deep, or a dict in it contains itself")
    if not isinstance(content, Mapping):
        raise TargetError(
            f"{path}: holds a {type(content).__name__}, not a state dict; save model.state_dict() and diagnose that"
        )
    content = {key: value for key, value in content.items() if isinstance(key, str)}
    nested = [key for key, value in content.items() if isinstance(value, Mapping) and value]
    for key in WRAPPERS:
        if key in nested:
            return _unwrap(content[key], path, _join(entry, key))
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        return tensors, entry
    if len(nested) == 1:
        return _unwrap(content[nested[0]], path, _join(entry, nested[0]))
    keys = ", ".join(key[:50] for key in list(content)[:8]) or "none"
    raise TargetError(
        f"{path}: no state dict in it (its entries: {keys}); save model.state_dict() by itself, or under one of "
        f"the names {', '.join(WRAPPERS)}"
    )


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what data-parallel wrappers and ``torch.compile`` put in."""
    plain = {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}
    matrices = [name for name, tensor in plain.items() if tensor.dim() >= 2]
    if matrices and all(name.startswith("module.") for name in matrices):
        return {name.removeprefix("module."): tensor for name, tensor in plain.items()}
    return plain


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _refused(path: Path, reason: str) -> TargetError:
    name = re.search(r"GLOBAL (\S+)", reason)
    why = f"reading it would run code ({name.group(1)})" if name else "it is damaged or no file of torch.save"
    return TargetError(
        f"{path}: refused: {why}; only tensors and plain containers are read, and nothing was run. If you trust the "
        "file, load it yourself and save model.state_dict(), best as .safetensors"
    )


def _damaged(path: Path, error: Exception) -> TargetError:
    text = " ".join(str(error).split())[:200]
    return TargetError(
        f"{path}: cannot be read ({type(error).__name__}: {text}); it is truncated, or no .safetensors file or "
        "torch.save of a state dict"
    )
