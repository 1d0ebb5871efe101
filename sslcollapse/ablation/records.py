"""What is kept of runs: a line of JSON of each that finished, never lost to a crash; and what went wrong in others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from sslcollapse.ablation.job import Job, why_another
from sslcollapse.ablation.values import Cell
from sslcollapse.core.errors import RunError, quote
from sslcollapse.core.seeding import FIRST_STREAMS
from sslcollapse.recipe import learnt
from sslcollapse.runs.quantities import (
    EVIDENCE,
    RECORD,
    RESULT,
    compact_evidence,
    compact_ranks,
    compact_scores,
    lacking,
)

MADE_WITH = ("recipe", "streams")
"""What sets two records of one hash and seed apart."""

BLOCK = 1 << 12
"""Bytes that are read at a time from the end of the file, to see whether its last line is whole."""

Key = tuple[str, int]
"""Hash and seed."""


Made = TypeVar("Made")


class DamagedRunError(RunError):
    """The files of one finished run cannot be used."""


class Records:
    """``runs.jsonl``: of a (hash, seed) the first record counts that was made with what a cell asks for.

    What it lacks of baselines and the like, because an older version made it, it takes from a later record of that run.

    Args:
        path: the file; read now, made at the first ``add``, and written by nothing else.

    Raises:
        RunError: a line other than the last is no record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: dict[Key, list[dict[str, Any]]] = {}
        self._why: dict[tuple[int, int | None], tuple[Any, dict[int, str]]] = {}
        self._made: dict[tuple[int, Any], tuple[Any, Any]] = {}
        data = path.read_bytes() if path.exists() else b""
        *lines, last = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                self._keep(*_parsed(line))
            except ValueError as error:
                raise RunError(
                    f"{path}, line {number}: not a record of a run ({error}); restore or delete the line"
                ) from error
        if whole := _whole(last):  # but for its end; if it was torn by a crash, its run still has its result.json
            self._keep(*whole)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (record for records in self._records.values() for record in records)

    def __contains__(self, key: Key) -> bool:
        return bool(self._records.get(key))

    def __len__(self) -> int:
        return sum(map(len, self._records.values()))

    def of(self, cells: Iterable[Cell], seeds: int) -> list[dict[str, Any]]:
        """Records of cells with seeds below ``seeds``, by cell, then by seed."""
        found = (self.find(cell, seed) for cell in cells for seed in range(seeds))
        return [record for record in found if record is not None]

    def find(self, cell: Cell, seed: int) -> dict[str, Any] | None:
        """The record of a run of a cell; one of the same hash with other defaults is another run."""
        return next((r for r in self._records.get((cell.hash, seed), ()) if not self._another(r, cell)), None)

    def set_aside(self, cells: Iterable[Cell], seeds: int) -> dict[str, int]:
        """Why records of the cells' hashes are other runs → how many, of runs that have no record of their own."""
        found: dict[str, int] = {}
        for cell in cells:
            for seed in range(seeds):
                others = self._records.get((cell.hash, seed), [])
                if others and self.find(cell, seed) is None:
                    why = self._another(others[0], cell)
                    found[why] = found.get(why, 0) + 1
        return found

    def once(self, plan: object, name: Any, make: Callable[[], Made]) -> Made:
        """What ``make`` makes of these records under a plan: made once, until a record is added.

        The page and both tables of an ablation have the same differences.

        Args:
            plan: the ablation.
            name: what is made.
            make: makes it.
        """
        key = (id(plan), name)
        if key not in self._made:
            self._made[key] = (plan, make())  # the plan is held, so that its id stays its own
        return self._made[key][1]

    def _another(self, record: Mapping[str, Any], cell: Cell) -> str:
        """``why_another``, once for each record and recipe: tables ask for every column again."""
        place = (id(cell.recipe), cell.streams)
        _, known = self._why.setdefault(place, (cell.recipe, {}))  # the recipe is held, so that its id stays its own
        if id(record) not in known:
            known[id(record)] = why_another(record, cell.recipe, cell.streams)
        return known[id(record)]

    def _same(self, key: Key, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """The record that is there of the run that another one is of."""

        def same(other: Mapping[str, Any]) -> bool:
            if "recipe" in other or not any(part in record for part in EVIDENCE):
                return all(other.get(part) == record.get(part) for part in MADE_WITH)
            return bool(other["evaluation"] == record["evaluation"])  # of a version that said no more

        return next(filter(same, self._records.get(key, ())), None)

    def _keep(self, key: Key, record: dict[str, Any]) -> None:
        self._made.clear()
        same = self._same(key, record)
        if same is None:
            self._records.setdefault(key, []).append(record)
        else:
            same |= _lacked(same, record)

    def add(self, record: dict[str, Any]) -> None:
        """Append a record and wait until it is on disk; nothing where one that was made with the same is there.

        One that has baselines, where the other has none, is appended as well, and the other is read with them. One
        process at a time may do this. A last line that a crash has torn is removed first.

        Raises:
            RunError: it could not be written.
        """
        key = (record["hash"], record["seed"])
        same = self._same(key, record)
        if same is not None and not _lacked(same, record):
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as file:
                _end_last_line(file)
                file.write((json.dumps(record) + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(
                f"{self.path}: a record cannot be written ({error.strerror}); its run is finished, and the same "
                "command records it once there is room"
            ) from error
        self._keep(key, record)


def _lacked(record: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What a record lacks of baselines and the like, and another one has of the same run with the same scores."""
    if record["evaluation"] != other["evaluation"]:  # made on another machine
        return {}
    return {part: other[part] for part in EVIDENCE if part in other and part not in record}


def check_writable(folder: Path, option: str) -> None:
    """Make a folder and write in it, so that no run is made that could not be kept.

    Args:
        folder: of records or of runs.
        option: of the command line, which says another one.

    Raises:
        RunError: it, or the file of records in it, cannot be written.
    """
    probe = folder / f".writable{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
        if (folder / "runs.jsonl").exists():
            open(folder / "runs.jsonl", "ab").close()
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written ({error.strerror}); choose another folder with {option}"
        ) from error


def make_record(cell: Cell, settings: list[str], run: Path) -> dict[str, Any]:
    """The compact record of a finished run, from its ``result.json`` and ``environment.json``.

    Raises:
        DamagedRunError: the result is of another recipe, or damaged.
    """
    result, environment = _written(run / "result.json", RESULT), _written(run / "environment.json", {"packages": dict})
    if result["hash"] != cell.hash:
        found = quote(result["hash"])
        raise DamagedRunError(f"{run}: result.json has the hash {found} in a folder of {cell.hash!r}; move it away")
    if why := why_another({**result, "recipe": result["recipe"]}, cell.recipe, None):
        raise DamagedRunError(f"{run}: result.json is of a run with other defaults ({why}); move it away")
    packages = environment["packages"]
    return {
        "hash": result["hash"],
        "seed": result["seed"],
        "name": result["recipe"].get("name"),
        "base": cell.base,
        "overrides": dict(cell.values),
        "settings": settings,
        "recipe": learnt(result["recipe"]),
        "steps": result["steps"],
        "evaluation": compact_scores(result["evaluation"]),
        "untrained": compact_scores(result["untrained"]),
        "rank": compact_ranks(result["rank"]),
        **compact_evidence(result),
        "regularizers": result["regularizers"],
        "seconds": result["seconds"],
        "sslcollapse": packages.get("sslcollapse"),
        "plugins": environment.get("plugins", {}),
        "commit": environment.get("commit"),
        "device": environment.get("device"),
        "torch": packages.get("torch"),
        "torch_geometric": packages.get("torch_geometric"),
        "threads": environment.get("threads"),
        "streams": environment.get("streams", FIRST_STREAMS),
    }


def _written(path: Path, fields: Mapping[str, type]) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if fault := lacking(value, fields):
            raise ValueError(fault)
        return value
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedRunError(
            f"{path}: damaged ({error}); delete {path.parent}, and the same command makes this run again"
        ) from error


def _parsed(line: bytes) -> tuple[Key, dict[str, Any]]:
    try:
        record = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if fault := lacking(record, RECORD):
        raise ValueError(fault)
    return (record["hash"], record["seed"]), record


def _whole(line: bytes) -> tuple[Key, dict[str, Any]] | None:
    """The record of a last line; None where a crash has torn it."""
    try:
        return _parsed(line)
    except ValueError:
        return None


def _end_last_line(file: BinaryIO) -> None:
    """Give a whole last line its end, and cut off one that is no record; no more of the file is read than that line."""
    size = place = file.seek(0, os.SEEK_END)
    last = b""
    while place > 0 and b"\n" not in last:
        step = min(place, max(BLOCK, len(last)))
        place -= step
        file.seek(place)
        last = file.read(step) + last
    last = last[last.rfind(b"\n") + 1 :]
    if last and _whole(last):
        file.write(b"\n")
    elif last:
        file.truncate(size - len(last))


class Failures:
    """``failures.json``, which is there only while a run of the ablation has failed.

    Args:
        path: the file; read now.

    Raises:
        RunError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            self._entries = {key: {**entry, "error": str(entry["error"])} for key, entry in found.items()}
        except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
            raise RunError(f"{path}: cannot be read ({error}); delete it, failed runs are then not listed") from error

    def __contains__(self, job: Job) -> bool:
        return job.key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def error(self, job: Job) -> str:
        """What went wrong."""
        return self._entries[job.key]["error"]

    @property
    def errors(self) -> dict[str, str]:
        """``Job.key`` → what went wrong."""
        return {key: entry["error"] for key, entry in sorted(self._entries.items())}

    def add(self, job: Job, error: str) -> None:
        """Keep the newest failure of a run."""
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._entries[job.key] = {"error": error, "time": time, "log": str(job.log)}
        self._write()

    def discard(self, job: Job) -> None:
        """Forget that a run failed, since it has finished."""
        if self._entries.pop(job.key, None) is not None:
            self._write()

    def _write(self) -> None:
        from sslcollapse.core.files import write_atomic

        if self._entries:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, (json.dumps(self._entries, indent=2, sort_keys=True) + "\n").encode())
        else:
            self.path.unlink(missing_ok=True)
