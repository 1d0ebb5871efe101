"""What depth does: how smooth node features become over the edges of a graph, and how consecutive weights line up.

Smoothing and loss of rank are two views of one thing (Cai & Wang 2020): features that are the same at every node have
no Dirichlet energy and rank one. They are not the same number, since features may be smooth and of full rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.memory import to_host
from sslcollapse.core.types import Neighbours, Point
from sslcollapse.layers.map import CONVOLUTIONS, Layer
from sslcollapse.rank.spectrum import widest

_CHUNK = 2**22
"""Entries of the differences over edges that are made at once."""

SMOOTHNESS = ("dirichlet_energy", "dirichlet_ratio", "mad", "mad_neighbours")
"""What ``smoothness`` gives, in this order."""


class Smoothness:
    """Sums over nodes and edges of graphs, of which ``values`` makes the measures; nothing waits for the device.

    Args:
        dim: width of the features.
        device: of the features.
    """

    def __init__(self, dim: int, device: torch.device) -> None:
        self._nodes = self._edges = 0
        wide: dict[str, Any] = dict(dtype=torch.float64, device=device)
        self._shift: Tensor | None = None
        self._total, self._square = torch.zeros(dim, **wide), torch.zeros((), **wide)  # of x less the shift
        self._direction, self._proper = torch.zeros(dim, **wide), torch.zeros((), **wide)  # Σ x/‖x‖, how many x ≠ 0
        self._apart = torch.zeros(3, **wide)  # Σ ‖xᵢ − xⱼ‖², Σ 1 − cos, edges with a cosine

    @torch.no_grad()
    def add(self, features: Tensor, edges: Tensor) -> None:
        """Add one graph.

        Args:
            features: [N, d], one row a node.
            edges: [2, E] pairs of rows, both directions of an undirected edge; loops add nothing to the energy, and
                should be left out.
        """
        x = widest(features, "node features [N, d]")
        self._nodes, self._edges = self._nodes + len(x), self._edges + edges.shape[1]
        if self._shift is None:
            self._shift = x.mean(0)
        about = x - self._shift  # a large mean would cost the variance its digits
        self._total += about.sum(0)
        self._square += about.square().sum()
        size = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        unit = torch.where(size > 0, x / torch.where(size > 0, size, 1.0), 0.0)
        proper = (size[:, 0] > 0).to(x.dtype)
        self._direction += unit.sum(0)
        self._proper += proper.sum()
        for source, target in zip(*(part.split(max(_CHUNK // max(x.shape[1], 1), 1)) for part in edges), strict=True):
            both = proper[source] * proper[target]
            # 1 − cos is half the squared distance of the directions, without the cancellation.
            cosine = both * (unit[source] - unit[target]).square().sum(1) / 2
            self._apart[0] += (x[source] - x[target]).square().sum()
            self._apart[1] += cosine.sum()
            self._apart[2] += both.sum()

    def values(self) -> Tensor:
        """``SMOOTHNESS`` [4] in float64, on the device; 0 where there is nothing to compare."""
        n, edges = max(self._nodes, 1), max(self._edges, 1)
        variance = (self._square / n - (self._total / n).square().sum()).clamp(min=0.0)
        spread = 2 * variance * n / max(n - 1, 1)  # mean ‖xᵢ − xⱼ‖², i ≠ j
        ratio = self._apart[0] / edges / torch.where(spread > 0, spread, torch.inf)
        pairs = self._proper * (self._proper - 1)
        mad = (self._proper.square() - self._direction.square().sum()).clamp(min=0.0)
        near = self._apart[1] / self._apart[2].clamp(min=1.0)
        return torch.stack([self._apart[0] / n, ratio, mad / pairs.clamp(min=1.0), near])


def smoothness(features: Tensor, edges: Tensor) -> dict[str, float]:
    """How far apart the features of neighbours, and of all nodes, are: [N, d], [2, E] → ``SMOOTHNESS``.

    ``dirichlet_energy`` is Σ_i Σ_{j ∈ N(i)} ‖xᵢ − xⱼ‖² / N: 0 where every connected part of the graph has one feature.
    It has the unit of x², so layers of different scales are compared by ``dirichlet_ratio``: the mean of ‖xᵢ − xⱼ‖²
    over edges, divided by that over all pairs of nodes. It is 0 for features that are constant on connected parts, and
    about 1 for features that know nothing of the graph.

    ``mad`` is the mean of 1 − cos(xᵢ, xⱼ) over all pairs of nodes, ``mad_neighbours`` that over edges. Nodes with the
    feature 0 have no cosine and are left out.

    Args:
        features: [N, d].
        edges: [2, E] pairs of rows, both directions of an undirected edge, without loops.

    Source: energy: Rusch et al. 2023, "A Survey on Oversmoothing in Graph Neural Networks", section 2; Cai & Wang 2020,
    "A Note on Over-Smoothing for Graph Neural Networks". MAD: Chen et al. 2020, "Measuring and Relieving the
    Over-smoothing Problem for Graph Neural Networks from the Topological View", equations 2 to 4, over all pairs; the
    authors leave out pairs at distance 0, which rounding decides.
    """
    sums = Smoothness(features.shape[1], features.device)
    sums.add(features, edges)
    return dict(zip(SMOOTHNESS, to_host(sums.values()).tolist(), strict=True))


class SmoothnessOfLayers:
    """Takes what layers put out on graphs, and gives the measures of each.

    Args:
        neighbours: edges of a view, or None where it has none.
    """

    def __init__(self, neighbours: Callable[[Any], Neighbours | None]) -> None:
        self._neighbours = neighbours
        self._now: Neighbours | None = None
        self._sums: dict[Point, Smoothness] = {}

    def begin(self, view: Any) -> None:
        """What comes from now on is of this view."""
        self._now = self._neighbours(view)

    def take(self, point: Point, output: Any) -> None:
        """One output; what has not one row a node is left out."""
        now = self._now
        if now is None or not isinstance(output, Tensor) or output.dim() != 2 or len(output) != now.nodes:
            return
        if point not in self._sums:
            self._sums[point] = Smoothness(output.shape[1], output.device)
        self._sums[point].add(output, now.edges)

    def values(self) -> dict[Point, Tensor]:
        """Point → ``SMOOTHNESS`` [4], on the device."""
        return {point: sums.values() for point, sums in self._sums.items()}


def subspace_overlap(earlier: Tensor, later: Tensor, k: int = 8) -> float:
    """How much of what the second of two weights amplifies most is what the first one puts out most.

    ‖VᵀU‖²_F / k = the mean squared cosine of the principal angles between the span of the first k left singular vectors
    U of ``earlier`` and that of the first k right ones V of ``later``: 1 where the two are the same, 0 where they are
    orthogonal, and k / d on average for random subspaces of d dimensions. Where there are fewer than k singular
    values, as many as there are.

    Args:
        earlier: [d, in], the weight that comes first.
        later: [out, d].
        k: dimension of the subspaces.

    Raises:
        ValueError: for weights that do not follow each other, or a k below 1.

    Source: principal angles: Björck & Golub 1973; the overlap of subspaces as a mean of squared cosines: Krzanowski
    1979.
    """
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    if earlier.dim() != 2 or later.dim() != 2 or later.shape[1] != earlier.shape[0]:
        raise ValueError(
            f"weights that follow each other are [d, in] and [out, d], got {tuple(earlier.shape)} and "
            f"{tuple(later.shape)}"
        )
    return float(_overlap(widest(earlier), widest(later), k))


def _overlap(earlier: Tensor, later: Tensor, k: int) -> Tensor:
    k = width_of(earlier.shape, later.shape, k)
    left, right = _leading(earlier @ earlier.mH, k), _leading(later.mH @ later, k)
    return (right.mH @ left).abs().square().sum() / k


def width_of(earlier: torch.Size, later: torch.Size, k: int) -> int:
    """Of the subspaces that are compared."""
    return min(k, *earlier, *later)


def _leading(gram: Tensor, k: int) -> Tensor:
    """Eigenvectors [d, k] of the largest eigenvalues."""
    return torch.linalg.eigh(gram).eigenvectors[:, -k:]


def consecutive(layers: Mapping[str, Layer]) -> dict[str, str]:
    """Name of a layer → name of the one before it on the main path, whose output it reads, as far as shapes show.

    Within one network: the layers of a head, whose depth is counted from 0 again, have a network of their own.

    The parts of a fused map read the same and have one before them; none comes after them, since attention mixes what
    they put out. Shortcuts are left out, and so are weights of other widths, between which something else must be.
    """
    by_depth: dict[int, list[Layer]] = {}
    for layer in layers.values():
        at = by_depth.setdefault(layer.depth, [])
        if not at or at[0].module is layer.module:
            at.append(layer)
    found = {}
    depths = sorted(by_depth)
    for before, after in pairwise(depths):
        earlier = by_depth[before]
        for layer in by_depth[after]:
            if len(earlier) == 1 and _inputs(layer) == earlier[0].shape[0]:
                found[layer.name] = earlier[0].name
    return found


def _inputs(layer: Layer) -> int:
    """Channels that a layer reads; 0 for some of several groups."""
    if isinstance(layer.module, CONVOLUTIONS):
        return layer.module.in_channels if layer.module.groups == 1 else 0
    return layer.shape[1]


def overlaps(layers: Mapping[str, Layer], k: int) -> dict[str, tuple[Tensor, float]]:
    """Name of a layer → its overlap with the one before, on the device, and that of random subspaces.

    A convolution's input directions are those of its channels: of the [out · kh · kw, in] matrix of all its taps.
    """
    found = {}
    for name, before in consecutive(layers).items():
        earlier, later = widest(layers[before].weight()), widest(layers[name].weight())
        later = later.unflatten(1, (_inputs(layers[name]), -1)).movedim(1, 2).flatten(0, 1)  # [out · taps, in]
        found[name] = _overlap(earlier, later, k), width_of(earlier.shape, later.shape, k) / len(earlier)
    return found


def beside_ranks(
    smooth: SmoothnessOfLayers, networks: Sequence[Mapping[str, Layer]], overlap: int
) -> dict[Point, dict[str, float]]:
    """Point → its smoothness, or its overlap, by name; the host waits once for all.

    Args:
        smooth: of outputs.
        networks: the layers of an encoder, and of each of its heads.
        overlap: dimension of the subspaces; 0 for none.
    """
    waiting = smooth.values()
    random = {}
    for layers in networks if overlap else ():
        for name, (value, chance) in overlaps(layers, overlap).items():
            waiting[point := Point("weight", name)] = value[None]
            random[point] = chance
    if not waiting:
        return {}
    device = next(iter(waiting.values())).device
    flat = to_host(torch.cat([values.to(device) for values in waiting.values()]))
    parts = dict(zip(waiting, flat.split([len(values) for values in waiting.values()]), strict=True))
    return {
        point: {"overlap": float(values), "overlap_random": random[point]}
        if point in random
        else dict(zip(SMOOTHNESS, values.tolist(), strict=True))
        for point, values in parts.items()
    }
