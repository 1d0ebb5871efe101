"""What a domain is, the order of its batches, and splits of its samples."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.core.registry import Registry
from sslcollapse.core.seeding import derive_seed, generator, permuted
from sslcollapse.core.types import Batch, Context, Neighbours, ProbeSet, Split

MAX_DIM = 3072
"""Samples of more numbers are not measured as rows; this is a CIFAR image."""

CPU = torch.device("cpu")


@runtime_checkable
class Domain(Protocol):
    """Where batches of views and the probe set come from. Nothing else knows what a view is made of.

    A class that derives from this one writes ``batches`` and ``probe_set``; everything else has a default. A class that
    does not derive from it must have all of it. ``samples.SampleDomain`` has both of them too.

    A run calls, on every rank unless said otherwise: the constructor, ``check``, ``load``, ``probe_set``, ``batches``,
    all before the first step; after the last step ``baselines``, and rank 0 alone ``batches`` and ``measurable``. What
    one rank raises in the first three is told to all of them.

    Attributes:
        kind: of input that a view is, in one word: ``"graph"``, ``"image"``, ``"sequence"``, ``"vector"``, or one of
            your own. An encoder that does not name it in its ``reads`` is refused, before data are read.
        in_shape: of one sample of a view: (F,) for nodes of a graph, (C, H, W) for images, (T,) for sequences of T
            tokens. It is the first argument of encoders, and is asked for before ``load``.
        num_classes: classes of ``Batch.labels``; None where batches have no labels. Asked for before ``load``.
        replicated: whether every rank gets the same samples, as of a graph that is one batch. Then nothing is gathered.
    """

    kind: str
    in_shape: tuple[int, ...]
    num_classes: int | None = None
    replicated: bool = False

    def describe(self) -> str:
        """One line on the data that will be read. Called on rank 0, by a dry run (before ``load``) and by a run."""
        return (type(self).__doc__ or type(self).__name__).strip().partition("\n")[0].rstrip(".")

    def check(self, world_size: int) -> None:
        """Raise RecipeError for settings that so many ranks cannot share; called once, before ``load``."""

    def load(self) -> None:
        """Read the data, or raise MissingDataError or DataError.

        Called once by ``train``, ``evaluate``, ``diagnose`` and ``views``, before ``batches``, ``probe_set`` and
        ``draw``. Every rank reads for itself.
        """

    def data_key(self) -> str | None:
        """What decides which data ``load`` reads, as text; None, the default, where no other run may use them.

        A worker of ``ablate`` that makes run after run asks for it before ``load``. What ``loaded`` returns is copied
        and kept under this key. The domain of a later run with the same key is given a copy by ``use``, then loaded. A
        subclass does not inherit it, since its ``load`` may do something else.
        """
        return None

    def loaded(self) -> Any:
        """The data that ``load`` has read, which ``copy.deepcopy`` can copy; None where they cannot be."""
        return None

    def use(self, data: Any) -> None:
        """Have these data, which ``load`` then need not read."""

    def notice(self, world_size: int) -> str | None:
        """What the log should say about so many ranks, or None. Called once, on rank 0."""
        return None

    @abstractmethod
    def batches(self, start_step: int, context: Context) -> Iterator[Batch]:
        """Batches without end, from ``start_step`` on; batch k depends on (seed, k, rank, world size) only.

        Called once before the first step, with the number of the batch to begin with, which is above 0 in a run that is
        resumed. Rank 0 calls it again after the last step with a context of one rank, whatever trained. One ``next`` is
        one batch of one rank, on ``context.device``; an iterator that has ``close`` is closed at the end.
        """
        ...

    @abstractmethod
    def probe_set(self) -> ProbeSet:
        """Un-augmented inputs, labels and fixed splits, always the same.

        Called once by ``train``, before the first step, and by ``evaluate`` and ``diagnose``. Rank 0 moves the inputs
        to its device and encodes them at every measurement and for the probes; the other ranks read the labels only.
        """
        ...

    def measurable(self, view: Any) -> Tensor | None:
        """The samples of a view as rows [N, d], or None where they have no fixed width, or a very large one.

        Called on rank 0 after the last step, on two views of each batch until there are ``monitor.samples`` rows, for
        what the views themselves share. With None that is not measured; what their representations share always is.
        """
        return None

    def baselines(self) -> Mapping[str, Callable[[Any], Tensor | None]]:
        """What a probe is given in place of representations, to see what it makes of the data without any encoder.

        Optional: a domain without this method, or with this default, has none. ``train`` calls it after the last step,
        ``evaluate`` after ``load``, on every rank; the functions are called on rank 0 alone, on un-augmented inputs.

        Returns:
            Name → function of one view of the probe set, which gives features [N, d], a row a label, or None where they
            would be too large. Names are words without dots; tables have a row for each, in this order. The functions
            depend on nothing but the view: what the probes make of the same features is computed once.
        """
        return {}

    def neighbours(self, view: Any) -> Neighbours | None:
        """Edges between the samples of a view, or None where there are none.

        Called on rank 0 at every measurement, on un-augmented views, where ``monitor.smoothness`` asks for it.
        """
        return None

    def draw(self, path: Path, samples: int, seed: int) -> None:
        """Write a picture of so many samples at most and of some of their views. Called by ``sslcollapse views``.

        Raises:
            RecipeError: the views of this domain, or views of this recipe, cannot be drawn.
        """
        raise RecipeError(
            f"domain.type: the views of {type(self).__name__} cannot be drawn: "
            "it has no method draw(path, samples, seed)"
        )


class FixedBatches(Protocol):
    """Batches that are made on the device, each by the same operations on tensors that stay where they are.

    A replicated domain whose batches can be made so has, beside the methods of ``Domain``, ``fixed_batches(context)``,
    which returns one of these. ``draw(k)`` and then ``batch()`` give the very batch k that ``batches`` gives. Steps of
    training can then be one CUDA graph.
    """

    def draw(self, step: int) -> None:
        """Write what is random in the batch of a step into fixed tensors; called before each step."""

    def batch(self) -> Batch:
        """The batch of what was drawn; no number of the host enters it, and the host waits for nothing."""
        ...


class BatchPlace(NamedTuple):
    """Where a batch is: its step, and the dataset rows [B] of this rank (on the CPU)."""

    step: int
    rows: Tensor


def dataset_key(registry: Registry, dataset: Mapping[str, Any], source: Any, *more: Any) -> str | None:
    """A ``data_key`` of a dataset of this package: its settings, and which files it reads, by their size and time.

    Args:
        registry: of its kind.
        dataset: of the recipe.
        source: what was built from it.
        more: settings that also decide what is read.
    """
    if registry.origin(dataset["type"]) is not None:  # what it does may change from run to run
        return None
    files = []
    for file in source.files():
        try:
            found = os.stat(file)
        except OSError:  # loading it says what to do
            return None
        files.append((str(file), found.st_size, found.st_mtime_ns))
    return json.dumps([registry.kind, dict(dataset), files, more], sort_keys=True, default=str)


KEYED_ORDER = 10_000_000
"""Samples from which on the order of an epoch is computed batch by batch; below, it is drawn at the epoch's start."""


