"""Some nodes of a graph with all that have an edge to them, and where rows of all nodes are kept."""

from __future__ import annotations

import os
import tempfile
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import RunError, in_units
from sslcollapse.core.memory import onto
from sslcollapse.domains.graph.neighbours import InEdges
from sslcollapse.domains.graph.view import GraphStructure, GraphView
from sslcollapse.nn.sparse import Pattern


class EdgesOf:
    """A graph, and the edges into its nodes, which are sorted when they are first asked for."""

    def __init__(self, view: GraphView) -> None:
        self.view, self.nodes = view, view.num_nodes
        self.stored = getattr(view.structure, "in_edges", None) is not None

    @cached_property
    def edges(self) -> InEdges:
        """Without self-loops."""
        return InEdges.of(self.view.structure)

    @cached_property
    def loops(self) -> Tensor | None:
        """Nodes with an edge to themselves, ascending, as often as they have it; None where none has."""
        if self.stored:
            found: Tensor | None = getattr(self.view.structure, "loops", None)
        else:
            source, target = self.view.structure.edge_index
            found = source[source == target]
        return None if found is None or not len(found) else found.long().sort().values


class Surroundings(GraphStructure):
    """Some nodes and all that have an edge to one of them: M entries of those nodes, then one of each of the others.

    Edges go to the first M entries alone. The others have in ``unseen`` the number of those into them.
    """

    unseen: Tensor

    def __init__(self, graph: EdgesOf, chunk: Tensor, others: Tensor, row: Tensor, place: Tensor) -> None:
        loops, count = graph.loops, chunk.new_zeros(len(chunk))
        if loops is not None:
            count = torch.searchsorted(loops, chunk, right=True) - torch.searchsorted(loops, chunk)
        own = torch.repeat_interleave(torch.arange(len(chunk)), count)
        source, target = torch.cat([place + len(chunk), own]), torch.cat([row, own])
        super().__init__(torch.stack([source, target]), len(chunk) + len(others))
        self.proper_edges = torch.arange(len(row))
        self.unseen = torch.cat([chunk.new_zeros(len(chunk)), graph.edges.degree(others)]).float()

    @cached_property
    def with_loops(self) -> Pattern:
        """As of any graph; edges come by target already, so that nothing is sorted."""
        edges, entries = len(self.proper_edges), self.num_nodes
        source, target = self.edge_index[:, :edges]
        numbers = torch.arange(edges + entries, device=source.device)
        loops = numbers[:entries]
        before = torch.bincount(target, minlength=entries).cumsum(0)
        order = torch.empty_like(numbers)
        order[numbers[:edges] + target] = numbers[:edges]
        order[before + loops] = numbers[edges:]
        row, col = torch.cat([target, loops])[order], torch.cat([source, loops])[order]
        return Pattern(row, col, order, (entries, entries))

    def to(self, device: torch.device) -> GraphStructure:
        """The same on another device."""
        if self.edge_index.device == device:
            return self
        moved = Surroundings.__new__(Surroundings)
        GraphStructure.__init__(moved, onto(device, self.edge_index), self.num_nodes)
        moved.proper_edges, moved.unseen = onto(device, self.proper_edges), onto(device, self.unseen)
        return moved


def room_for(shape: tuple[int, int], dtype: torch.dtype, memory: int) -> Tensor:
    """An uninitialised tensor on the host, in memory, or in a mapped file where it has more bytes than that."""
    size = shape[0] * shape[1] * dtype.itemsize
    if size <= memory:
        return torch.empty(shape, dtype=dtype)
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:  # has no name; it goes with the last tensor that reads it
            os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would end the process at a write
            mapped = np.memmap(file, np.uint8, "r+", shape=(size,))
    except OSError as error:
        raise RunError(
            f"{folder}: no room for {in_units(size)}, which a layer puts out for all nodes "
            f"({error.strerror or error}); set TMPDIR to a folder with more room"
        ) from error
    return torch.from_numpy(mapped).view(dtype).view(shape)
