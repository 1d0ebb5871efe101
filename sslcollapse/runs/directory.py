"""The run directory: where a run lives, whether it may start, and the files in it."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from sslcollapse import __version__
from sslcollapse.core.errors import RunError
from sslcollapse.core.files import PACKAGE, remove_temporaries, write_atomic, writing
from sslcollapse.core.registry import REGISTRIES
from sslcollapse.core.seeding import FIRST_STREAMS, STREAMS
from sslcollapse.recipe import changes_since, components, difference, recipe_hash
from sslcollapse.runs.quantities import is_cut_short

PACKAGES = (
    "sslcollapse",
    "torch",
    "torch_geometric",
    "torchvision",
    "timm",
    "lightly",
    "accelerate",
    "scikit-learn",
    "numpy",
)


class RunDirectory:
    """``<out>/<recipe name>/<hash>/seed<k>/``; written by rank 0 only.

    Whole files are renamed into place; ``metrics.jsonl`` and ``train.log`` grow line by line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, recipe: Mapping[str, Any], out: Path, hash_: str | None = None) -> RunDirectory:
        """The directory of a resolved recipe below ``out``; its hash is computed unless it is given."""
        return cls(out / recipe["name"] / (hash_ or recipe_hash(recipe)) / f"seed{recipe['seed']}")

    @property
    def hash(self) -> str:
        """Of the recipe; the folder around it is called so."""
        return self.path.parent.name

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether the run has its result."""
        return (self.path / "result.json").exists()

    def has_finished(self, recipe: Mapping[str, Any]) -> bool:
        """Whether nothing is left to do of this recipe's run: one of other defaults has the same hash."""
        return self.finished and not is_cut_short(self.path) and not changes_since(self.path, recipe)

    def check_startable(self, recipe: Mapping[str, Any], out: Path, *, resume: bool, overwrite: bool) -> None:
        """Raise RunError unless the run may start or resume; reads only.

        Refused: a run of other defaults, or a finished one (without ``overwrite``); an unfinished one (without
        ``resume`` or ``overwrite``), or one that drew other random numbers; ``resume`` where there is no such run but
        another of this name, which may have been meant: the nearest is named with the fields that differ.
        """
        if resume and overwrite:
            raise RunError("--resume and --overwrite contradict each other; give one of them")
        if overwrite:
            return
        if other := changes_since(self.path, recipe):
            raise RunError(
                f"{self.path}: a run of the same hash is here whose defaults were others ({'; '.join(other)}); "
                "use --overwrite to replace it, or --out for another folder"
            )
        if self.finished and not (resume and is_cut_short(self.path)):
            raise RunError(
                f"{self.path}: this run is finished; use --overwrite to replace it or another seed "
                f"(seed={recipe['seed'] + 1})"
            )
        if resume and not self.path.exists():
            nearest = _nearest(recipe, out)
            if nearest is not None:
                raise RunError(
                    f"--resume: no unfinished run at {self.path}. {nearest} Start this one without --resume."
                )
        if resume:
            made_with = other_streams(self.path, recipe)
            if made_with is not None:
                raise RunError(
                    f"--resume: {self.path} was begun with version {made_with} of the random streams, and this is "
                    f"version {STREAMS}, which draws other numbers for this recipe; start again with --overwrite"
                )
        if not resume and (self.path / "recipe.json").exists():
            raise RunError(
                f"{self.path}: an unfinished run is here; use --resume to continue it or --overwrite to start again"
            )

    def create(self, *, overwrite: bool) -> None:
        """Make the directory, emptied if ``overwrite``, and without what killed processes were writing in it.

        Raises:
            RunError: when it cannot be written.
        """
        folders = (self.path, self.path / "spectra", self.checkpoints)
        with self.startable():
            if overwrite and self.path.exists():
                shutil.rmtree(self.path)
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
                remove_temporaries(folder)
            probe = self.path / f".writable{os.getpid()}"
            probe.write_bytes(b"\n")
            probe.unlink()

    @contextmanager
    def startable(self) -> Iterator[None]:
        """Around the first that is written: an error of the system is raised as RunError."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot write the run here ({error.strerror}); choose another folder with --out"
            ) from error

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON file."""
        write_atomic(self.path / name, (json.dumps(value, indent=2) + "\n").encode())

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write one ``.npz`` file."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dict[str, Any](arrays))
        write_atomic(self.path / name, buffer.getvalue())

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``."""
        self._append("metrics.jsonl", json.dumps(record) + "\n")

    def log(self, text: str) -> None:
        """Add text to ``train.log``."""
        self._append("train.log", text)

    def rewind(self, step: int) -> tuple[list[dict[str, Any]], list[int]]:
        """Drop what was measured after ``step``, before a run resumes from it, and lines that cannot be read.

        Returns:
            The records that are left, and the numbers of damaged lines; the torn last one that a kill leaves is none.
        """
        path = self.path / "metrics.jsonl"
        with writing(path):
            records, damaged = read_metrics(path)
            kept = [record for record in records if record["step"] <= step]
            if path.exists():
                write_atomic(path, "".join(json.dumps(record) + "\n" for record in kept).encode())
            for file in (self.path / "spectra").glob("*.npz"):
                if file.stem.isdigit() and int(file.stem) > step:
                    file.unlink()
        return kept, damaged

    def _append(self, name: str, text: str) -> None:
        path = self.path / name
        with writing(path), open(path, "a", encoding="utf-8") as file:
            file.write(text)


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Records of a ``metrics.jsonl``, which may be absent, and the numbers of the lines that are none.

    A last line without an end is what a kill leaves; it counts as no damage.
    """
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    records, damaged = [], []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record["step"], int) and not isinstance(record["step"], bool):
                records.append(record)
                continue
        except (ValueError, KeyError, RecursionError):
            pass
        if line.strip() and number < len(lines):
            damaged.append(number)
    return records, damaged


