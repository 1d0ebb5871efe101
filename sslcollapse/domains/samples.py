"""``SampleDomain``: a domain that is made of samples and an augmentation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import DataError, RecipeError, named
from sslcollapse.core.memory import onto
from sslcollapse.core.seeding import generator
from sslcollapse.core.types import Batch, Context, ProbeSet, Split
from sslcollapse.domains.base import CPU, Domain, Order, evenly_spaced, flat_rows, fraction_split
from sslcollapse.domains.sheet import write_sheet
from sslcollapse.recipe.schema import AtLeast

PROBE_BATCH = 512
"""Un-augmented samples that are made at a time."""


@dataclass(frozen=True)
class Samples:
    """What a ``SampleDomain`` has read.

    Args:
        data: N samples: a tensor or array [N, ...], or anything with ``len(data)`` and ``data[i]``.
        labels: [N] classes, -1 where a sample has none; [N, C] of 0 and 1 where it can have several; None without any.
        splits: name → train, validation and test rows, for probes. By default ``"public"`` is one split of the labelled
            samples: 80 % of each class to train on, 10 % to validate, 10 % to test, always the same.
        pretrain: rows to pre-train on. By default all training rows of the splits, or all rows where there is no split.
    """

    data: Any
    labels: Any = None
    splits: Mapping[str, Sequence[Split]] | None = None
    pretrain: Any = None


class SampleDomain(Domain):
    """A domain of samples that do not depend on each other; two views of each by an augmentation.

    A subclass has ``kind``, ``in_shape``, ``read`` and ``augment``, and what it wants to change of the rest:

        class Sentences(SampleDomain):
            kind, in_shape = "sequence", (32,)

            def read(self):
                return Samples(tokens, labels)  # [N, 32], [N]

            def augment(self, batch, rng):
                return batch * (torch.rand(batch.shape, generator=rng) < 0.9)

    Args:
        data_root: folder of data files, for ``read``.
        batch_size: samples a step over all ranks, each of which makes the views of its share.

    Attributes:
        samples: what ``read`` returned; there after ``load``.
        views: how many views a batch has.

    Batches are made in the process that trains. An epoch is a permutation of the rows drawn from (seed, epoch), and
    view v of step k is drawn from (seed, k, rank, v), all on the CPU, so that every device has the same views.
    """

    views: int = 2
    samples: Samples

    def __init__(self, data_root: Path, *, batch_size: Annotated[int, AtLeast(2)] = 64) -> None:
        if batch_size < 2:
            raise RecipeError(f"domain.batch_size: must be >= 2, got {batch_size}")
        self.data_root, self.batch_size = data_root, batch_size

    @abstractmethod
    def read(self) -> Samples:
        """The samples. Called once, by ``load``; raises MissingDataError or DataError."""
        ...

    @abstractmethod
    def augment(self, batch: Any, rng: torch.Generator) -> Any:
        """One view of some samples; the only random numbers are those of ``rng``, which is on the CPU.

        Called once a view and step, with what ``take`` returns. A view is whatever the encoders of this kind read:
        tensors in it, in lists, tuples and dicts, and what has a ``to(device)`` are moved to the device.
        """
        ...

    def plain(self, batch: Any) -> Any:
        """The un-augmented view of some samples, for probes and ranks; by default the samples as they are."""
        return batch

    def take(self, rows: Tensor) -> Any:
        """The samples of these rows [B]: of tensors and arrays a tensor [B, ...], of anything else a list."""
        data = self.samples.data
        if isinstance(data, np.ndarray):
            return torch.from_numpy(data[rows.numpy()])
        return data[rows] if isinstance(data, Tensor) else [data[row] for row in rows.tolist()]

    def show(self, view: Any) -> Sequence[Any] | None:
        """Each sample of a view as something that ``draw`` draws: a text, or a tensor [d], [H, W] or [C, H, W].

        None, where it cannot be drawn. By default of a tensor or list its entries, which it can have one of a sample.
        """
        if isinstance(view, Tensor):
            return list(view) if 2 <= view.dim() <= 4 else None
        return [entry if isinstance(entry, str) else repr(entry) for entry in view] if type(view) is list else None

    def measurable(self, view: Any) -> Tensor | None:
        """Of a tensor its samples as rows, unless they have very many numbers; None of anything else."""
        return flat_rows(view) if isinstance(view, Tensor) and view.is_floating_point() else None

    def check(self, world_size: int) -> None:
        """Raise RecipeError for a batch size that ranks cannot share."""
        if self.batch_size % world_size:
            raise RecipeError(
                f"domain.batch_size: {self.batch_size} samples cannot be shared equally by {world_size} ranks; "
                f"use a multiple of {world_size}"
            )

    def load(self) -> None:
        """Read the samples, unless that is done.

        Raises:
            MissingDataError, DataError: see ``read``; samples, labels and splits that do not go together.
            RecipeError: a batch of more samples than there are to pre-train on.
        """
        if hasattr(self, "samples"):
            return
        samples = _complete(self._own("read"), type(self).__name__, self.num_classes)
        if self.batch_size > len(samples.pretrain):
            raise RecipeError(
                f"domain.batch_size: {self.batch_size} is more than the {len(samples.pretrain)} samples to "
                "pre-train on; lower it"
            )
        self.samples = samples

    def batches(self, start_step: int, context: Context) -> Iterator[Batch]:
        """Endless batches; batch k depends on (seed, k, rank, world size) only."""
        from accelerate.utils import send_to_device  # takes seconds, which a mistake in a recipe should not cost

        self.check(context.world_size)
        samples, device = self.samples, context.device
        for step, rows in Order(samples.pretrain, self.batch_size, context).places(start_step):
            batch, key = self._own("take", rows), (context.seed, step, context.rank)
            views = [self._view("augment", rows, batch, generator(CPU, "view", *key, k)) for k in range(self.views)]
            labels = None if self.num_classes is None else onto(device, samples.labels[rows])
            views = send_to_device(views, device, non_blocking=device.type != "cpu")
            yield Batch(views, onto(device, rows), labels, False, equal=True)

    def probe_set(self) -> ProbeSet:
        """Every sample un-augmented, made a batch at a time; labels and splits."""
        samples = self.samples
        assert samples.splits is not None
        if samples.labels is None:
            labels, classes = torch.full((len(samples.data),), -1), 0
        else:
            labels = samples.labels
            classes = self.num_classes or (int(labels.max()) + 1 if labels.dim() == 1 else labels.shape[1])
        return ProbeSet(PlainViews(self, torch.arange(len(labels))), labels, classes, samples.splits)

    def draw(self, path: Path, samples: int, seed: int) -> None:
        """Write a picture with a row for each of some samples to pre-train on: itself, then four draws of its views."""
        known = self.samples.pretrain
        rows = known[torch.linspace(0, len(known) - 1, min(samples, len(known))).long()]
        batch = self._own("take", rows)
        views = [self._view("plain", rows, batch)]
        views += [self._view("augment", rows, batch, generator(CPU, "sheet", seed, draw, 0)) for draw in range(4)]
        with named(f"domain: {type(self).__name__}.show"):
            columns = [self.show(view) for view in views]
        if any(column is None or len(column) != len(rows) for column in columns):
            raise RecipeError(
                f"domain.type: the views of {type(self).__name__} cannot be drawn: a view is a "
                f"{type(views[0]).__name__}; give it a method show(view) that returns a text or a tensor of each sample"
            )
        write_sheet([list(row) for row in zip(*(column or () for column in columns), strict=True)], path)

    def _own(self, method: str, *given: Any) -> Any:
        """What a method that a subclass may write returns; an error in it, or None, is said to be of that method.

        Raises:
            RecipeError: see ``sslcollapse.core.errors.named``.
        """
        name = f"{type(self).__name__}.{method}"
        with named(f"domain: {name}"):
            made = getattr(self, method)(*given)
        if made is None:
            raise RecipeError(f"domain: {name} returned None; let it return what it has made")
        return made

    def _view(self, method: str, rows: Tensor, *given: Any) -> Any:
        """The view of some rows that ``augment`` or ``plain`` makes.

        Raises:
            RecipeError: see ``_own``; or the view has another number of samples, where its length is their number.
        """
        view = self._own(method, *given)
        if (made := _count(view)) not in (None, len(rows)):
            raise RecipeError(
                f"domain.{method}: {type(self).__name__}.{method} returned a view of {made} samples for a batch of "
                f"{len(rows)}; a view has each sample of the batch once, in the same order"
            )
        return view


@dataclass(frozen=True)
class PlainViews:
    """The un-augmented views of some rows of a ``SampleDomain`` in order, made a batch at a time.

    Args:
        domain: that has been loaded.
        rows: which samples [N].
        batch: samples an item; the last item has the rest.
        device: of the items.
    """

    domain: SampleDomain
    rows: Tensor
    batch: int = PROBE_BATCH
    device: torch.device = field(default=CPU)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch)

    def __getitem__(self, index: int) -> Any:
        from accelerate.utils import send_to_device

        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        rows = self.rows[position * self.batch : (position + 1) * self.batch]
        return send_to_device(self.domain._view("plain", rows, self.domain._own("take", rows)), self.device)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def to(self, device: torch.device) -> PlainViews:
        """The same views, on another device."""
        return replace(self, device=device)

    def subset(self, samples: int) -> PlainViews:
        """At most so many samples, evenly spaced, always the same ones."""
        return replace(self, rows=self.rows[evenly_spaced(len(self.rows), samples)])


def _count(view: Any) -> int | None:
    """How many samples a view has: rows of a tensor, entries of a list; None of what may be parts of one view."""
    if isinstance(view, (Tensor, np.ndarray)):
        return len(view) if view.ndim else None
    return (
        len(view) if type(view) is list and not any(isinstance(each, (Tensor, np.ndarray)) for each in view) else None
    )


def _complete(samples: Samples, domain: str, num_classes: int | None) -> Samples:
    """Samples with labels, splits and rows to pre-train on as tensors, filled in where they were left out.

    Raises:
        DataError: what does not go together; named.
    """
    if not isinstance(samples, Samples):
        raise DataError(f"{domain}.read() must return sslcollapse.Samples, got a {type(samples).__name__}")
    count, labels, splits = len(samples.data), samples.labels, samples.splits
    if labels is not None:
        labels = torch.as_tensor(labels)
        labels = labels.float() if labels.dim() == 2 else labels.long()
        if len(labels) != count:
            raise DataError(f"{domain}: {count} samples and {len(labels)} labels; every sample needs one, or -1")
        largest = int(labels.max()) if labels.dim() == 1 else labels.shape[1] - 1
        if num_classes is not None and largest >= num_classes:
            raise DataError(f"{domain}: num_classes is {num_classes}, and there is a label {largest}")
    elif num_classes is not None:
        raise DataError(f"{domain}: num_classes is {num_classes}, and read() gave no labels")
    if splits is None:
        splits = {} if labels is None else {"public": [fraction_split(labels.numpy())]}
    pretrain = samples.pretrain
    if pretrain is None:
        known = [split.train for several in splits.values() for split in several]
        pretrain = np.unique(np.concatenate(known)) if known else np.arange(count)
    pretrain = torch.as_tensor(pretrain).long()
    rows = [pretrain.numpy(), *(p for s in splits.values() for t in s for p in (t.train, t.validation, t.test))]
    for part in rows:
        if len(part) and not 0 <= part.min() <= part.max() < count:
            raise DataError(f"{domain}: a split or pretrain names a row outside 0..{count - 1}")
    return Samples(samples.data, labels, splits, pretrain)
