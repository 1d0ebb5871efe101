"""Graphs that need no files: digits as a k-nearest-neighbour graph, and a contextual block model."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.memory import check_size
from sslcollapse.domains.base import DIGITS, SMALLEST_DIGIT_CLASS, check_parts, stratified_split
from sslcollapse.domains.graph.data import GraphDataset, make_graph
from sslcollapse.domains.graph.stream import GraphStream
from sslcollapse.recipe.schema import Above, AtLeast, Between, Probability, Weight, Width


class DigitsGraph:
    """Scikit-learn's 1,797 handwritten digits as a symmetric k-nearest-neighbour graph.

    An edge joins i and j when either is among the other's k nearest (Euclidean, ties to the first); features
    are the 64 pixels divided by 16. The split ``"public"`` is stratified and the same in every run.

    Args:
        data_root: ignored; the digits come with scikit-learn.
        k: neighbours of each node.
        train_per_class: training nodes of each digit.
        validation_per_class: validation nodes of each digit; the rest is test.

    Source: Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits.
    """

    num_features = 64

    def __init__(
        self,
        data_root: Path,
        *,
        k: Annotated[int, Between(1, DIGITS - 1)] = 10,
        train_per_class: Width = 20,
        validation_per_class: Width = 30,
    ) -> None:
        if not 1 <= k < DIGITS:
            raise RecipeError(f"k must be between 1 and {DIGITS - 1}, got {k}")
        check_parts(train_per_class, validation_per_class, SMALLEST_DIGIT_CLASS, "nodes")
        self.k = k
        self.parts = train_per_class, validation_per_class

    def files(self) -> list[Path]:
        """None."""
        return []

    def describe(self) -> str:
        """One line for a dry run."""
        return (
            f"Digits: {DIGITS:,} nodes joined to their {self.k} nearest neighbours, 64 features, 10 classes "
            "(embedded in scikit-learn, no files)"
        )

    def load(self) -> GraphDataset:
        """Build the graph."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        edges = _nearest_neighbour_edges(digits.data, self.k)
        graph = make_graph(
            torch.from_numpy(digits.data / 16.0).float(),
            torch.from_numpy(edges),
            torch.from_numpy(digits.target).long(),
            name="Digits",
            normalize=False,
        )
        return GraphDataset("Digits", (graph,), 10, {"public": (stratified_split(digits.target, *self.parts, seed=0),)})