def environment(
    world_size: int, device: str, command: list[str], recipe: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Versions, commit, devices, world size and command of this process, and the plug-ins that a recipe uses."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "plugins": plugins(recipe or {}),
        "platform": platform.platform(),
        "device": device,
        "world_size": world_size,
        "threads": _threads(),
        "streams": STREAMS,
        "precision": _precision(recipe),
    }


def _precision(recipe: Mapping[str, Any] | None) -> dict[str, Any]:
    """What numbers are computed in: a recipe's mixed precision, and what holds for the process."""
    from sslcollapse.core.precision import in_force  # takes a second, which those who read runs do not need

    return {"autocast": recipe["train"]["precision"]} | in_force() if recipe else in_force()


def plugins(recipe: Mapping[str, Any]) -> dict[str, str]:
    """``"encoder my_gcn"`` → where it comes from, of each component of a resolved recipe that is not this package's."""
    found = {}
    for kind, component in components(recipe):
        origin = REGISTRIES[kind].origin(component["type"])
        if origin is not None:
            found[f"{kind} {component['type']}"] = origin
    return found


def device_name(device: Any) -> str:
    """The accelerator's name, or the processor's."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model} ({os.cpu_count()} cores)"


def commit() -> str | None:
    """The commit of this package's repository, with ``+changes`` where files differ; None outside one."""
    try:
        git = ["git", "--no-optional-locks", "-C", str(PACKAGE)]  # a lock would stay if it were ended by the timeout
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        if head.returncode:
            return None
        status = ["status", "--porcelain", "--untracked-files=no", "--", str(PACKAGE)]
        dirty = subprocess.run([*git, *status], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def _version(package: str) -> str | None:
    if package == "sslcollapse":  # the code that runs, which need not be the one that is installed
        return __version__
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _threads() -> int:
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else 0


def _nearest(recipe: Mapping[str, Any], out: Path) -> str | None:
    """The run of this name that differs least, and in what; None where there is none."""
    candidates = []
    for path in sorted((out / recipe["name"]).glob("*/seed*/recipe.json")):
        try:
            other = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(other, dict):
            candidates.append((difference(recipe, other), path.parent))
    if not candidates:
        return None
    fields, path = min(candidates, key=lambda item: len(item[0]))
    state = "finished" if (path / "result.json").exists() else "unfinished"
    return f"The nearest run is {path} ({state}), which differs in: {'; '.join(fields) or 'nothing'}."


def streams_of(recipe: Mapping[str, Any]) -> int | None:
    """The version of the random streams that a run of a resolved recipe has today; None where all draw the same.

    Version 2 of the streams changed the orders of images, of batches of several graphs and of the rows of a linear
    probe, the directions of SIGReg, and the default stream, which dropout and the like draw from. A run that has none
    of these, as BGRL on one graph, draws what it drew under version 1. Records without ``streams`` are of version 1.
    """
    return STREAMS if _draws_anew(recipe) else None


def of_most(records: Iterable[Mapping[str, Any]]) -> int:
    """The version that most of some records have; of equals, and without any, the newest."""
    found = [record.get("streams", FIRST_STREAMS) for record in records]
    return max({*found, STREAMS}, key=lambda version: (found.count(version), version))


def made_otherwise(run: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether a run directory holds another run of the same hash: with other defaults, or other random numbers."""
    return bool(changes_since(run, recipe)) or other_streams(run, recipe) is not None


def other_streams(run: Path, recipe: Mapping[str, Any]) -> int | None:
    """The version of the random streams of a run directory, if it drew other numbers than it would today; else None."""
    try:
        environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
        made_with = environment.get("streams", FIRST_STREAMS)
    except (OSError, ValueError, AttributeError):
        return None
    return None if streams_of(recipe) in (None, made_with) else made_with


def _draws_anew(recipe: Mapping[str, Any]) -> bool:
    domain = recipe["domain"]
    ordered = domain["type"] not in ("graph", "toy") or (domain["type"] == "graph" and domain["batch_size"] is not None)
    parts = [*recipe["regularizers"].values(), *recipe["evaluate"].values()]
    named = any(part["type"] in ("sigreg", "linear") for part in parts)
    return ordered or named or recipe["encoder"]["type"] == "pyg" or _drops(recipe["encoder"])


def _drops(value: Any) -> bool:
    """Whether an encoder's arguments have dropout, drop path or the like, which is not zero."""
    if not isinstance(value, Mapping):
        return False
    return any(_drops(item) or ("drop" in key and bool(item)) for key, item in value.items())
