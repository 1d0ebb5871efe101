"""Failed runs: what went wrong, when, and where the log is, until the run finishes."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

from sslcollapse.ablation.job import Job
from sslcollapse.core.errors import RunError


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