class CSBM:
    """Contextual stochastic block model with chosen size, homophily and feature signal.

    Classes are balanced. Two nodes of one class are joined with probability
    ``homophily · degree / (nodes/classes − 1)``, two of different classes with
    ``(1 − homophily) · degree / (nodes − nodes/classes)``: the expected degree is ``degree`` and the expected
    share of edges within classes ``homophily`` (``1/classes`` is about no structure). Features are

        x_i = signal · u_{y_i} + z_i,   u_c, z_i ~ N(0, I/F),

    so that ``signal`` is the length of a class mean over that of the noise. ``graph pack`` writes the graph of
    ``csbm_streamed`` in its place, which has other draws.

    Args:
        data_root: ignored; the graph is drawn, not read.
        nodes: number of nodes.
        classes: number of classes.
        features: feature width F.
        degree: expected number of neighbours.
        homophily: expected share of edges within classes, in [0, 1].
        signal: strength of the class means in the features, >= 0.
        seed: of the graph, its features and its split; independent of the model's.
        train_per_class: training nodes of each class.
        validation_per_class: validation nodes of each class; the rest is test.

    Source: Deshpande et al. 2018, arXiv 1807.09596 (two classes, ``signal² = μ/nodes``, means u and −u); here
    with any number of classes and independent means.
    """

    def __init__(
        self,
        data_root: Path,
        *,
        nodes: Width = 1000,
        classes: Annotated[int, AtLeast(2)] = 5,
        features: Width = 64,
        degree: Annotated[float, Above(0)] = 10.0,
        homophily: Probability = 0.8,
        signal: Weight = 0.5,
        seed: Annotated[int, AtLeast(0)] = 0,
        train_per_class: Width = 20,
        validation_per_class: Width = 30,
    ) -> None:
        if classes < 2:
            raise RecipeError(f"classes must be >= 2, got {classes}")
        if features < 1:
            raise RecipeError(f"features must be >= 1, got {features}")
        if seed < 0:
            raise RecipeError(f"seed must be >= 0, got {seed}")
        if not degree > 0:
            raise RecipeError(f"degree must be > 0, got {degree}")
        if not 0 <= homophily <= 1:
            raise RecipeError(f"homophily must be in [0, 1], got {homophily}")
        if not 0 <= signal < float("inf"):
            raise RecipeError(f"signal must be >= 0 and finite, got {signal}")
        check_parts(train_per_class, validation_per_class, nodes // classes, "nodes")
        size = nodes / classes
        self.within = homophily * degree / (size - 1)
        self.between = (1 - homophily) * degree / (nodes - size)
        if max(self.within, self.between) > 1:
            raise RecipeError(
                f"degree {degree} with homophily {homophily} needs more neighbours than classes of {size:g} "
                "nodes offer; lower degree or raise nodes"
            )
        self.nodes, self.classes, self.num_features = nodes, classes, features
        self.degree, self.homophily, self.signal, self.seed = degree, homophily, signal, seed
        self.parts = train_per_class, validation_per_class

    def files(self) -> list[Path]:
        """None."""
        return []

    def describe(self) -> str:
        """One line for a dry run."""
        return (
            f"CSBM: {self.nodes:,} nodes of expected degree {self.degree:g}, homophily {self.homophily:g}, "
            f"{self.num_features} features with signal {self.signal:g}, {self.classes} classes "
            f"(drawn with seed {self.seed}, no files)"
        )

    def stream(self) -> GraphStream:
        """What ``graph pack`` writes: the graph of ``csbm_streamed``, which need not be in memory."""
        from sslcollapse.domains.graph.blocks import StreamedCSBM

        pieces = StreamedCSBM.__new__(StreamedCSBM)
        pieces.__dict__.update(vars(self))
        return pieces.stream()

    def load(self) -> GraphDataset:
        """Draw the graph."""
        arrays = 4 * self.nodes * self.num_features + 32 * self.nodes * self.degree  # features; edges, while sorted
        check_size(int(arrays), f"domain.dataset.nodes={self.nodes}")
        rng = np.random.default_rng(self.seed)
        labels = rng.permutation(np.arange(self.nodes) % self.classes)
        pairs = self._pairs(labels, rng)  # [2, E/2]
        edges = np.concatenate([pairs, pairs[::-1]], axis=1)
        edges = edges[:, np.lexsort((edges[1], edges[0]))]
        scale = np.float32(self.num_features**-0.5)
        means = rng.standard_normal((self.classes, self.num_features), dtype=np.float32) * scale
        noise = rng.standard_normal((self.nodes, self.num_features), dtype=np.float32) * scale
        graph = make_graph(
            torch.from_numpy(np.float32(self.signal) * means[labels] + noise),
            torch.from_numpy(edges),
            torch.from_numpy(labels),
            name="CSBM",
            normalize=False,
        )
        split = stratified_split(labels, *self.parts, seed=self.seed)
        return GraphDataset("CSBM", (graph,), self.classes, {"public": (split,)})

    def _pairs(self, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Joined pairs [2, E/2], a binomial number of distinct ones a block, never an N x N array."""
        members = [np.flatnonzero(labels == c) for c in range(self.classes)]
        blocks = []
        for nodes in members:
            n = len(nodes)
            i, j = triangle(draw_distinct(n * (n - 1) // 2, self.within, rng), n)
            blocks.append(np.stack([nodes[i], nodes[j]]))
        for a, b in combinations(members, 2):
            i, j = np.divmod(draw_distinct(len(a) * len(b), self.between, rng), len(b))
            blocks.append(np.stack([a[i], b[j]]))
        return np.concatenate(blocks, axis=1)


def _nearest_neighbour_edges(points: np.ndarray, k: int) -> np.ndarray:
    """Edges [2, E], both directions, between each point [N, d] of integers and its k nearest.

    Ties go to the first: integer squared distances are exact in float64 and the sort is stable, so that the
    graph is the same on every machine. A library's tie-breaking may depend on its number of threads.
    """
    squares = (points**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * points @ points.T  # [N, N], N is 1,797
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :k]
    joined = np.zeros(distances.shape, dtype=bool)
    np.put_along_axis(joined, nearest, True, axis=1)
    return np.stack(np.nonzero(joined | joined.T))


def draw_distinct(population: int, probability: float, rng: np.random.Generator) -> np.ndarray:
    """Distinct numbers below ``population``, each there independently with this probability; int64."""
    count = int(rng.binomial(population, probability))
    if 3 * count > population:  # dense: memory is proportional to the result anyway
        return rng.permutation(population)[:count]
    drawn = np.empty(0, dtype=np.int64)
    while len(drawn) < count:
        drawn = np.unique(np.concatenate([drawn, rng.integers(population, size=count - len(drawn) + 16)]))
    return rng.permutation(drawn)[:count]


def triangle(index: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The pair i < j < n at each position of the list (0, 1), (0, 2), ..., (n-2, n-1)."""
    # Counted from the end rows start at k(k + 1)/2, whose root is right to a row whatever n is: no two large numbers
    # are subtracted in it.
    left = n * (n - 1) // 2 - 1 - index
    k = ((np.sqrt(8.0 * left + 1) - 1) / 2).astype(np.int64)
    k -= left < k * (k + 1) // 2
    k += left >= (k + 1) * (k + 2) // 2
    i = n - 2 - k
    return i, index - i * (2 * n - i - 1) // 2 + i + 1
