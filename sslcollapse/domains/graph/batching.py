"""What a step of the graph domain is made of: the interface, and full graphs, which are the default."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

import torch

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.seeding import derive_seed, generator
from sslcollapse.core.types import Batch, Context
from sslcollapse.domains.ahead import read_ahead
from sslcollapse.domains.graph.view import GraphView, Traces, draw_sizes, drawn_view

if TYPE_CHECKING:
    from sslcollapse.domains.graph.domain import GraphDomain
    from sslcollapse.domains.graph.views import GraphViews

FULL: dict[str, Any] = {"type": "full"}
"""The default."""


class Batching(Protocol):
    """How a ``GraphDomain`` makes its batches.

    Attributes:
        whole: whether a step has whole graphs; then all of them at once are one batch that every rank has, unless the
            domain's ``batch_size`` says how many.
        draws_views: whether it draws edges and columns of the views itself, so that it needs their probabilities.
    """

    whole: bool
    draws_views: bool

    def check(self, domain: GraphDomain, world_size: int) -> None:
        """Raise RecipeError for settings that so many ranks cannot share; before data are read."""

    def fit(self, domain: GraphDomain) -> None:
        """Raise RecipeError for settings that the graphs cannot fill; reads them."""

    def notice(self, domain: GraphDomain, world_size: int) -> str | None:
        """What the log should say about so many ranks, or None."""

    def batches(self, domain: GraphDomain, start_step: int, context: Context) -> Iterator[Batch]:
        """Endless batches; batch k depends on (seed, k, rank, world size) only."""
        ...


AHEAD = 2
"""Batches of nodes that a thread makes before they are asked for."""


def prepared(make: Callable[[], Iterator[Batch]], ahead: int) -> Iterator[Batch]:
    """The batches of ``make()`` as a thread makes them before they are asked for; see ``read_ahead``.

    What a step has made of the views of its batch, the matrices of its convolutions, is made of later ones beforehand.
    """
    wanted: list[Traces] = []

    def made() -> Iterator[Batch]:
        for batch in make():
            for view, traces in zip(batch.views, tuple(wanted), strict=False):
                view.prepare(traces)
            yield batch

    with closing(read_ahead(made, ahead)) as batches:  # type: ignore[type-var]  # a generator
        for batch in batches:
            yield batch
            wanted[:] = [view.traces() for view in batch.views]
            del batch  # which may be large


def check_ahead(ahead: int) -> None:
    """Refuse to make fewer than no batches ahead."""
    if ahead < 0:
        raise RecipeError(f"ahead must be >= 0, got {ahead}")


class Full:
    """Whole graphs: all graphs to pre-train on, or ``domain.batch_size`` of them, with all their nodes and edges."""

    whole = True
    draws_views = False

    def check(self, domain: GraphDomain, world_size: int) -> None:
        """Refuse a number of graphs that ranks cannot share equally."""
        if domain.batch_size is not None and domain.batch_size % world_size:
            raise RecipeError(
                f"domain.batch_size: {domain.batch_size} graphs cannot be shared equally by {world_size} ranks; "
                f"use a multiple of {world_size}"
            )

    def fit(self, domain: GraphDomain) -> None:
        """Refuse a batch of more graphs than there are, and stored graphs that do not fit into memory as a whole."""
        _ = self._graphs_a_step(domain)
        for graph in domain.dataset.train_graphs:
            domain.dataset.graphs[graph].check_whole()

    def notice(self, domain: GraphDomain, world_size: int) -> str | None:
        """Of a graph that every rank has."""
        if world_size > 1 and domain.batch_size is None:
            return (
                f"Full-batch graph on {world_size} ranks: every rank trains on the same graph with its own views; "
                "gradients are averaged over ranks. More views a step, not more speed."
            )
        return None

    def batches(self, domain: GraphDomain, start_step: int, context: Context) -> Iterator[Batch]:
        """Endless batches; batch k depends on (seed, k, rank) only.

        Full batch: all pre-training graphs as one disjoint union. Else each epoch visits the graphs in an order
        drawn from (seed, epoch), and each rank takes its slice of every batch; a last incomplete batch is left out.
        """
        graphs, size = domain.dataset.train_graphs, self._graphs_a_step(domain)
        per_epoch = len(graphs) // size
        union: tuple[list[int], GraphView] | None = None
        step = start_step
        while True:
            epoch, position = divmod(step, per_epoch)
            rng = generator(torch.device("cpu"), "order", context.seed, epoch)
            order = torch.randperm(len(graphs), generator=rng)
            chosen = order[position * size : (position + 1) * size]
            if not domain.replicated:
                chosen = chosen.chunk(context.world_size)[context.rank]
            members = sorted(graphs[i] for i in chosen.tolist())
            if union is None or union[0] != members:
                union = members, domain.on(context.device, members)
            base = union[1]
            views = [
                domain.views.make(base, k, generator(context.device, "view", context.seed, step, context.rank, k))
                for k in range(domain.views.count)
            ]
            yield Batch(views, torch.tensor(members), None, domain.replicated)
            step += 1

    def _graphs_a_step(self, domain: GraphDomain) -> int:
        available = len(domain.dataset.train_graphs)
        size = available if domain.batch_size is None else domain.batch_size
        if size > available:
            raise RecipeError(
                f"domain.batch_size: {size} is more than the {available} pre-training "
                f"{'graph' if available == 1 else 'graphs'} of {domain.dataset.name}; use at most {available}, or "
                "leave it out to train on all of them at once"
            )
        return size


class FixedViews:
    """The two views of a full batch, made from draws in tensors that stay where they are.

    The draws themselves are made outside of what may be captured, by the operations of ``augment``: that takes no more
    launches than it would to give a captured generator its seed and offset, and the numbers are the same everywhere.

    Args:
        base: all graphs.
        members: which they are.
        views: how views are made.
        context: seed, rank and device.
    """

    def __init__(self, base: GraphView, members: Sequence[int], views: GraphViews, context: Context) -> None:
        self._base, self._index, self._undirected = base, torch.tensor(members), views.undirected
        self._key = (context.seed, context.rank)
        self._odds = list(zip(*views.probabilities(), strict=True))
        device = context.device
        self._draws = [
            [torch.empty(size, device=device) for size in draw_sizes(base, *odds, undirected=views.undirected)]
            for odds in self._odds
        ]
        self._generators = [torch.Generator(device=device) for _ in self._odds]

    def draw(self, step: int) -> None:
        """Draw what the views of a step need."""
        seed, rank = self._key
        for k, (rng, draws) in enumerate(zip(self._generators, self._draws, strict=True)):
            rng.manual_seed(derive_seed("view", seed, step, rank, k))
            for values in draws:
                values.uniform_(generator=rng)

    def batch(self) -> Batch:
        """The views of what was drawn."""
        views = [
            drawn_view(self._base, draws, *odds, undirected=self._undirected)
            for draws, odds in zip(self._draws, self._odds, strict=True)
        ]
        return Batch(views, self._index, None, True)
