"""From a resolved recipe to its domain and its networks, and what only both together can tell to be wrong."""

from __future__ import annotations

import copy
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError, RunError, SSLCollapseError, place
from sslcollapse.core.memory import bounded
from sslcollapse.core.registry import CONSTRAINTS, DOMAINS, REGISTRIES
from sslcollapse.core.types import Batch, Context, LazyViews, Partwise, ProbeSet
from sslcollapse.domains.base import Domain
from sslcollapse.layers.map import layer_map
from sslcollapse.rank.recorder import evaluating
from sslcollapse.regularizers.constraints import Constrained
from sslcollapse.training.encoder import encoder_from_recipe
from sslcollapse.training.module import SSLModule

DATA_ROOT_VARIABLE = "SSLCOLLAPSE_DATA"
KEPT_BYTES = 1 << 30
SHEET_ROWS = 100
"""Most rows of a contact sheet."""


def data_root(recipe: Mapping[str, Any]) -> Path:
    """The recipe's ``data_root``, else the environment variable ``SSLCOLLAPSE_DATA``, else ``./data``."""
    return Path(recipe["data_root"] or os.environ.get(DATA_ROOT_VARIABLE) or "data")


def build_domain(recipe: Mapping[str, Any]) -> Domain:
    """The recipe's domain; reads no data."""
    return DOMAINS.build(recipe["domain"], data_root(recipe))


class Datasets:
    """Data that were read by one run of a process and are used by the next: each run gets a copy of its own.

    Args:
        most: bytes of data that are kept; larger ones are read for each run.
    """

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most = most
        self._kept: dict[str, Any] = {}

    def load(self, domain: Domain) -> None:
        """Let a domain have its data: a copy of what is kept, else what it reads, of which a copy is kept.

        Raises:
            MissingDataError, DataError, RecipeError: see the domain's ``load``.
        """
        # A subclass may change what it has read, so it has to say for itself that its data can be kept.
        key = domain.data_key() if "data_key" in vars(type(domain)) else None
        if key in self._kept:
            domain.use(_copied(self._kept[key]))
        domain.load()  # also makes sure that the data fit the recipe
        data = None if key is None or key in self._kept else domain.loaded()
        if key is not None and data is not None and size_of([data, *self._kept.values()]) <= self._most:
            self._kept[key] = _copied(data)


def size_of(data: Any) -> int:
    """Bytes of all tensors and arrays in nested containers and objects."""
    size = 0
    for each in _arrays(data):
        csr = isinstance(each, torch.Tensor) and each.layout == torch.sparse_csr
        parts = (each.values(), each.col_indices(), each.crow_indices()) if csr else (each,)
        size += sum(part.nbytes for part in parts)
    return size


def _copied(data: Any) -> Any:
    """``copy.deepcopy``, which does not know sparse rows by itself: torch has no storage of them."""
    sparse = [x for x in _arrays(data) if isinstance(x, torch.Tensor) and x.layout == torch.sparse_csr]
    return copy.deepcopy(data, {id(x): x.clone() for x in sparse})


def _arrays(data: Any) -> Iterator[Any]:
    """All tensors and arrays in nested containers and objects."""
    if isinstance(data, (torch.Tensor, np.ndarray)):
        yield data
    elif isinstance(data, (list, tuple)):
        for each in data:
            yield from _arrays(each)
    elif isinstance(data, Mapping) or hasattr(data, "__dict__"):
        yield from _arrays(list((data if isinstance(data, Mapping) else vars(data)).values()))


def build_module(recipe: Mapping[str, Any], domain: Domain) -> SSLModule:
    """All networks of a resolved recipe, initialised from its seed; the same on every rank.

    Raises:
        RecipeError: parts that do not go together.
    """
    _check_kind(recipe, domain, "encoder", "objective")
    torch.manual_seed(recipe["seed"])
    with bounded(recipe):
        module = SSLModule.from_recipe(recipe, domain.in_shape, domain.num_classes)
    _check_accumulation(recipe, module)
    return module


def build_encoder(recipe: Mapping[str, Any], domain: Domain) -> Any:
    """The untrained encoder that ``build_module`` has, with plain weights; needs few other parts of the recipe.

    Raises:
        RecipeError: an encoder that does not read the domain's views.
    """
    _check_kind(recipe, domain, "encoder")
    torch.manual_seed(recipe["seed"])
    encoder = encoder_from_recipe(recipe, domain.in_shape)
    if recipe.get("constraints"):
        constraints = {name: CONSTRAINTS.build(spec) for name, spec in recipe["constraints"].items()}
        encoder = Constrained(constraints, encoder, layer_map(encoder), heads=False).released(encoder)
    return encoder


def checked_batches(domain: Domain, start_step: int, context: Context) -> Generator[Batch, None, None]:
    """The batches of a domain, each of which is looked at before it is given on.

    Raises:
        RecipeError: what the domain gives is no iterator, no ``Batch``, or not the first batch that it should be.
        RunError: the batches have come to an end.
    """
    batches: Any = domain.batches(start_step, context)
    name = type(domain).__name__
    if not isinstance(batches, Iterator):
        raise RecipeError(
            f"domain: {name}.batches() returned a {type(batches).__name__}, where an iterator without end is needed: "
            "yield batches in `while True`, or return one with __next__"
        )
    made = 0
    try:
        for batch in batches:
            if not isinstance(batch, Batch):
                raise RecipeError(
                    f"domain: {name}.batches() made a {type(batch).__name__}, where a sslcollapse.Batch(views, index, "
                    "labels, replicated) is needed"
                )
            if not made:
                _check_first(domain, batch)
            made += 1
            yield batch
    finally:
        if (close := getattr(batches, "close", None)) is not None:  # of a generator: ends its worker processes
            close()
    raise RunError(
        f"domain: {name}.batches() ended after {made} batches from step {start_step} on; they must not end: go round "
        "again, in another order"
    )


