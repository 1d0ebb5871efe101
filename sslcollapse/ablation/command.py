"""The command of an ablation as its page has it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

PREFIX = ("sslcollapse", "ablate")


def command_line(
    targets: Sequence[Path],
    grid: Sequence[str],
    seeds: int | None,
    baseline: Sequence[str],
    name: str | None,
    overrides: Sequence[str],
) -> str:
    """What rebuilds the page, as it is typed in the current folder."""
    words = list(PREFIX)
    words += map(shown_path, targets)
    words += [word for axis in grid for word in ("--grid", axis)]
    words += [word for value in baseline for word in ("--baseline", value)]
    words += [] if seeds is None else ["--seeds", str(seeds)]
    words += [] if name is None else ["--name", name]
    return shlex.join([*words, *overrides])


def shown_path(path: Path) -> str:
    """A file as it is typed in the current folder; its name alone where it is elsewhere."""
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else path.name
