"""Graph datasets kept in files: look for the raw files, download them where they are missing, parse them.

The raw files are the only truth. PyTorch Geometric and OGB would write a ``processed/`` folder beside them
and read it back in the next run; parsing takes seconds, so nothing is cached here: a read-only data root is
enough, an interrupted run leaves nothing half-written, and no stale or corrupt cache can be read.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcollapse.core.errors import DataError, MissingDataError, RecipeError, SSLCollapseError, suggest
from sslcollapse.core.untrusted import check_arrays, check_gzip, check_regular, read_arrays
from sslcollapse.domains.download import missing_files, missing_text, publish, reason, socket_timeout, staging_folder
from sslcollapse.domains.graph.data import GraphDataset


@dataclass(frozen=True)
class Sizes:
    """Published sizes of a dataset, known without reading it; an undirected edge counts twice.

    Attributes:
        split: nodes of the train, validation and test part of every public split; None where they differ.
    """

    nodes: int
    edges: int
    features: int
    classes: int
    split: tuple[int, int, int] | None = None

    def __str__(self) -> str:
        graph = f"{self.nodes:,} nodes, {self.edges:,} edges"
        return f"{graph}, {self.features:,} features, {self.classes:,} classes"

    def differences(self, dataset: GraphDataset) -> list[str]:
        """What a dataset has another number of, as ``"600 test nodes of split 0 instead of 1,000"``."""
        found = [
            ("nodes", sum(graph.num_nodes for graph in dataset.graphs), self.nodes),
            ("edges", sum(graph.edge_index.shape[1] for graph in dataset.graphs), self.edges),
            ("feature columns", dataset.num_features, self.features),
            ("classes", dataset.num_classes, self.classes),
        ]
        if self.split is not None:
            for k, split in enumerate(dataset.splits["public"]):
                parts = zip(("train", "validation", "test"), self.split, strict=True)
                found += [(f"{part} nodes of split {k}", len(getattr(split, part)), size) for part, size in parts]
        return [f"{count:,} {what} instead of {size:,}" for what, count, size in found if count != size]


class StoredGraphs(ABC):
    """A graph dataset whose raw files lie below ``data_root/graph/<family>``.

    Args:
        data_root: the data root.
        family: folder and name of the family of datasets.
        raw: raw files, relative to the family's folder.
        sizes: published sizes.
        name: which dataset of the family, where it has several.
    """

    def __init__(self, data_root: Path, family: str, raw: Sequence[str], sizes: Sizes, name: str | None = None) -> None:
        self.data_root = Path(data_root).expanduser()
        self.root = self.data_root / "graph" / family
        self.title = family if name is None else f"{family} {name}"
        self.sizes = sizes
        self._raw = tuple(raw)

    @property
    def num_features(self) -> int:
        """Width of the node features, known without reading."""
        return self.sizes.features

    def files(self) -> list[Path]:
        """The raw files that are read."""
        return self.files_below(self.root)

    def files_below(self, root: Path) -> list[Path]:
        """The raw files as they lie below another folder than the data root's."""
        return [root / name for name in self._raw]

    def describe(self) -> str:
        """One line for a dry run: name, published sizes, folder, and whether the files are there."""
        missing = sum(not file.is_file() for file in self.files())
        state = f"{missing} of {len(self._raw)} files to be downloaded" if missing else "all files there"
        return f"{self.title}: {self.sizes}; in {self._folder} ({state})"

    def load(self) -> GraphDataset:
        """Read the dataset; download it first where raw files are missing.

        Raises:
            MissingDataError: files are missing and the download fails; nothing of the attempt is left behind.
            DataError: a file is truncated, corrupt, or not the dataset it should be.
        """
        missing = missing_files(self.files())
        if missing:
            return self._download(missing)
        return self._read_or_explain()

    @abstractmethod
    def fetch(self, root: Path) -> None:
        """Download the raw files below ``root``, an empty folder, with the loader's own download."""

    @abstractmethod
    def parse(self, root: Path) -> GraphDataset:
        """Read the raw files below ``root``."""

    def read_alone(self, file: Path) -> None:
        """Read one raw file by itself, to tell which of several is damaged; raises whatever its reader raises."""
        if file.suffix == ".json":
            json.loads(file.read_bytes())
        elif file.suffix in (".npy", ".npz"):
            read_arrays(file)
        else:
            check_claims(file)

    @property
    def _folder(self) -> Path:
        return Path(os.path.commonpath([file.parent for file in self.files()]))

    def _read(self, root: Path) -> GraphDataset:
        for file in self.files_below(root):
            check_claims(file)  # the loaders of libraries believe them
        dataset = self.parse(root)
        # A text file that was cut between two lines parses well, and trains to a wrong result.
        differences = self.sizes.differences(dataset)
        if differences:
            raise DataError(
                f"{self.title}: {'; '.join(differences)}; one of the files {self._names(self.files())} is incomplete "
                "or not the dataset's"
            )
        return dataset

    def _read_or_explain(self) -> GraphDataset:
        remedy = f"Delete {self._folder} and run again with a network, or copy the files there again."
        try:
            return self._read(self.root)
        except DataError as error:
            raise DataError(f"{error}. {remedy}") from error
        except (SSLCollapseError, MemoryError, ImportError):
            raise
        except Exception as error:  # whatever a parser makes of a damaged file
            damaged = [file for file in self.files() if not self._readable(file)]
            which = "" if damaged else "one of the files "
            verb = "are" if len(damaged) > 1 else "is"
            raise DataError(
                f"{self.title} cannot be read ({reason(error)}): {which}{self._names(damaged or self.files())} "
                f"{verb} truncated or corrupt. {remedy}"
            ) from error

    def _readable(self, file: Path) -> bool:
        try:
            self.read_alone(file)
        except MemoryError:
            raise
        except Exception:  # as above
            return False
        return True

    @staticmethod
    def _names(files: Sequence[Path]) -> str:
        return ", ".join(file.name for file in files)

    def _download(self, missing: Sequence[Path]) -> GraphDataset:
        # Into a folder of its own, and moved into place only once it has been parsed: an interrupted or
        # truncated download is never mistaken for the dataset, and ranks downloading at once do not meet.
        try:
            with staging_folder(self.root) as staging, socket_timeout():
                self.fetch(staging)
                dataset = self._read(staging)
                publish([path for path in staging.rglob("*") if path.is_file()], staging, self.root)
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # the loaders raise anything from URLError to BadZipFile
            raise MissingDataError(
                f"{self.title} was not found and its download failed ({reason(error)}). "
                f"{missing_text(missing, self.data_root, 'recipes/quickstart.py')}"
            ) from error
        return dataset


