"""The commands of the first minutes: ``init`` writes a recipe, ``doctor`` looks around, ``completion`` helps typing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sslcollapse.core.errors import RecipeError

Command = Callable[..., argparse.ArgumentParser]
SHELLS = ("bash", "zsh", "tcsh")

BEGINNINGS: Mapping[str, Mapping[str, Any]] = {
    "graph": {
        "domain": {
            "type": "graph",
            "dataset": {"type": "digits"},
            "views": {"edge_drop": [0.4, 0.3], "feature_mask": [0.3, 0.2]},
        },
        "encoder": {"type": "gcn", "hidden": [256, 128]},
        "optim": {"type": "adamw", "lr": 1e-3, "weight_decay": 1e-5, "warmup_steps": 50},
        "train": {"steps": 500},
        "evaluate": {"public": {"type": "logistic", "split": "public"}},
    },
    "vision": {
        "domain": {
            "type": "vision",
            "dataset": {"type": "digits"},
            "views": {"crop_scale": [0.4, 1.0], "flip": 0.0, "jitter": [0.4, 0.4, 0.0, 0.0]},
            "batch_size": 250,
        },
        "encoder": {"type": "resnet_narrow", "width": 32},
        "optim": {"type": "adamw", "lr": 2e-3, "weight_decay": 1e-4, "warmup_steps": 20},
        "train": {"steps": 200},
        "evaluate": {"knn": {"type": "knn", "k": 20}},
    },
    "toy": {
        "domain": {"type": "toy", "dim": 16, "views": {"noise": 0.5}, "batch_size": 128},
        "encoder": {"type": "linear", "hidden": [16, 16]},
        "optim": {"type": "sgd", "lr": 1e-2, "weight_decay": 0.0},
        "train": {"steps": 1000},
        "evaluate": {},
    },
}
"""Domain → the rest of a recipe that needs no files and trains within minutes on a processor."""

HEADS: Mapping[str, Mapping[str, Any]] = {
    "bgrl": {"predictor_hidden": 256, "momentum": 0.99},
    "byol": {"projector": [256, 64], "predictor_hidden": 256, "momentum": 0.99},
    "simsiam": {"projector": [256, 256], "predictor_hidden": 64},
    "simclr": {"projector": [256, 64], "temperature": 0.2},
    "vicreg": {"projector": [256, 256]},
    "barlow_twins": {"projector": [256, 256]},
    "cca_ssg": {"projector": [128]},
}
"""Objective → widths that fit the encoders above; published ones are for larger networks."""

PARTS = {
    "domain": ("domain", "where batches come from, and how two views of a sample are made"),
    "encoder": ("encoder", "the network whose representations are wanted"),
    "objective": ("objective", "the loss, and the heads that it needs"),
    "regularizers": ("regularizer", "penalties, any number of them under names of your own; {} for none"),
    "optim": ("optimizer", "the optimizer and its learning rate, a function of the step"),
    "train": (None, "steps; also precision, compile, checkpoint_every and more"),
    "monitor": (None, "steps between two measurements of the rank of every layer"),
    "evaluate": ("probe", "what judges frozen representations after the last step"),
}
"""Part of a recipe → the kind of its component, and what it is for."""


def add_commands(commands: Any, command: Command) -> None:
    """Add the three to a parser, each with ``command(commands, name, run, summary)``."""
    init = command(commands, "init", _init, "write a recipe with comments, to train and to change")
    init.add_argument(
        "file", nargs="?", type=Path, default=Path("recipe.py"), metavar="FILE", help="default: recipe.py"
    )
    init.add_argument("--domain", default="graph", metavar="NAME", help=f"{', '.join(BEGINNINGS)} (default: graph)")
    init.add_argument("--objective", metavar="NAME", help="see `sslcollapse list objective` (default: bgrl or simclr)")
    init.add_argument("--regularizer", default="werank", metavar="NAME", help="or none (default: werank)")

    doctor = command(commands, "doctor", _doctor, "say what is installed, which devices and data there are, what fails")
    doctor.add_argument("--json", action="store_true", help="as JSON")

    completion = command(commands, "completion", _completion, "print a script that completes commands in a shell")
    completion.add_argument("shell", choices=SHELLS)


def _init(options: argparse.Namespace) -> int:
    text = starter(options.file.stem, options.domain, options.objective, options.regularizer)
    if options.file.exists():
        raise RecipeError(f"{options.file}: there is a file of this name already; choose another one")
    from sslcollapse.core.files import write_atomic

    write_atomic(options.file, text.encode())
    print(f"wrote {options.file}; train it with: sslcollapse train {options.file}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from sslcollapse.training.doctor import examine, shown

    found = examine()
    print(json.dumps(found, indent=2) if options.json else shown(found))
    return 1 if found["problems"] else 0


def _completion(options: argparse.Namespace) -> int:
    import shtab

    from sslcollapse.cli import _parser

    parser = _parser()
    for each in _parsers(parser):
        for action in each._actions:
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell=options.shell))
    return 0


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def starter(name: str, domain: str, objective: str | None = None, regularizer: str = "werank") -> str:
    """The text of a recipe with comments, made of components that go together.

    Args:
        name: of the recipe.
        domain: one that ``BEGINNINGS`` has.
        objective: any that is registered; by default what is usual for the domain.
        regularizer: any that is registered, or ``"none"``.

    Raises:
        RecipeError: the parts are unknown, or do not make a recipe; the message is that of the check.
    """
    from sslcollapse.core.errors import suggest
    from sslcollapse.recipe import resolve

    if domain not in BEGINNINGS:
        raise RecipeError(
            f"--domain {domain}: there is no beginning for it{suggest(domain, list(BEGINNINGS))} (known: "
            f"{', '.join(BEGINNINGS)}); a recipe for another domain extends an example of its package"
        )
    objective = objective or ("bgrl" if domain == "graph" else "simclr")
    begun = BEGINNINGS[domain]
    penalties = {} if regularizer == "none" else {regularizer: {"type": regularizer}}
    recipe = {
        "name": name,
        "seed": 0,
        "domain": begun["domain"],
        "encoder": begun["encoder"],
        "objective": {"type": objective, **HEADS.get(objective, {})},
        "regularizers": penalties,
        "optim": begun["optim"],
        "train": begun["train"],
        "monitor": {"every": 50},
        "evaluate": begun["evaluate"],
    }
    resolved = resolve(recipe)
    if regularizer != "none":
        penalties[regularizer]["coefficient"] = resolved["regularizers"][regularizer]["coefficient"]
    return _written(recipe)


def _written(recipe: Mapping[str, Any]) -> str:
    parts = [recipe["domain"], recipe["encoder"], recipe["objective"]]
    described = ", ".join(part["type"] for part in parts)
    lines = [
        f'"""{described}: change what you like.',
        "",
        "`sslcollapse list KIND` shows what there is, `sslcollapse list KIND NAME` the arguments of one. To change",
        "a setting for one run: `sslcollapse train FILE train.steps=50`. `--dry-run` shows defaults too.",
        '"""',
        "",
        "recipe = dict(",
    ]
    for key, value in recipe.items():
        kind, words = PARTS.get(key, (None, ""))
        if words:
            lines.append(f"    # {key}: {words}" + (f" (`sslcollapse list {kind}`)" if kind else ""))
        lines += _entry(key, value, 1)
    return "\n".join([*lines, ")"]) + "\n"


def _entry(key: str, value: Any, depth: int) -> list[str]:
    """Lines of one entry: short dicts on one line, longer ones with a line an entry."""
    margin, flat = "    " * depth, f"{key}={_inline(value)},"
    if not isinstance(value, Mapping) or len(margin) + len(flat) <= 88:
        return [margin + flat]
    inner = [line for name, item in value.items() for line in _entry(name, item, depth + 1)]
    return [f"{margin}{key}=dict(", *inner, f"{margin}),"]


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"dict({', '.join(f'{key}={_inline(item)}' for key, item in value.items())})"
    return json.dumps(value) if isinstance(value, str) else repr(value)
