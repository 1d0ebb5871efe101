"""The graph domain: one graph as a whole, batches of graphs, or batches of the nodes of a large one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.core.registry import GRAPH_BATCHING, GRAPH_DATASETS, RegistryError
from sslcollapse.core.seeding import generator
from sslcollapse.core.types import Batch, Context, Neighbours, ProbeSet, sample_rows
from sslcollapse.domains.base import Domain, dataset_key
from sslcollapse.domains.graph.batching import FULL, Batching, FixedViews
from sslcollapse.domains.graph.chunks import NodeChunks
from sslcollapse.domains.graph.data import GraphDataset
from sslcollapse.domains.graph.pack import pack
from sslcollapse.domains.graph.picture import neighbourhood, write_neighbourhoods
from sslcollapse.domains.graph.stream import Streamed, stream_of
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView
from sslcollapse.domains.graph.views import GraphViews as GraphViews
from sslcollapse.domains.graph.views import Views, views_of
from sslcollapse.nn.inputs import gcn_matrix
from sslcollapse.recipe.schema import AtLeast, Component, FieldsOrComponent

MAX_MEASURED_FEATURES = 2048
"""Node features of more dimensions are not measured, since they may be sparse and would be made dense."""

MAX_DENSE = 2**26
"""Features of a graph of more numbers are not made dense for baselines."""


DEFAULT_VIEWS = GraphViews()


class GraphDomain(Domain):
    """Graphs: two views by edge dropping and feature-column masking.

    Args:
        data_root: folder in which the dataset's files are looked for.
        dataset: which graphs.
        views: how the views are made; with a ``type`` by a component of the kind ``graph_views`` (``chain``).
        batch_size: graphs a step over all ranks; None trains on all graphs at once, on the full graph
            where there is one.
        batching: what a step is made of: ``full`` graphs, or ``neighbours`` of some root nodes.

    With full graphs, ``batch_size=None`` and several ranks, every rank trains on the same graph with views of
    its own: more views a step, not more speed.
    """

    kind = "graph"

    batching: Batching

    def __init__(
        self,
        data_root: Path,
        *,
        dataset: Annotated[dict[str, Any], Component("graph_dataset")],
        views: Annotated[GraphViews, FieldsOrComponent("graph_views")] = DEFAULT_VIEWS,
        batch_size: Annotated[int, AtLeast(1)] | None = None,
        batching: Annotated[Mapping[str, Any], Component("graph_batching")] = FULL,
    ) -> None:
        try:
            self.source = GRAPH_DATASETS.build(dataset, data_root)
        except (RecipeError, RegistryError) as error:
            raise RecipeError(f"domain.dataset: {error}") from error
        try:
            self.batching = GRAPH_BATCHING.build(batching)
        except (RecipeError, RegistryError) as error:
            raise RecipeError(f"domain.batching: {error}") from error
        self._spec = dataset
        self.views: Views = views_of(views)
        self.batch_size = batch_size
        self.in_shape = (self.source.num_features,)
        self.replicated = self.batching.whole and batch_size is None
        self._dataset: GraphDataset | None = None

    def describe(self) -> str:
        """One line on the data that will be read."""
        return self.source.describe()

    def load(self) -> None:
        """Read the dataset.

        Raises:
            MissingDataError, DataError: see the dataset.
            RecipeError: a batch of more graphs, or nodes, than there are.
        """
        self.batching.fit(self)

    def data_key(self) -> str | None:
        """By the dataset, whatever the views."""
        return dataset_key(GRAPH_DATASETS, self._spec, self.source)

    def loaded(self) -> GraphDataset | None:
        """The graphs, if they have been read."""
        return self._dataset

    def use(self, data: GraphDataset) -> None:
        """Have these graphs."""
        self._dataset = data

    @property
    def dataset(self) -> GraphDataset:
        """The graphs, read on first use."""
        if self._dataset is None:
            self._dataset = self.source.load()
        return self._dataset

    def check(self, world_size: int) -> None:
        """Raise RecipeError for batches that ranks cannot share or graphs cannot fill, or views they cannot have."""
        if self.batching.draws_views and not isinstance(self.views, GraphViews):
            raise RecipeError(
                f"domain.views.type: {type(self.batching).__name__} draws edges and feature columns by itself, and has "
                "no views of type 'chain'; use views by the fields edge_drop and feature_mask, or domain.batching of "
                "type 'full' or 'parts'"
            )
        self.batching.check(self, world_size)

    def notice(self, world_size: int) -> str | None:
        """What the log should say about several ranks, or None."""
        return self.batching.notice(self, world_size)

    def batches(self, start_step: int, context: Context) -> Iterator[Batch]:
        """Endless batches as ``batching`` makes them; batch k depends on (seed, k, rank, world size) only."""
        self.check(context.world_size)
        return self.batching.batches(self, start_step, context)

    @property
    def fixed_batches(self) -> Callable[[Context], FixedViews] | None:
        """Makes the same batches from draws in fixed tensors; of a replicated domain, whose graphs are one batch.

        None with views of type ``chain``, which may have another size in every step.
        """
        views = self.views
        if not isinstance(views, GraphViews):
            return None
        members = sorted(self.dataset.train_graphs)
        return lambda context: FixedViews(self.on(context.device, members), members, views, context)

    def on(self, device: torch.device, members: Sequence[int]) -> GraphView:
        """Some graphs as one, on a device."""
        whole = self.union(members)
        if self.views.undirected:
            _ = whole.structure.undirected_edges  # on the host, which would have to wait for a device
        return whole.to(device)

    def probe_set(self) -> ProbeSet:
        """Every graph un-augmented, one view a graph; labels and splits over their nodes in order."""
        dataset = self.dataset
        labels = [graph.y for graph in dataset.graphs]
        views: list[Any] = [self.union([i]) for i in range(len(dataset.graphs))]
        if not self.batching.whole:
            views = [NodeChunks(view) for view in views]
        together = labels[0] if len(labels) == 1 else torch.cat(labels)
        return ProbeSet(views, together, dataset.num_classes, dataset.splits)

    def measurable(self, view: GraphView) -> Tensor | None:
        """Features of the sampled nodes with masked columns zero, or None where there are too many to be made dense."""
        return sample_rows(view.features.dense, view) if view.features.shape[1] <= MAX_MEASURED_FEATURES else None

    def baselines(self) -> Mapping[str, Callable[[GraphView], Tensor | None]]:
        """Node features as they are (X), and propagated once and twice by GCN's normalised adjacency (AX, AAX)."""

        def times(hops: int) -> Callable[[GraphView], Tensor | None]:
            return lambda view: propagated(view, hops)

        return {"X": times(0), "AX": times(1), "AAX": times(2)}

    def neighbours(self, view: GraphView) -> Neighbours:
        """The edges that are left, without loops."""
        if view.keep is None:
            return Neighbours(view.structure.edge_index[:, view.structure.proper_edges], view.num_nodes)
        source, target = edges = view.edge_index
        return Neighbours(edges[:, source != target], view.num_nodes)

    def draw(self, path: Path, samples: int, seed: int) -> None:
        """Write a picture of so many neighbourhoods at most: as they are, and in two draws of each view.

        Their nodes are evenly spaced over those that have an edge, of graphs evenly spaced over those to pre-train on.
        """
        dataset = self.dataset
        members = dataset.train_graphs
        chosen = [members[row * len(members) // samples] for row in range(samples)]
        rows = []
        for number in dict.fromkeys(chosen):
            graph, base, count = dataset.graphs[number], self.union([number]), chosen.count(number)
            nodes = graph.edge_index.unique()
            views = [
                self.views.make(base, view, generator(torch.device("cpu"), "sheet", seed, draw, view))
                for view in range(self.views.count)
                for draw in range(2)
            ]
            if any(view.num_nodes != base.num_nodes for view in views):
                raise RecipeError("domain.views: views with nodes of their own, by half_hop, cannot be drawn")
            for row in range(min(count, len(nodes))):
                center = int(nodes[(2 * row + 1) * len(nodes) // (2 * min(count, len(nodes)))])
                place = neighbourhood(graph.edge_index, graph.x, graph.y, center)
                rows.append((place, graph.edge_index, [base, *views]))
        titles = [
            "sample",
            *(f"view {view + 1}, draw {draw + 1}" for view in range(self.views.count) for draw in range(2)),
        ]
        write_neighbourhoods(rows, titles, path)

    def pack(
        self, folder: Path, *, features: str = "float32", memory: int = 2**30, progress: Callable[[str], None] = print
    ) -> bool:
        """Write the graphs to a folder that the dataset ``stored`` reads; see ``pack``.

        A dataset that has ``stream()`` is not read into memory for it.
        """
        stream = self.source.stream() if isinstance(self.source, Streamed) else stream_of(self.dataset)
        key = self.data_key() or json.dumps(self._spec, sort_keys=True, default=str)
        return pack(stream, Path(folder), key=key, kind=features, memory=memory, progress=progress)

    def union(self, members: Sequence[int]) -> GraphView:
        """Some graphs as one, on the host: their disjoint union, in this order."""
        graphs = [self.dataset.graphs[i] for i in members]
        if not graphs:
            raise DataError(f"{self.dataset.name}: a batch without graphs")
        if len(graphs) == 1:
            return graphs[0].view()
        sizes = torch.tensor([graph.num_nodes for graph in graphs])
        offsets = sizes.cumsum(0) - sizes
        edges = [graph.edge_index + offset for graph, offset in zip(graphs, offsets.tolist(), strict=True)]
        graph_index = torch.repeat_interleave(torch.arange(len(graphs)), sizes)
        x = torch.cat([g.x.to_dense() if g.x.layout == torch.sparse_csr else g.x for g in graphs])
        structure = GraphStructure(torch.cat(edges, dim=1), int(sizes.sum()), graph_index)
        return GraphView(structure, Features(x))


def propagated(view: GraphView | NodeChunks, hops: int) -> Tensor | None:
    """Aʰ x with A = D^-1/2 (A + I) D^-1/2 as a GCN has it: [N, F].

    None of more than ``MAX_DENSE`` numbers, unless they are made in chunks, which has room for more.
    """
    if isinstance(view, NodeChunks):
        return view.propagated(hops)
    if math.prod(view.features.shape) > MAX_DENSE:
        return None
    x = view.features.dense
    for _ in range(hops):
        x = view.adjacency(gcn_matrix) @ x
    return x
