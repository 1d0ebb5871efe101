"""All nodes of a graph through an encoder, layer by layer and chunk of nodes by chunk, in bounded memory.

A layer of an encoder that is ``LayerWise`` reads of other nodes what the layer before has put out, and nothing else. So
a chunk needs the rows of its nodes and of those with an edge to them, and no layer is computed twice. What comes out
is what one forward pass over all nodes gives, but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.memory import onto
from sslcollapse.core.types import Partwise
from sslcollapse.domains.graph.surroundings import EdgesOf, Surroundings, room_for
from sslcollapse.domains.graph.view import GraphView
from sslcollapse.nn.inputs import gcn_matrix, layer_wise
from sslcollapse.nn.norm import Moments, NormAct
from sslcollapse.nn.sparse import SparseMatrix

MEMORY = 2**30
"""Bytes that encoding all nodes takes, by default: a half for a chunk, a half for what layers have put out."""

_ENTRY = 128
"""Bytes of numbers and edges that an entry of a chunk takes, about, beside its rows."""

_CPU = torch.device("cpu")


class NodeChunks(Partwise):
    """The nodes of a graph, which are encoded layer by layer in chunks; an input of a probe set.

    Of the graph are read the edges into nodes (``InEdges``) and rows of features, so that both may be on disk. An
    encoder that is not ``LayerWise`` makes one forward pass, for which the graph has to be in memory.

    Args:
        graph: un-augmented, on the host.
        device: on which chunks are computed.
        rows: numbers of the nodes that are wanted [R], ascending; None for all.
        memory: bytes for a chunk and for what layers have put out. Layers beyond it are in a file without a name in the
            system's temporary folder (``TMPDIR``), mapped to memory. A chunk has one node with all its neighbours at
            least.
    """

    def __init__(
        self,
        graph: GraphView,
        *,
        device: torch.device = _CPU,
        rows: Tensor | None = None,
        memory: int = MEMORY,
    ) -> None:
        if memory < 1:
            raise ValueError(f"memory must be >= 1 byte, got {memory}")
        self.device, self.rows, self.memory = device, rows, memory
        self._graph = EdgesOf(graph)

    def __len__(self) -> int:
        """How many nodes are wanted."""
        return self._graph.nodes if self.rows is None else len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """(number of wanted nodes, F)."""
        return len(self), self._graph.view.features.shape[1]

    def only(self, rows: Tensor) -> NodeChunks:
        """The same graph, of whose nodes that are wanted only some are, by their numbers among them, ascending."""
        rows = rows.to("cpu")
        return self._other(rows=rows if self.rows is None else self.rows[rows])

    def to(self, device: torch.device) -> NodeChunks:
        """The same graph, encoded on another device; it stays where it is."""
        return self._other(device=device)

    def check(self, encoder: nn.Module) -> None:
        """Refuse an encoder that needs a graph which is on disk as a whole.

        Raises:
            RecipeError: says which encoders do not.
        """
        if self._graph.stored and not layer_wise(encoder):
            raise RecipeError(
                f"encoder: {type(encoder).__name__} needs the whole graph in memory to encode its nodes, and this one "
                "is stored on disk; use the encoder 'gcn' or 'sage', which are applied layer by layer, or a dataset "
                "that is read into memory"
            )

    def whole(self) -> GraphView | None:
        """The graph for one forward pass, on the device; None where it is on disk."""
        return None if self._graph.stored else self._graph.view.to(self.device)

    def encoded(self, encoder: nn.Module) -> Tensor:
        """Representations [N, d] of all wanted nodes in float32, on the device; a mapped file stays on the host."""
        kept: Tensor | None = None
        start, width = 0, int(encoder.out_dim)  # type: ignore[arg-type]
        for part in self.parts(encoder):
            if kept is None:
                kept = room_for((len(self), width), torch.float32, self.memory // 2)
            kept[start : start + len(part)] = part
            start += len(part)
        if kept is None:
            return torch.empty(0, width, device=self.device)
        return kept.to(self.device) if kept.nbytes <= self.memory // 2 else kept

    @torch.no_grad()
    def parts(self, encoder: nn.Module, seen: Callable[[Tensor, int], None] | None = None) -> Iterator[Tensor]:
        """Representations [n, d] of the wanted nodes in order, in parts; see ``Partwise``.

        Raises:
            RecipeError: an encoder that needs a graph which is on disk as a whole.
            RunError: the temporary folder has no room for what a layer puts out.
        """
        tell = seen or (lambda own, samples: None)
        if not layer_wise(encoder):
            yield from self._at_once(encoder, tell)
            return
        below = _Below(None, ())
        needed = self._needed(encoder)
        for depth, nodes in enumerate(needed):
            made = self._layer(encoder, depth, nodes, below, tell)
            if depth == len(needed) - 1:
                for chunk, state in made:
                    own = self._wanted(chunk)
                    if len(own):
                        yield state[0] if len(own) == len(chunk) else state[0][own.to(self.device)]
                return
            count, start = self._graph.nodes if nodes is None else len(nodes), 0
            kept: list[Tensor] = []
            for chunk, state in made:
                kept = kept or [room_for((count, part.shape[1]), part.dtype, self.memory // 8) for part in state]
                for room, part in zip(kept, state, strict=True):
                    room[start : start + len(chunk)] = part
                start += len(chunk)
            below = _Below(nodes, tuple(kept))

    def propagated(self, hops: int) -> Tensor:
        """Aʰ x of the wanted nodes [N, F] with A = D^-1/2 (A + I) D^-1/2, as ``encoded`` has representations."""
        return self.encoded(_Hops(hops, self.shape[1]))

    def _other(self, **changes: Any) -> NodeChunks:
        other = NodeChunks.__new__(NodeChunks)
        other.__dict__.update(self.__dict__ | changes)
        return other

    def _at_once(self, encoder: nn.Module, seen: Callable[[Tensor, int], None]) -> Iterator[Tensor]:
        self.check(encoder)
        view = self.whole()
        h = encoder(view)
        own = torch.arange(len(h)) if self.rows is None else self.rows
        seen(own, len(h))
        yield h if self.rows is None else h[own.to(h.device)]

    def _needed(self, encoder: Any) -> list[Tensor | None]:
        """Of each layer the nodes whose rows are needed, ascending; None for all."""
        layers = len(encoder.convs)
        if self.rows is None or any(norm.couples for norm in encoder.norm_acts):
            return [None] * layers
        nodes: Tensor | None = self.rows
        needed = [nodes]
        for _ in range(layers - 1):
            if nodes is not None:
                marked = torch.zeros(self._graph.nodes, dtype=torch.bool)
                marked[nodes] = True
                for chunk in self._chunks(nodes, 64):
                    marked[self._graph.edges.all(chunk)[1]] = True
                # Where it is nearly all, numbers of nodes are their places, which need not be looked for.
                nodes = None if 2 * int(marked.sum()) > len(marked) else marked.nonzero().flatten()
            needed.insert(0, nodes)
        return needed

    def _wanted(self, chunk: Tensor) -> Tensor:
        """Places in a chunk of the nodes that are wanted."""
        if self.rows is None or not len(self.rows):
            return torch.arange(len(chunk) if self.rows is None else 0)
        place = torch.searchsorted(self.rows, chunk).clamp_(max=len(self.rows) - 1)
        return (self.rows[place] == chunk).nonzero().flatten()

    def _chunks(self, nodes: Tensor | None, width: int) -> Iterator[Tensor]:
        """Numbers of consecutive nodes among ``nodes`` that with their neighbours have rows in a share of memory."""
        count, start = self._graph.nodes if nodes is None else len(nodes), 0
        most = max(1, self.memory // 4 // (8 * width + _ENTRY))
        while start < count:
            stop = min(count, start + most)
            some = torch.arange(start, stop) if nodes is None else nodes[start:stop]
            entries = (self._graph.edges.degree(some) + 1).cumsum(0)
            fit = max(1, int(torch.searchsorted(entries, most, right=True)))
            yield some[:fit]
            start += fit

    def _layer(
        self,
        encoder: Any,
        depth: int,
        nodes: Tensor | None,
        below: _Below,
        seen: Callable[[Tensor, int], None],
    ) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        """Chunks of nodes, and what a layer makes of each; a normalisation that couples rows takes a second round."""
        conv, norm_act = encoder.convs[depth], encoder.norm_acts[depth]
        width = max(self.shape[1] if not depth else below.kept[0].shape[1], getattr(encoder, "out_dim", 0))
        outputs: Tensor | None = None
        finish = norm_act
        if norm_act.couples:  # of all rows, so that nodes is None
            moments, start = Moments(0, self.device), 0
            for chunk in self._chunks(nodes, width):
                out = conv(*self._inputs(encoder, depth, chunk, below)[:2])
                if outputs is None:
                    outputs = room_for((self._graph.nodes, out.shape[1]), out.dtype, self.memory // 8)
                    moments = Moments(out.shape[1], out.device)
                moments.add(out)
                outputs[start : start + len(chunk)] = out
                start += len(chunk)
                seen(self._wanted(chunk), len(chunk))
            finish = norm_act.given(moments)
        start = 0
        for chunk in self._chunks(nodes, width):
            features = _Later(self, chunk)
            if outputs is None:
                x, adjacency, carried = self._inputs(encoder, depth, chunk, below)
                out = conv(x, adjacency)
            else:
                x = features if not depth else onto(self.device, below.rows(chunk))
                carried, out = below.carried(chunk, self.device), onto(self.device, outputs[start : start + len(chunk)])
            state = encoder.combine(depth, finish(out), (x, *carried), features)
            start += len(chunk)
            seen(self._wanted(chunk), len(chunk))
            yield chunk, state

    def _inputs(
        self, encoder: Any, depth: int, chunk: Tensor, below: _Below
    ) -> tuple[Any, SparseMatrix, tuple[Tensor, ...]]:
        """What a convolution reads for some nodes, those nodes first; its [M, n] matrix; what is carried beside it."""
        graph = self._graph
        row, source = graph.edges.all(chunk)
        others, place = torch.unique(source, return_inverse=True)
        entries = torch.cat([chunk, others])
        structure = Surroundings(graph, chunk, others, row, place)
        x: Any = (
            graph.view.features.rows(entries).to(self.device) if not depth else onto(self.device, below.rows(entries))
        )
        whole = encoder.propagation(structure.to(self.device), None, x.dtype)
        matrix: SparseMatrix = whole.corner(len(chunk), len(entries))
        matrix.before_weights = True
        return x, matrix, below.carried(chunk, self.device)


class _Below(NamedTuple):
    """What the layer before has put out.

    Shapes:
        nodes: numbers of the n nodes that it did, ascending; None for all.
        kept: each [n, d]; the first is read of neighbours too, others of a node itself.
    """

    nodes: Tensor | None
    kept: tuple[Tensor, ...]

    def rows(self, index: Tensor, which: int = 0) -> Tensor:
        """Of some nodes."""
        return self.kept[which][index if self.nodes is None else torch.searchsorted(self.nodes, index)]

    def carried(self, index: Tensor, device: torch.device) -> tuple[Tensor, ...]:
        """Of some nodes, all but the first."""
        return tuple(onto(device, self.rows(index, which)) for which in range(1, len(self.kept)))


class _Later:
    """Features of some nodes, read when a layer multiplies them, which most layers do not."""

    def __init__(self, chunks: NodeChunks, nodes: Tensor) -> None:
        self._chunks, self._nodes = chunks, nodes
        self.shape = len(nodes), chunks.shape[1]

    def linear(self, weight: Tensor) -> Tensor:
        """``x @ weight.T``: [n, F] × [D, F] → [n, D]."""
        return self._chunks._graph.view.features.rows(self._nodes).to(self._chunks.device).linear(weight)


class _Hops(nn.Module):
    """Features times GCN's matrix, so often; an encoder without weights. Without hops it is the features."""

    propagation = staticmethod(gcn_matrix)

    def __init__(self, hops: int, width: int) -> None:
        super().__init__()
        self.out_dim = width
        self.convs = nn.ModuleList(_Hop(hops > 0) for _ in range(max(hops, 1)))
        self.norm_acts = nn.ModuleList(NormAct(1, "none", 0.0, "none") for _ in self.convs)

    def combine(self, depth: int, out: Tensor, state: tuple[Any, ...], features: Any) -> tuple[Tensor]:
        """The output alone."""
        return (out,)


class _Hop(nn.Module):
    def __init__(self, moves: bool) -> None:
        super().__init__()
        self.moves = moves

    def forward(self, x: Any, adjacency: SparseMatrix) -> Tensor:
        dense: Tensor = x if isinstance(x, Tensor) else x.dense
        return adjacency @ dense if self.moves else dense[: adjacency.shape[0]]
