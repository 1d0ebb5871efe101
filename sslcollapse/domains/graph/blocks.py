"""The contextual block model drawn a piece at a time, so that its size is that of a disk and not of memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from sslcollapse.core.memory import check_size
from sslcollapse.core.seeding import derive_seed
from sslcollapse.core.types import Split
from sslcollapse.domains.graph.data import GraphDataset, make_graph
from sslcollapse.domains.graph.neighbours import hashed
from sslcollapse.domains.graph.stream import GraphStream
from sslcollapse.domains.graph.synthetic import CSBM, draw_distinct, triangle

ROWS = 4096
"""Nodes whose features are drawn by one stream; another number would draw another graph."""
PAIRS = 1 << 19
"""Joined pairs of nodes that one stream is expected to draw; the same."""
AT_ONCE = 1 << 22
"""Labels, and nodes of a split, that are given at a time; any number gives the same ones."""


class StreamedCSBM(CSBM):
    """The block model of ``csbm``, by draws that do not need all of it in memory: the graph that ``graph pack`` writes.

    Degrees, homophily and features are distributed as those of ``csbm``, but the numbers are others, since
    ``csbm`` draws all pairs of two classes at once. The same seed gives the same graph whatever is drawn at a time.
    Classes differ by one node at most: each run of ``classes`` nodes has every class once, from a random one on.

    Args:
        data_root: ignored; the graph is drawn, not read.
        nodes: number of nodes.
        classes: number of classes.
        features: feature width.
        degree: expected number of neighbours.
        homophily: expected share of edges within classes, in [0, 1].
        signal: strength of the class means in the features, >= 0.
        seed: of the graph, its features and its split; independent of the model's.
        train_per_class: training nodes of each class.
        validation_per_class: validation nodes of each class; the rest is test.
    """

    def describe(self) -> str:
        """One line for a dry run."""
        return super().describe().replace("CSBM", "CSBM in pieces", 1)

    def load(self) -> GraphDataset:
        """Draw the graph into memory."""
        check_size(int(4 * self.nodes * self.num_features + 48 * self.nodes * self.degree), f"nodes={self.nodes}")
        stream = self.stream()
        edges = np.concatenate([np.zeros((2, 0), np.int64), *stream.edges(0)], axis=1)
        edges = edges[:, np.lexsort((edges[1], edges[0]))]
        x = torch.from_numpy(np.concatenate(list(stream.features(0))))
        y = torch.from_numpy(np.concatenate(list(stream.labels())))
        graph = make_graph(x, torch.from_numpy(edges), y, name=stream.name, normalize=False)
        parts = [np.concatenate(list(numbers())) for numbers in stream.splits["public"][0]]
        return GraphDataset(stream.name, (graph,), self.classes, {"public": (Split(*parts),)})

    def stream(self) -> GraphStream:
        """The graph, a piece at a time."""
        chosen = self._chosen()
        return GraphStream(
            name="CSBM in pieces",
            classes=self.classes,
            nodes=self.nodes,
            width=self.num_features,
            features=self._features,
            labels=lambda: (self.labels(start, start + AT_ONCE) for start in range(0, self.nodes, AT_ONCE)),
            edges=self._edges,
            edges_about=int(self.nodes * self.degree),
            splits={"public": [(lambda: iter([chosen[0]]), lambda: iter([chosen[1]]), lambda: self._rest(chosen))]},
            undirected=True,
            unique=True,
        )

    def labels(self, start: int, end: int) -> np.ndarray:
        """Classes of the nodes from one number to another."""
        node = np.arange(start, min(end, self.nodes))
        return (node + self._first(node // self.classes)) % self.classes

    def _first(self, run: np.ndarray) -> np.ndarray:
        """Class of the first node of each run of as many nodes as there are classes."""
        key = derive_seed("block model classes", self.seed)
        return (hashed(key, torch.from_numpy(run)) % self.classes).numpy()

    def members(self, label: int, number: np.ndarray) -> np.ndarray:
        """Nodes of a class by their number among its nodes."""
        return number * self.classes + (label - self._first(number)) % self.classes

    def _sizes(self) -> list[int]:
        runs, more = divmod(self.nodes, self.classes)
        last = self.labels(runs * self.classes, self.nodes)
        return [runs + int((last == label).sum()) for label in range(self.classes)] if more else [runs] * self.classes

    def _features(self, start: int) -> Iterator[np.ndarray]:
        scale = np.float32(self.num_features**-0.5)
        shape = (self.classes, self.num_features)
        means = np.float32(self.signal) * self._rng("means").standard_normal(shape, dtype=np.float32) * scale
        for block in range(start // ROWS, -(-self.nodes // ROWS)):
            labels = self.labels(block * ROWS, (block + 1) * ROWS)
            noise = self._rng("features", block).standard_normal((ROWS, self.num_features), dtype=np.float32)
            x = means[labels] + noise[: len(labels)] * scale
            yield x[max(0, start - block * ROWS) :]

    def _edges(self, skip: int) -> Iterator[np.ndarray]:
        """Both directions of each joined pair; what a stream draws of two classes is a piece."""
        sizes = self._sizes()
        for a in range(self.classes):
            for b in range(a, self.classes):
                probability = self.within if a == b else self.between
                population = sizes[a] * (sizes[a] - 1) // 2 if a == b else sizes[a] * sizes[b]
                if not probability:
                    continue
                each = max(1, round(PAIRS / probability))
                for piece in range(-(-population // each)):
                    if skip > 0:
                        skip -= 1
                        continue
                    start = piece * each
                    rng = self._rng("edges", a, b, piece)
                    pair = start + draw_distinct(min(each, population - start), probability, rng)
                    i, j = triangle(pair, sizes[a]) if a == b else np.divmod(pair, sizes[b])
                    joined = np.stack([self.members(a, i), self.members(b, j)])
                    yield np.concatenate([joined, joined[::-1]], axis=1)

    def _chosen(self) -> tuple[np.ndarray, np.ndarray]:
        """Nodes to train on and to validate, of each class so many."""
        train, validation = self.parts
        found = [
            self.members(label, self._rng("split", label).choice(size, train + validation, replace=False))
            for label, size in enumerate(self._sizes())
        ]
        return np.sort(np.concatenate([f[:train] for f in found])), np.sort(np.concatenate([f[train:] for f in found]))

    def _rest(self, chosen: tuple[np.ndarray, np.ndarray]) -> Iterator[np.ndarray]:
        taken = np.sort(np.concatenate(chosen))
        for start in range(0, self.nodes, AT_ONCE):
            nodes = np.arange(start, min(start + AT_ONCE, self.nodes))
            low, high = np.searchsorted(taken, [start, start + AT_ONCE])
            yield np.delete(nodes, taken[low:high] - start)

    def _rng(self, what: str, *key: int) -> np.random.Generator:
        return np.random.default_rng(derive_seed(f"block model {what}", self.seed, *key))