def check_claims(file: Path) -> None:
    """Refuse a file that is no regular one, or claims to hold far more than it does.

    Raises:
        DataError: it is refused.
        Exception: whatever a damaged file makes of its reader.
    """
    check_regular(file)
    if file.suffix == ".gz":
        check_gzip(file)
    elif file.suffix in (".npy", ".npz"):
        check_arrays(file)


def in_memory(loader: Any) -> Any:
    """A PyTorch Geometric ``InMemoryDataset`` class whose parsing stays in memory.

    Constructing the returned class touches no files. Its ``download()`` and ``process()`` are the loader's
    own; what ``process()`` would have saved is in ``parsed``, one list of ``Data`` a processed file.
    """

    class InMemory(loader):
        def _download(self) -> None:
            pass

        def _process(self) -> None:
            pass

        def load(self, path: str, *_: Any, **__: Any) -> None:
            pass

        def save(self, data_list: Sequence[Any], path: str) -> None:
            self.__dict__.setdefault("parsed", []).append(list(data_list))

    return InMemory


def check_name(name: str, known: Sequence[str], family: str) -> None:
    """Raise RecipeError, with the nearest known name, unless ``name`` is known."""
    if name not in known:
        nearest = next((f"; did you mean {k!r}?" for k in known if k.lower() == str(name).lower()), None)
        nearest = nearest or suggest(name, list(known))
        raise RecipeError(f"unknown {family} name {name!r}{nearest} (known: {', '.join(known)})")
