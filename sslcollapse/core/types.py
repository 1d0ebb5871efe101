"""The small types that domains, modules, probes and the trainer exchange."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor


class Batch(NamedTuple):
    """What a domain yields for one training step.

    Shapes:
        views: one entry a view, whatever the encoders of the domain read; for images a tensor [B, C, H, W], for graphs
            a ``GraphView``.
        index: [B] dataset indices of the samples (for graph batches, of the graphs).
        labels: [B] or None; never used by an objective, only by an online probe.
        replicated: every rank holds the same samples (full-batch graphs), so nothing is gathered.
        equal: every rank holds as many samples, so that what is gathered need not be compared at every step.
    """

    views: Sequence[Any]
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody calls here
    labels: Tensor | None
    replicated: bool
    equal: bool = False


class Branch(NamedTuple):
    """One view through one network: representation h, embedding z, prediction p ([N, d] each)."""

    h: Tensor
    z: Tensor
    p: Tensor | None


@dataclass(frozen=True)
class Context:
    """Where and with which randomness a domain makes its batches."""

    seed: int = 0
    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class Point(NamedTuple):
    """Something whose rank is measured: the output or the weight of a layer, or a kind of feature."""

    kind: Literal["output", "weight", "feature"]
    name: str

    @property
    def key(self) -> str:
        """What its spectrum is called: ``weight/convs.0``, ``output/convs.0``, ``representation``."""
        return self.name if self.kind == "feature" else f"{self.kind}/{self.name}"


@dataclass(frozen=True)
class Split:
    """Row indices (int64) of one train / validation / test division of a probe set."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@runtime_checkable
class LazyViews(Protocol):
    """Encoder inputs that are made one batch at a time, where all at once would not fit."""

    def __len__(self) -> int:
        """Number of batches."""
        ...

    def __getitem__(self, index: int) -> Tensor:
        """Batch ``index``, [B, ...]; IndexError after the last."""
        ...

    def __iter__(self) -> Iterator[Tensor]:
        """All batches in order."""
        ...

    def to(self, device: torch.device) -> LazyViews:
        """The same inputs, made on another device."""
        ...

    def subset(self, samples: int) -> LazyViews:
        """At most this many samples, evenly spaced, always the same ones."""
        ...


@dataclass(frozen=True)
class ProbeSet:
    """Un-augmented inputs with labels and fixed splits, for evaluation and rank measurement.

    Shapes:
        views: encoder inputs, a list or ``LazyViews``; their representations, concatenated, are the N rows.
        labels: [N] int64 classes, or [N, C] float32 in {0, 1} for multi-label sets.
        splits: name → fixed splits (``"public"``: one for Cora, 10 for WebKB, 20 for WikiCS).
    """

    views: Sequence[Any] | LazyViews
    labels: Tensor
    num_classes: int
    splits: Mapping[str, Sequence[Split]]

    @property
    def multilabel(self) -> bool:
        """Whether a sample can have several labels."""
        return self.labels.dim() == 2

    def to(self, device: torch.device) -> ProbeSet:
        """The same set with its inputs on another device: tensors, what has a ``to(device)``, and lists of them."""
        from accelerate.utils import send_to_device  # takes seconds, which a mistake in a recipe should not cost

        views = self.views
        moved = views.to(device) if isinstance(views, LazyViews) else [send_to_device(view, device) for view in views]
        return replace(self, views=moved)

    def rank_views(self, samples: int) -> Sequence[Any] | LazyViews:
        """The inputs that ranks are measured on: all nodes of graphs, at most ``samples`` of lazily made inputs."""
        return self.views.subset(samples) if isinstance(self.views, LazyViews) else self.views


@runtime_checkable
class Domain(Protocol):
    """A source of batches of views and of a probe set; nothing else knows what the data are.

    A domain may also have ``measurable(view) -> Tensor | None``: the samples of a view as rows [N, d], or None where
    they have no fixed width or a very large one. It is asked on batches of training, for what two views share; a domain
    without it has no such measurement of the views themselves.

    Attributes:
        in_shape: of one sample of a view, known before data are read: (F,) for graphs, (C, H, W) for images.
        num_classes: classes of ``Batch.labels``; None where batches have no labels.
        replicated: whether every rank gets the same samples.
    """

    in_shape: tuple[int, ...]
    num_classes: int | None
    replicated: bool

    def describe(self) -> str:
        """One line on the data that will be read."""
        ...

    def check(self, world_size: int) -> None:
        """Raise RecipeError for settings that this many ranks cannot share; reads no data."""
        ...

    def load(self) -> None:
        """Read the data, or raise MissingDataError or DataError; called before batches and probe set are asked for."""
        ...

    def notice(self, world_size: int) -> str | None:
        """What the log should say about several ranks, or None."""
        ...

    def batches(self, start_step: int, context: Context) -> Iterator[Batch]:
        """Endless batches from ``start_step``; batch k depends on (seed, k, rank) only.

        After training rank 0 asks for batches again, with a context of one rank, whatever trained.
        """
        ...

    def probe_set(self) -> ProbeSet:
        """Un-augmented inputs, labels and fixed splits."""
        ...
