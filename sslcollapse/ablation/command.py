"""The command of an ablation as its page has it, written and read back."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from sslcollapse.ablation.grid import Ablation, plan
from sslcollapse.errors import RecipeError

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
    words += [os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else path.name for path in targets]
    words += [word for axis in grid for word in ("--grid", axis)]
    words += [word for value in baseline for word in ("--baseline", value)]
    words += [] if seeds is None else ["--seeds", str(seeds)]
    words += [] if name is None else ["--name", name]
    return shlex.join([*words, *overrides])


def plan_of(command: str, root: Path) -> Ablation:
    """The ablation of a ``command_line`` that was typed in ``root``.

    Raises:
        RecipeError: it is no such command, or describes no ablation any more.
    """
    words = shlex.split(command)
    if tuple(words[:2]) != PREFIX:
        raise RecipeError(f"{command!r} is no command of an ablation; it begins with {' '.join(PREFIX)}")
    options: dict[str, list[str]] = {"--grid": [], "--baseline": [], "--seeds": [], "--name": []}
    rest, following = [], iter(words[2:])
    for word in following:
        if word in options:
            options[word].append(next(following, ""))
        else:
            rest.append(word)
    targets = [root / word for word in rest if "=" not in word]
    if not targets:
        raise RecipeError(f"{command!r} names no ablation file or recipe")
    return plan(
        targets[0],
        options["--grid"],
        int(options["--seeds"][0]) if options["--seeds"] else None,
        [word for word in rest if "=" in word],
        baseline=options["--baseline"],
        others=targets[1:],
        name=options["--name"][0] if options["--name"] else None,
    )