@dataclass(frozen=True)
class Order:
    """Which rows each batch has.

    An epoch is a permutation of ``pretrain`` drawn from (seed, epoch); a last incomplete batch is left out. Each
    rank takes its slice of every batch, so that the ranks' slices in turn are the batch of one process. Of many samples
    (``KEYED_ORDER``) no permutation is made: a batch computes its own places of it.

    Args:
        pretrain: rows to pre-train on [P].
        batch_size: over all ranks; at most P.
        context: seed, rank and world size.
    """

    pretrain: Tensor
    batch_size: int
    context: Context

    def places(self, start_step: int) -> Iterator[BatchPlace]:
        """Endless places from a step on."""
        context, per_epoch = self.context, len(self.pretrain) // self.batch_size
        share = self.batch_size // context.world_size
        epoch, step = -1, start_step
        while True:
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = self._epoch(epoch)
            start = step % per_epoch * self.batch_size + context.rank * share
            yield BatchPlace(step, order(start, start + share))
            step += 1

    def _epoch(self, epoch: int) -> Callable[[int, int], Tensor]:
        """What gives the rows from one place of an epoch's order to another."""
        count, key = len(self.pretrain), ("order", self.context.seed, epoch)
        if count < KEYED_ORDER:
            order = self.pretrain[torch.randperm(count, generator=generator(CPU, *key))]
            return lambda start, stop: order[start:stop]
        number = derive_seed(*key)
        return lambda start, stop: self.pretrain[permuted(torch.arange(start, stop), count, number)]


def evenly_spaced(count: int, most: int) -> Tensor:
    """Of ``count`` rows at most so many, evenly spaced over them, always the same ones."""
    if most >= count:
        return torch.arange(count)
    return torch.linspace(0, count - 1, most, dtype=torch.float64).long()


def flat_rows(view: Tensor) -> Tensor | None:
    """[N, ...] → [N, d], or None where d is above ``MAX_DIM``."""
    return view.flatten(1) if view[0].numel() <= MAX_DIM else None


DIGITS = 1797
SMALLEST_DIGIT_CLASS = 174


def stratified_split(labels: np.ndarray, train: int, validation: int, seed: int) -> Split:
    """``train`` and ``validation`` samples of each class, drawn with this seed; the rest is test."""
    rng = np.random.default_rng([seed, 1])
    orders = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    cuts = (slice(train), slice(train, train + validation), slice(train + validation, None))
    return Split(*(np.sort(np.concatenate([order[cut] for order in orders])) for cut in cuts))


def check_parts(train: int, validation: int, smallest_class: int, samples: str) -> None:
    """Refuse ``train_per_class`` and ``validation_per_class`` that leave a part without samples of a class.

    Raises:
        RecipeError: names the argument and its value.
    """
    for name, number in (("train_per_class", train), ("validation_per_class", validation)):
        if number < 1:
            raise RecipeError(f"{name} must be >= 1, got {number}")
    if train + validation >= smallest_class:
        raise RecipeError(
            f"train_per_class {train} and validation_per_class {validation} leave no test {samples} in a class "
            f"of {smallest_class}"
        )


def fraction_split(labels: np.ndarray, train: float = 0.8, validation: float = 0.1, seed: int = 0) -> Split:
    """These shares of each class (of several labels a row: of all rows), drawn with this seed; the rest is test.

    Rows of class -1 are in no part.

    Raises:
        DataError: a part is empty.
    """
    rng = np.random.default_rng([seed, 2])
    classes = np.zeros(len(labels), dtype=np.int64) if labels.ndim == 2 else labels
    parts: list[list[np.ndarray]] = [[], [], []]
    for c in np.unique(classes[classes >= 0]):
        rows = rng.permutation(np.flatnonzero(classes == c))
        cuts = [round(train * len(rows)), round((train + validation) * len(rows))]
        for part, chosen in zip(parts, np.split(rows, cuts), strict=True):
            part.append(chosen)
    joined = [np.sort(np.concatenate(part)) if part else np.arange(0) for part in parts]
    if not all(len(part) for part in joined):
        raise DataError(
            f"{len(labels)} labels give parts of {[len(part) for part in joined]} rows to train on, validate and test; "
            "none may be empty: give splits of your own"
        )
    return Split(*joined)
