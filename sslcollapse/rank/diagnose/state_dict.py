"""The tensors in a file, read without running any code of the file."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sslcollapse.core.errors import SSLCollapseError, suggest
from sslcollapse.core.texts import printable
from sslcollapse.core.untrusted import check_regular, check_zip

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "network", "encoder", "backbone", "teacher", "student")
"""Entries of a checkpoint that hold the state dict, the first of these that is there."""

DEEPEST = 20
"""How deep in a checkpoint the state dict is looked for."""

_MOST_CLASSES = 50
_SETTINGS = re.compile(
    r"(argparse|types|pathlib|datetime|collections|enum|omegaconf|hydra|easydict|yacs|addict|munch|ml_collections"
    r"|fvcore|detectron2\.config|mmengine\.config|pytorch_lightning|lightning|lightning_fabric|numpy|__main__)"
    r"(\.\w+)*\.[A-Za-z_]\w*|builtins\.(set|frozenset|slice|range|complex|bytearray|object)"
)
"""Names in checkpoints that hold settings or numbers beside the network. None of them is imported: each is replaced by
a class that does nothing."""

MOST_VIEWS = 4
"""All tensors together may have this many times what is stored: some are views of others."""


class Read(NamedTuple):
    """Tensors of a file by name, the entry that they were in, and other entries that hold a network."""

    tensors: dict[str, Tensor]
    entry: str
    others: Sequence[str]


class TargetError(SSLCollapseError, ValueError):
    """What should be diagnosed cannot be found or read, or holds no weight matrices."""


def read_tensors(path: Path, entry: str | None = None) -> Read:
    """Tensors of what ``torch.save`` wrote, and the entries they were found in.

    A pickle is read with torch's weights-only reader, which builds tensors and plain containers and nothing else. What
    holds settings (an ``argparse.Namespace``, say) becomes an object that does nothing; it is not looked at.

    Args:
        path: of the file.
        entry: the entry that holds the state dict, dots between levels, or what its names begin with; None for the
            first of ``WRAPPERS`` that is there.

    Raises:
        TargetError: a damaged file, one that needs code to be run or claims more than it stores, or one without a
            state dict.
        DataError: no regular file, or one that unpacks to far more than its size.
    """
    check_regular(path)
    if zipfile.is_zipfile(path):
        check_zip(path)
    content = _loaded(path)
    tensors, place = tensors_of(content, path, entry)
    check_stored(tensors, path)
    return Read(tensors, place, _others(content, place) if entry is None else [])


def tensors_of(content: Any, path: Path | str, entry: str | None) -> tuple[dict[str, Tensor], str]:
    """The state dict in what was loaded, without what wrappers put into names, and the entries it was found in."""
    tensors, place = _unwrap(content, path, "") if entry is None else _entry(content, path, entry)
    return {name: tensors[own] for own, name in plain_names(tensors).items()}, place


def _loaded(path: Path) -> Any:
    inert: dict[str, type] = {}
    while True:
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals([(kind, n) for n, kind in inert.items()]):
                warnings.simplefilter("ignore")  # about formats: what cannot be read is refused below
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            name = _asked_for(str(error))
            if name is None or name in inert or len(inert) >= _MOST_CLASSES or not _SETTINGS.fullmatch(name):
                raise _refused(path, str(error)) from None
            inert[name] = type("Inert", (_Inert,), {"__module__": __name__})
        except Exception as error:  # damaged files fail in as many ways as there are bytes
            raise damaged(path, error) from None


class _Inert:
    """Stands for an object of settings: takes whatever a pickle gives it, and does nothing with it."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _entry(content: Any, path: Path | str, entry: str) -> tuple[dict[str, Tensor], str]:
    """The tensors below an entry; where no dict has the rest of it as a key, those whose names begin with it."""
    rest, found = entry, content
    while rest and isinstance(found, Mapping):
        keys = [key for key in found if isinstance(key, str) and (rest == key or rest.startswith(f"{key}."))]
        if not keys or not isinstance(found[max(keys, key=len)], Mapping):
            break
        key = max(keys, key=len)
        found, rest = found[key], rest[len(key) :].removeprefix(".")
    if not rest:
        tensors, inside = _unwrap(found, path, "")
        return tensors, _join(entry, inside)
    below = found.items() if isinstance(found, Mapping) else ()
    named = {key: value for key, value in below if isinstance(key, str) and isinstance(value, Tensor)}
    tensors = {key.removeprefix(f"{rest}."): value for key, value in named.items() if key.startswith(f"{rest}.")}
    if tensors:
        return tensors, entry
    known = entries(content) or sorted({key.partition(".")[0] for key in named})
    raise TargetError(
        f"{path}: has no entry {printable(entry)!r}{suggest(entry, known)} (it has: {printable(_listed(known))})"
    )


