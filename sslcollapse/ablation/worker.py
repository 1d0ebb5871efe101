"""One run in a process of its own: ``python -m sslcollapse.ablation.worker < job``.

The first line of standard input is the job as JSON. The pipe then stays open, and the worker ends when it
closes, so that no run outlives an ablation that was killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from sslcollapse.errors import SSLCollapseError


def main() -> int:
    """Train what the job says; errors meant for people are shown as one line."""
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from sslcollapse.recipe import load
    from sslcollapse.trainer import train

    try:
        load(job["source"])  # may register components; the recipe itself is the one resolved by the parent
        train(
            job["recipe"],
            out=Path(job["out"]),
            resume=job["resume"],
            overwrite=job["overwrite"],
            command=job["command"],
        )
    except SSLCollapseError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


def _end_with_parent() -> None:
    while os.read(0, 4096):  # not sys.stdin, whose lock a waiting thread would hold when the interpreter ends
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
