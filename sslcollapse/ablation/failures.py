"""Failed runs: what went wrong, when, and where the log is, until the run finishes."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

from sslcollapse.ablation.job import Job


class Failures:
    """``failures.json``, which is there only while a run of the ablation has failed.

    Args:
        path: the file; read now.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, dict[str, str]] = {}
        if path.exists():
            for key, entry in json.loads(path.read_text(encoding="utf-8")).items():
                self._entries[key] = {"error": entry} if isinstance(entry, str) else entry  # as once written

    def __contains__(self, job: Job) -> bool:
        return job.key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def error(self, job: Job) -> str:
        """What went wrong."""
        return self._entries[job.key]["error"]

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
        from sslcollapse.checkpoint import write_atomic

        if self._entries:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, (json.dumps(self._entries, indent=2, sort_keys=True) + "\n").encode())
        else:
            self.path.unlink(missing_ok=True)
