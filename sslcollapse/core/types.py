"""The small types that domains, modules, probes and the trainer exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

MEASURED = 4096
"""Samples that ranks are measured on, of inputs that are made a batch at a time, where nobody says how many."""


class Batch(NamedTuple):
    """What a domain yields for one training step.

    Shapes:
        views: one entry a view, whatever the encoders of the domain read; for images a tensor [B, C, H, W], for graphs
            a ``GraphView``. Of a view with ``sample_rows`` the first so many rows of its representation are samples.
        index: [B] dataset indices of the samples (for graph batches, of the graphs; for batches of nodes, of these).
        labels: [B] or None; never used by an objective, only by an online probe.
        replicated: every rank holds the same samples (full-batch graphs), so nothing is gathered.
        equal: every rank holds as many samples, so that what is gathered need not be compared at every step.
    """

    views: Sequence[Any]
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody calls here
    labels: Tensor | None
    replicated: bool
    equal: bool = False


class Neighbours(NamedTuple):
    """Which rows of what an encoder makes of a view are neighbours: edges [2, E], both directions, no loops."""

    edges: Tensor
    nodes: int


def sample_rows(rows: Tensor, view: Any) -> Tensor:
    """Of what is made of a view [N, d], the rows of its samples [B, d]; what follows them is their surroundings.

    Those of a view that does not say otherwise, by ``sample_rows``, are all.
    """
    samples = getattr(view, "sample_rows", None)
    return rows if samples is None else rows[:samples]


class Hidden(NamedTuple):
    """What a view hides from the encoder, for a decoder to find again.

    A view that hides something has it as ``hidden``, and ``with_token(token)``, the same view with a learned vector in
    the places that say nothing.

    Shapes:
        rows: [M] int64, which rows of the representation are of hidden samples.
        values: [M, F] what these have in truth.
    """

    rows: Tensor
    values: Tensor


class Branch(NamedTuple):
    """One view through one network.

    Shapes:
        h, z, p: [N, d] each; representation, embedding, prediction.
        d: [M, F] what a decoder makes of the hidden samples; None without a decoder.

    Attributes:
        hidden: what the view hides; None where there is no decoder to find it.
    """

    h: Tensor
    z: Tensor
    p: Tensor | None
    d: Tensor | None = None
    hidden: Hidden | None = None


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


def rows_of(splits: Iterable[Split], count: int) -> Tensor | None:
    """Numbers [R] of all rows in splits of a set, ascending; None where that is every one of its ``count``."""
    used = np.zeros(count, dtype=bool)
    for split in splits:
        for part in (split.train, split.validation, split.test):
            used[part] = True
    return None if used.all() else torch.from_numpy(np.flatnonzero(used))


def renumbered(split: Split, rows: Tensor) -> Split:
    """A split with the places of its rows among ``rows`` [R], ascending, which has all of them."""
    places = rows.cpu().numpy()
    return Split(*(np.searchsorted(places, part) for part in (split.train, split.validation, split.test)))


@runtime_checkable
class LazyViews(Protocol):
    """Encoder inputs that are made one batch at a time, where all at once would not fit."""

    def __len__(self) -> int:
        """Number of batches."""
        ...

    def __getitem__(self, index: int) -> Any:
        """Batch ``index``, a view of some samples; IndexError after the last."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """All batches in order."""
        ...

    def to(self, device: torch.device) -> LazyViews:
        """The same inputs, made on another device."""
        ...

    def subset(self, samples: int) -> LazyViews:
        """At most this many samples, evenly spaced, always the same ones."""
        ...


@runtime_checkable
class Partwise(Protocol):
    """An input of samples that are too many for one forward pass: it applies an encoder to them part by part.

    Representations are those of one forward pass, and so is what the encoder's layers put out, in parts: a hook on a
    layer sees each row once.
    """

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def only(self, rows: Tensor) -> Partwise:
        """The same input, of whose samples only some are wanted, by their numbers [R], ascending."""
        ...

    def parts(self, encoder: Any, seen: Callable[[Tensor, int], None] | None = None) -> Iterator[Tensor]:
        """Representations [n, d] of all samples in their order, in parts of any size.

        Args:
            encoder: in the mode that it is to have, without gradients; its own ``forward`` need not be called.
            seen: called whenever layers have put out rows, with the places of wanted samples among them, and how many
                there are. Others are put out where wanted samples depend on them.
        """
        ...

    def encoded(self, encoder: Any) -> Tensor:
        """All of them [N, d]: in memory, or where they do not fit in a file that is mapped to it."""
        ...

    def check(self, encoder: Any) -> None:
        """Raise RecipeError for an encoder that cannot be applied part by part, where it cannot be in one pass."""

    def whole(self) -> Any | None:
        """All samples as an input for one forward pass, on the device; None where they do not fit."""
        ...

    def to(self, device: torch.device) -> Partwise:
        """The same input, encoded on another device."""
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

    @property
    def partwise(self) -> bool:
        """Whether its inputs are ``Partwise``."""
        return not isinstance(self.views, LazyViews) and any(isinstance(view, Partwise) for view in self.views)

    def only(self, rows: Tensor | None) -> Sequence[Any] | LazyViews:
        """Its inputs, of partwise ones only some samples [R], ascending; None for all."""
        return restricted(list(self.views), rows) if rows is not None and self.partwise else self.views

    def measured(self, samples: int | None, usual: int = MEASURED) -> tuple[Sequence[Any] | LazyViews, Tensor | None]:
        """The inputs that ranks are measured on, and which rows of what they give count; None for all rows.

        Of lazily made inputs only the chosen ones are made. A list of inputs is given as a whole, since samples may
        depend on each other, as the nodes of a graph do, and rows of the outputs are chosen.

        Args:
            samples: how many, evenly spaced and always the same; None is all of a list, and ``usual`` lazily made ones.
            usual: see ``samples``.
        """
        if isinstance(self.views, LazyViews):
            return self.views.subset(usual if samples is None else samples), None
        if samples is None or samples >= len(self.labels):
            return self.views, None
        return self.views, torch.linspace(0, len(self.labels) - 1, samples, dtype=torch.float64).long()


def restricted(views: Sequence[Any], rows: Tensor) -> list[Any]:
    """Partwise inputs of which only some samples [R] are wanted, by their numbers over all of them, ascending."""
    start, left = 0, []
    for view in views:
        own = rows[(rows >= start) & (rows < start + len(view))] - start
        left.append(view.only(own))
        start += len(view)
    return left