def entries(content: Any, place: str = "", depth: int = 0) -> list[str]:
    """Entries of a checkpoint that hold tensors, dots between levels, two levels deep."""
    found = []
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(key, str) and isinstance(value, Mapping) and depth < 2:
            if any(isinstance(item, Tensor) for item in value.values()):
                found.append(_join(place, key))
            found += entries(value, _join(place, key), depth + 1)
    return found


def _others(content: Any, taken: str) -> list[str]:
    """Entries that could have been taken as well, where a file has several networks."""
    above, _, last = taken.rpartition(".")
    for key in above.split(".") if above else ():
        content = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or last not in WRAPPERS:
        return []
    return [
        _join(above, key) for key in WRAPPERS if key != last and isinstance(content.get(key), Mapping) and content[key]
    ]


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


def natural(name: str) -> list[tuple[int, int, str]]:
    """Key that sorts names with the numbers in them as numbers."""
    parts = re.split(r"([0-9]+)", name)
    numbers = {part: part.lstrip("0") for part in parts[1::2]}  # compared by their lengths first: they may be endless
    return [(1, len(numbers[part]), numbers[part]) if part in numbers else (0, 0, part) for part in parts]


def _unwrap(content: Any, path: Path | str, entry: str, depth: int = 0) -> tuple[dict[str, Tensor], str]:
    if depth > DEEPEST:  # counted, since a name may be empty
        raise TargetError(f"{path}: its entries lie more than {DEEPEST} deep, or a dict in it contains itself")
    if not isinstance(content, Mapping):
        raise TargetError(
            f"{path}: holds a {type(content).__name__}, not a state dict; save model.state_dict() and diagnose that"
        )
    content = {key: value for key, value in content.items() if isinstance(key, str)}
    nested = [key for key, value in content.items() if isinstance(value, Mapping) and value]
    for key in WRAPPERS:
        if key in nested:
            return _unwrap(content[key], path, _join(entry, key), depth + 1)
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        return tensors, entry
    if len(nested) == 1:
        return _unwrap(content[nested[0]], path, _join(entry, nested[0]), depth + 1)
    keys = _listed(list(content)) or "none"
    raise TargetError(
        f"{path}: no state dict in it (its entries: {keys}); save model.state_dict() by itself, or under one of "
        f"the names {', '.join(WRAPPERS)}; or name the entry that holds it with --entry"
    )


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name → name without what data-parallel wrappers, ``torch.compile`` and PEFT put in."""
    plain = {name: name.replace("_orig_mod.", "") for name in tensors}
    for prefix in ("module.", "base_model.model."):
        matrices = [plain[name] for name, tensor in tensors.items() if tensor.dim() >= 2]
        if matrices and all(name.startswith(prefix) for name in matrices):
            plain = {name: shown.removeprefix(prefix) for name, shown in plain.items()}
    return plain


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name[:50] for name in names[:8]) + (f", … ({len(names)} in all)" if len(names) > 8 else "")


def _asked_for(reason: str) -> str | None:
    """The class or function that torch's reader refused."""
    name = re.search(r"GLOBAL (\S+)", reason)
    return name.group(1) if name else None


def _refused(path: Path, reason: str) -> TargetError:
    name = _asked_for(reason)
    why = f"reading it would run code ({name})" if name else "it is damaged or no file of torch.save"
    return TargetError(
        f"{path}: refused: {why}; only tensors and plain containers are read, and nothing was run. If you trust the "
        "file, load it yourself and save model.state_dict(), best as .safetensors"
    )


def damaged(path: Path, error: Exception) -> TargetError:
    """What is said of a file that cannot be read."""
    text = " ".join(str(error).split())[:200]
    return TargetError(
        f"{path}: cannot be read ({type(error).__name__}: {text}); it is truncated, or no .safetensors file or "
        "torch.save of a state dict"
    )