def _check_first(domain: Domain, batch: Batch) -> None:
    name, index, labels = type(domain).__name__, batch.index, batch.labels
    if isinstance(batch.views, torch.Tensor) or not isinstance(batch.views, Sequence) or not len(batch.views):
        raise RecipeError(
            f"domain: Batch.views of {name} must be a list with one entry a view, got a {type(batch.views).__name__}"
        )
    if not isinstance(index, torch.Tensor) or index.dim() != 1 or index.is_floating_point():
        raise RecipeError(f"domain: Batch.index of {name} must be a tensor of whole numbers [B], got {index!r:.80}")
    if (labels is None) != (domain.num_classes is None):
        raise RecipeError(
            f"domain: {name}.num_classes is {domain.num_classes}, and Batch.labels is "
            f"{'None' if labels is None else 'not None'}; a domain whose batches have labels says how many classes"
        )
    largest = -1 if labels is None or labels.dim() != 1 else int(labels.max())
    if domain.num_classes is not None and largest >= domain.num_classes:
        raise RecipeError(f"domain: {name}.num_classes is {domain.num_classes}, and there is a label {largest}")


@torch.no_grad()
def check_batch(module: SSLModule, batch: Batch) -> None:
    """Try on a batch, in eval mode, what a step of training will ever do with it but the loss of the objective.

    That is one forward pass, and the feature penalties of all steps, some of which may start late.

    Raises:
        RecipeError: a part that cannot read what it is given, by its place in the recipe.
    """
    observed = list(module.observed())
    gather = Gather(enabled=not batch.replicated, equal=batch.equal)
    with evaluating(module):
        branches = []
        with module.outputs_of((kind for _, kind in observed), gather) as outputs:
            for view in batch.views:
                with _tried("encoder", f"the views of this domain ({type(view).__name__})"):
                    branches.append(module.branch(view))
                _check_representation(module.encoder, branches[-1].h)
        for name, kind in observed:
            try:
                features = module.features(kind, branches, outputs)
            except RecipeError as error:
                raise RecipeError(f"regularizers.{name}.on: {error}") from error
            with _tried(f"regularizers.{name}", f"the {kind} of a batch, {[list(each.shape) for each in features]}"):
                module.regularizers[name](features, gather, 0)


@torch.no_grad()
def check_probe_views(encoder: Any, probe_set: ProbeSet, *, labelled: bool) -> None:
    """Try the first inputs of a probe set on an encoder.

    Args:
        encoder: one view in, [N, out_dim] out.
        probe_set: with inputs.
        labelled: whether there has to be one row a label.

    Raises:
        RecipeError: it cannot read them, or they are not as many as the labels.
    """
    views, _ = probe_set.measured(2)
    view = next(iter(views))
    if isinstance(view, Partwise):  # its parts are as a batch's, which has been tried
        view.check(encoder)
        count = len(view)
    else:
        with evaluating(encoder), _tried("encoder", "the inputs of the probe set"):
            h = encoder(view)
        _check_representation(encoder, h)
        count = len(h)
    whole = not isinstance(probe_set.views, LazyViews) and len(probe_set.views) == 1
    if labelled and whole and count != len(probe_set.labels):
        raise RecipeError(
            f"domain: its probe set has {len(probe_set.labels)} labels and inputs of {count} samples; a probe needs "
            "one label for each, or pre-train without probes (evaluate={})"
        )


@contextmanager
def _tried(part: str, what: str) -> Iterator[None]:
    try:
        yield
    except (SSLCollapseError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise RecipeError(f"{part}: cannot read {what}: {type(error).__name__}: {error}{place(error)}") from error


def _check_representation(encoder: Any, h: Any) -> None:
    if not isinstance(h, torch.Tensor) or h.dim() != 2 or h.shape[1] != encoder.out_dim:
        got = f"shape {list(h.shape)}" if isinstance(h, torch.Tensor) else f"a {type(h).__name__}"
        raise RecipeError(
            f"encoder: it returned {got} for a view, where [N, {encoder.out_dim}] is needed (out_dim is "
            f"{encoder.out_dim}); pool over what is left, or set out_dim"
        )


def draw_views(recipe: Mapping[str, Any], path: Path, samples: int) -> Path:
    """Write a contact sheet of the views that a resolved recipe makes; return its path.

    Raises:
        RecipeError: a domain whose views cannot be drawn, too many samples, or a file that cannot be written.
        MissingDataError, DataError: see the domain.
    """
    if samples > SHEET_ROWS:  # the whole sheet is in memory
        raise RecipeError(f"--samples: a sheet has at most {SHEET_ROWS} rows, got {samples}")
    domain = build_domain(recipe)
    domain.load()
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
        networks = [module.encoder, module.projector, module.predictor, module.decoder]
        if module.target is not None:
            networks += [module.target.encoder, module.target.projector]
        for network in networks:
            if network is not None:
                network.compile()  # in place, so that names of parameters and of layers stay


def _check_kind(recipe: Mapping[str, Any], domain: Domain, *kinds: str) -> None:
    """Refuse components that say that they read other kinds of input; one that says nothing is tried on a batch."""
    of = recipe["domain"]["type"]
    for kind in kinds:
        name = recipe[kind]["type"]
        reads = getattr(REGISTRIES[kind].get(name), "reads", None)
        accepted = (reads,) if isinstance(reads, str) else reads
        if accepted is not None and domain.kind not in accepted:
            raise RecipeError(
                f"{kind}.type: {name!r} reads views of kind {', '.join(accepted)}, and those of the domain {of!r} are "
                f"of kind {domain.kind}; choose an {kind} that reads them"
            )


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
