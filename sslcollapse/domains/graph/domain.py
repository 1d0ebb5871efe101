"""The graph domain: full-batch training on one graph, or batches of graphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.core.registry import GRAPH_DATASETS, RegistryError
from sslcollapse.core.seeding import derive_seed, generator
from sslcollapse.core.types import Batch, Context, Neighbours, ProbeSet
from sslcollapse.domains.base import Domain
from sslcollapse.domains.graph.data import GraphDataset
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView
from sslcollapse.nn.sparse import SparseMatrix
from sslcollapse.recipe.schema import AtLeast, Component, Momentum, Probability

MAX_MEASURED_FEATURES = 2048
"""Node features of more dimensions are not measured, since they may be sparse and would be made dense."""


@dataclass(frozen=True)
class GraphViews:
    """How the two views of a graph are made: edges dropped, feature columns masked.

    A masked column is zero for all nodes.

    Args:
        edge_drop: probability that an edge is dropped, one entry a view.
        feature_mask: probability that a feature column is masked, one entry a view.
        undirected: whether the two directions of an edge are dropped together, so that an undirected graph stays one;
            by default each is dropped independently, as in the authors' code.
        strength: in [0, 1], multiplies all four probabilities: 0 leaves the graph as it is, 1 is the full preset.

    Raises:
        RecipeError: not two probabilities in [0, 1), or a strength outside [0, 1].

    Source: You et al. 2020; Zhu et al. 2020 (GRACE).
    """

    edge_drop: Sequence[Momentum] = (0.5, 0.4)
    feature_mask: Sequence[Momentum] = (0.5, 0.4)
    strength: Probability = 1.0
    undirected: bool = False

    def __post_init__(self) -> None:
        for name, values in (("edge_drop", self.edge_drop), ("feature_mask", self.feature_mask)):
            if len(values) != 2 or not all(0.0 <= p < 1.0 for p in values):
                raise RecipeError(f"{name}: needs two probabilities in [0, 1), one a view, got {list(values)}")
        if not 0.0 <= self.strength <= 1.0:
            raise RecipeError(f"strength: must be in [0, 1], got {self.strength}")

    def probabilities(self) -> tuple[list[float], list[float]]:
        """Edge-drop and feature-mask probabilities of the two views."""
        return [self.strength * p for p in self.edge_drop], [self.strength * p for p in self.feature_mask]


class GraphDomain(Domain):
    """Graphs: two views by edge dropping and feature-column masking.

    Args:
        data_root: folder in which the dataset's files are looked for.
        dataset: which graphs.
        views: how the views are made.
        batch_size: graphs a step over all ranks; None trains on all graphs at once, on the full graph
            where there is one.

    With one graph (or ``batch_size=None``) and several ranks, every rank trains on the same graph with views of
    its own: more views a step, not more speed.
    """

    kind = "graph"

    def __init__(
        self,
        data_root: Path,
        *,
        dataset: Annotated[dict[str, Any], Component("graph_dataset")],
        views: GraphViews = GraphViews(),
        batch_size: Annotated[int, AtLeast(1)] | None = None,
    ) -> None:
        try:
            self.source = GRAPH_DATASETS.build(dataset, data_root)
        except (RecipeError, RegistryError) as error:
            raise RecipeError(f"domain.dataset: {error}") from error
        self.views = views if isinstance(views, GraphViews) else GraphViews(**views)
        self.batch_size = batch_size
        self.in_shape = (self.source.num_features,)
        self.replicated = batch_size is None
        self._dataset: GraphDataset | None = None

    def describe(self) -> str:
        """One line on the data that will be read."""
        return self.source.describe()

    def load(self) -> None:
        """Read the dataset.

        Raises:
            MissingDataError, DataError: see the dataset.
            RecipeError: a batch of more graphs than there are.
        """
        _ = self._graphs_a_step()

    @property
    def dataset(self) -> GraphDataset:
        """The graphs, read on first use."""
        if self._dataset is None:
            self._dataset = self.source.load()
        return self._dataset

    def check(self, world_size: int) -> None:
        """Raise RecipeError for a batch size that ranks cannot share or graphs cannot fill."""
        if self.batch_size is not None and self.batch_size % world_size:
            raise RecipeError(
                f"domain.batch_size: {self.batch_size} graphs cannot be shared equally by {world_size} ranks; "
                f"use a multiple of {world_size}"
            )

    def notice(self, world_size: int) -> str | None:
        """What the log should say about several ranks, or None."""
        if world_size > 1 and self.batch_size is None:
            return (
                f"Full-batch graph on {world_size} ranks: every rank trains on the same graph with its own views; "
                "gradients are averaged over ranks. More views a step, not more speed."
            )
        return None

    def batches(self, start_step: int, context: Context) -> Iterator[Batch]:
        """Endless batches; batch k depends on (seed, k, rank) only.

        Full batch: all pre-training graphs as one disjoint union. Else each epoch visits the graphs in an order
        drawn from (seed, epoch), and each rank takes its slice of every batch; a last incomplete batch is left out.
        """
        self.check(context.world_size)
        graphs, size = self.dataset.train_graphs, self._graphs_a_step()
        per_epoch = len(graphs) // size
        union: tuple[list[int], GraphView] | None = None
        step = start_step
        while True:
            epoch, position = divmod(step, per_epoch)
            rng = generator(torch.device("cpu"), "order", context.seed, epoch)
            order = torch.randperm(len(graphs), generator=rng)
            chosen = order[position * size : (position + 1) * size]
            if not self.replicated:
                chosen = chosen.chunk(context.world_size)[context.rank]
            members = sorted(graphs[i] for i in chosen.tolist())
            if union is None or union[0] != members:
                union = members, self._on(context.device, members)
            base = union[1]
            edge_drop, feature_mask = self.views.probabilities()
            views = [
                augment(
                    base,
                    edge,
                    feature,
                    generator(context.device, "view", context.seed, step, context.rank, k),
                    undirected=self.views.undirected,
                )
                for k, (edge, feature) in enumerate(zip(edge_drop, feature_mask, strict=True))
            ]
            yield Batch(views, torch.tensor(members), None, self.replicated)
            step += 1

    def fixed_batches(self, context: Context) -> FixedViews:
        """The same batches from draws in fixed tensors; of a replicated domain, in which all graphs are one batch."""
        members = sorted(self.dataset.train_graphs)
        return FixedViews(self._on(context.device, members), members, self.views, context)

    def _on(self, device: torch.device, members: Sequence[int]) -> GraphView:
        """Some graphs as one, on a device."""
        whole = self._union(members)
        if self.views.undirected:
            _ = whole.structure.undirected_edges  # on the host, which would have to wait for a device
        return whole.to(device)

    def _graphs_a_step(self) -> int:
        available = len(self.dataset.train_graphs)
        size = available if self.batch_size is None else self.batch_size
        if size > available:
            raise RecipeError(
                f"domain.batch_size: {size} is more than the {available} pre-training "
                f"{'graph' if available == 1 else 'graphs'} of {self.dataset.name}; use at most {available}, or leave "
                "it out to train on all of them at once"
            )
        return size

    def probe_set(self) -> ProbeSet:
        """Every graph un-augmented, one view a graph; labels and splits over their nodes in order."""
        dataset = self.dataset
        labels = torch.cat([graph.y for graph in dataset.graphs])
        views = [self._union([i]) for i in range(len(dataset.graphs))]
        return ProbeSet(views, labels, dataset.num_classes, dataset.splits)

    def measurable(self, view: GraphView) -> Tensor | None:
        """Node features [N, F] with masked columns zero, or None where there are too many to be made dense."""
        return view.features.dense if view.features.shape[1] <= MAX_MEASURED_FEATURES else None

    def neighbours(self, view: GraphView) -> Neighbours:
        """The edges that are left, without loops."""
        if view.keep is None:
            return Neighbours(view.structure.edge_index[:, view.structure.proper_edges], view.num_nodes)
        source, target = edges = view.edge_index
        return Neighbours(edges[:, source != target], view.num_nodes)

    def _union(self, members: Sequence[int]) -> GraphView:
        graphs = [self.dataset.graphs[i] for i in members]
        if not graphs:
            raise DataError(f"{self.dataset.name}: a batch without graphs")
        if len(graphs) == 1:
            return GraphView(GraphStructure(graphs[0].edge_index, graphs[0].num_nodes), _features(graphs[0].x))
        sizes = torch.tensor([graph.num_nodes for graph in graphs])
        offsets = sizes.cumsum(0) - sizes
        edges = [graph.edge_index + offset for graph, offset in zip(graphs, offsets.tolist(), strict=True)]
        graph_index = torch.repeat_interleave(torch.arange(len(graphs)), sizes)
        x = torch.cat([g.x.to_dense() if g.x.layout == torch.sparse_csr else g.x for g in graphs])
        structure = GraphStructure(torch.cat(edges, dim=1), int(sizes.sum()), graph_index)
        return GraphView(structure, Features(x))


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


def augment(
    view: GraphView, edge_drop: float, feature_mask: float, rng: torch.Generator, *, undirected: bool = False
) -> GraphView:
    """A view with each edge dropped and each feature column masked independently with these probabilities.

    With ``undirected`` an edge and its reverse share one draw.
    """
    sizes = draw_sizes(view, edge_drop, feature_mask, undirected=undirected)
    device = view.structure.edge_index.device
    draws = [torch.rand(size, generator=rng, device=device) for size in sizes]
    return drawn_view(view, draws, edge_drop, feature_mask, undirected=undirected)


def draw_sizes(view: GraphView, edge_drop: float, feature_mask: float, *, undirected: bool) -> list[int]:
    """How many numbers in [0, 1) a view needs: one an edge, then one a feature column, where any may be left out."""
    structure, sizes = view.structure, []
    if edge_drop > 0:
        sizes.append(structure.num_undirected_edges if undirected else structure.edge_index.shape[1])
    if feature_mask > 0:
        sizes.append(view.features.shape[1])
    return sizes


def drawn_view(
    view: GraphView, draws: Sequence[Tensor], edge_drop: float, feature_mask: float, *, undirected: bool
) -> GraphView:
    """The view without the edges and feature columns whose number is below their probability."""
    left, keep, mask = list(draws), None, None
    if edge_drop > 0:
        keep = left.pop(0) >= edge_drop
        if undirected:
            keep = keep[view.structure.undirected_edges]
    if feature_mask > 0:
        mask = (left.pop(0) >= feature_mask).to(view.features.dtype)
    return GraphView(view.structure, view.features.masked(mask), keep)


def _features(x: Tensor) -> Features:
    return Features(SparseMatrix.from_csr(x) if x.layout == torch.sparse_csr else x)
