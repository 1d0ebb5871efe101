"""From a resolved recipe to its domain and its networks, and what only both together can tell to be wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslcollapse.errors import RecipeError
from sslcollapse.memory import bounded
from sslcollapse.module import SSLModule
from sslcollapse.registry import DOMAINS
from sslcollapse.types import Domain

DATA_ROOT_VARIABLE = "SSLCOLLAPSE_DATA"
SHEET_ROWS = 100
"""Most rows of a contact sheet."""


def data_root(recipe: Mapping[str, Any]) -> Path:
    """The recipe's ``data_root``, else the environment variable ``SSLCOLLAPSE_DATA``, else ``./data``."""
    return Path(recipe["data_root"] or os.environ.get(DATA_ROOT_VARIABLE) or "data")


def build_domain(recipe: Mapping[str, Any]) -> Domain:
    """The recipe's domain; reads no data."""
    return DOMAINS.build(recipe["domain"], data_root(recipe))


def build_module(recipe: Mapping[str, Any], domain: Domain) -> SSLModule:
    """All networks of a resolved recipe, initialised from its seed; the same on every rank.

    Raises:
        RecipeError: parts that do not go together.
    """
    torch.manual_seed(recipe["seed"])
    with bounded(recipe):
        module = SSLModule.from_recipe(recipe, domain.in_shape, domain.num_classes)
    _check_accumulation(recipe, module)
    return module


def draw_views(recipe: Mapping[str, Any], path: Path, samples: int) -> Path:
    """Write a contact sheet of the views that a resolved recipe makes; return its path.

    Raises:
        RecipeError: a domain whose views cannot be drawn, too many samples, or a file that cannot be written.
        MissingDataError, DataError: see the domain.
    """
    if samples > SHEET_ROWS:  # the whole sheet is in memory
        raise RecipeError(f"--samples: a sheet has at most {SHEET_ROWS} rows, got {samples}")
    domain: Any = build_domain(recipe)
    if not hasattr(domain, "draw"):
        kind = recipe["domain"]["type"]
        raise RecipeError(f"domain.type: the views of {kind!r} cannot be drawn: its domain has no method draw()")
    try:
        domain.draw(path, samples, recipe["seed"])
    except OSError as error:
        raise RecipeError(f"--out {path}: cannot be written: {error}") from error
    return path


def prepare_networks(recipe: Mapping[str, Any], module: SSLModule, domain: Domain, devices: int) -> None:
    """Memory format, SyncBatchNorm and compilation of a module that is about to be trained, in place.

    BatchNorm is synchronised between several GPUs that hold different samples. On a CPU it cannot be.
    """
    settings = recipe["train"]
    if settings["channels_last"]:
        module.to(memory_format=torch.channels_last)
    if settings["sync_batchnorm"] and devices > 1 and torch.cuda.is_available() and not domain.replicated:
        nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if settings["compile"]:
        networks = [module.encoder, module.projector, module.predictor]
        if module.target is not None:
            networks += [module.target.encoder, module.target.projector]
        for network in networks:
            if network is not None:
                network.compile()  # in place, so that names of parameters and of layers stay


def _check_accumulation(recipe: Mapping[str, Any], module: SSLModule) -> None:
    settings = recipe["train"]
    if settings["accumulate"] == 1:
        return
    coupled = {recipe["objective"]["type"] if name == "objective" else name for name in module.coupling()}
    refused = sorted(coupled - set(settings["accumulate_coupled"]))
    if refused:
        names = ", ".join(map(repr, refused))
        raise RecipeError(
            f"train.accumulate: {settings['accumulate']} batches are not one batch for {names}, whose loss couples the "
            f"samples of a batch; use a larger domain.batch_size or more ranks, or, if this is what you want, say "
            f"train.accumulate_coupled={refused!r}"
        )
