"""The nodes that matter most to a node, by approximate personalised PageRank, and a file of them for all nodes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import DataError
from sslcollapse.core.files import locked, writing
from sslcollapse.core.texts import say
from sslcollapse.domains.graph.neighbours import InEdges, distinct
from sslcollapse.nn.sparse import stable_order

AT_ONCE = 1 << 24
"""Numbers that the roots of a chunk have in memory together at most, as far as the bound on one root's says."""

HEADER = 4096
"""Bytes before the table of a file: what it is of, as JSON."""


def nearest(edges: InEdges, roots: Tensor, size: int, alpha: float, epsilon: float) -> Tensor:
    """The nodes [n, size] with the largest personalised PageRank of each root [n], which comes first; −1 for none.

    A walk from a root goes against the direction of edges, to what a convolution reads, and returns with probability
    alpha. Every node with a residual of at least epsilon × its degree is pushed, of all roots at once, until there is
    none. What is found of a root does not depend on those beside it.

    Source: Andersen, Chung & Lang 2006, Using PageRank to locally partition a graph; pushes as in Bojchevski et al.
    2020 (PPRGo).
    """
    most = max(1, int(AT_ONCE * min(1.0, alpha * epsilon)))
    return torch.cat([_largest(*_pushed(edges, part, alpha, epsilon), part, size) for part in roots.split(most)])


def _pushed(edges: InEdges, roots: Tensor, alpha: float, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Position of the root, node and PageRank of each pair that has any, sorted by root and node."""
    nodes = len(edges.pointers) - 1
    keys = torch.arange(len(roots), device=roots.device) * nodes + roots  # a number for each pair of root and node
    rank = torch.zeros(len(keys), dtype=torch.float64, device=roots.device)
    residual = torch.ones_like(rank)
    degree = edges.degree(roots).clamp(min=1)
    while len(chosen := (residual >= epsilon * degree).nonzero().flatten()):
        pushed = residual[chosen]
        rank[chosen] += alpha * pushed
        residual[chosen] = 0
        row, source = edges.all(keys[chosen] % nodes)
        given = ((1 - alpha) * pushed / degree[chosen]).index_select(0, row)
        reached = (keys[chosen] // nodes * nodes).index_select(0, row) + source
        keys, place = distinct(torch.cat([keys, reached]), len(roots) * nodes)
        old, new = place.split([len(rank), len(reached)])
        rank = torch.zeros(len(keys), dtype=rank.dtype, device=rank.device).index_copy_(0, old, rank)
        residual = torch.zeros_like(rank).index_copy_(0, old, residual).index_add_(0, new, given)
        degree = edges.degree(keys % nodes).clamp(min=1)
    return keys // nodes, keys % nodes, rank


def _largest(root: Tensor, node: Tensor, rank: Tensor, roots: Tensor, size: int) -> Tensor:
    rank = torch.where(node == roots[root], torch.inf, rank)
    reached = rank > 0
    root, node, rank = root[reached], node[reached], rank[reached]
    order = torch.argsort(rank, descending=True, stable=True)
    order = order[stable_order(root[order], len(roots))[0]]
    root, node = root[order], node[order]
    counts = torch.bincount(root, minlength=len(roots))
    place = torch.arange(len(root), device=root.device) - (counts.cumsum(0) - counts)[root]
    table = node.new_full((len(roots), size), -1)
    taken = place < size
    table[root[taken], place[taken]] = node[taken]
    return table


def table_of(path: Path, edges: InEdges, size: int, alpha: float, epsilon: float) -> Tensor:
    """``nearest`` of all nodes, [N, size] int32, from a file that is made where there is none; mapped, not read.

    Of several processes that ask for it one makes it, and the others wait. It is written under a temporary name.

    Raises:
        DataError: the file is of another graph or of other arguments, is damaged, or is no such file.
        WriteError: it cannot be written.
    """
    nodes = len(edges.pointers) - 1
    made_of = {"size": size, "alpha": alpha, "epsilon": epsilon, "nodes": nodes, "graph": _digest(edges)}
    if not path.exists():
        say(f"{path}: the ego graphs of {nodes:,} nodes are found, once")
        with locked(path.with_name(f".{path.name}.lock"), f"{path}: this file", patience=float("inf")):
            if not path.exists():  # another process may have made it meanwhile
                _write(path, edges, made_of)
    with writing(path), open(path, "rb") as file:
        header, length = file.read(HEADER), os.fstat(file.fileno()).st_size
    try:
        found: dict[str, Any] = json.loads(header)
        known = found.keys() == made_of.keys()
    except (ValueError, AttributeError):
        known = False
    if not known or (found == made_of and length != HEADER + 4 * nodes * size):
        raise DataError(
            f"{path}: {'damaged' if known else 'not a file of ego graphs'}; delete it, and it is made anew, or name "
            "another in domain.batching.file"
        )
    other = [f"{name} {found[name]} instead of {made_of[name]}" for name in made_of if found[name] != made_of[name]]
    if other:
        raise DataError(
            f"{path}: these ego graphs have {', '.join(other)}; name another file in domain.batching.file, or delete it"
        )
    return torch.from_numpy(np.memmap(path, np.int32, mode="c", offset=HEADER, shape=(nodes, size)))


def _write(path: Path, edges: InEdges, made_of: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}")
    arguments = (made_of["size"], made_of["alpha"], made_of["epsilon"])
    try:
        with writing(path):
            with open(temporary, "wb") as file:
                file.write(json.dumps(made_of).encode().ljust(HEADER))
                began, pieces = time.monotonic(), torch.arange(made_of["nodes"]).split(1 << 14)
                for number, roots in enumerate(pieces):
                    file.write(nearest(edges, roots, *arguments).int().numpy().tobytes())
                    if number == 0 and len(pieces) > 1:
                        minutes = (time.monotonic() - began) * len(pieces) / 60
                        say(f"{path}: this takes about {minutes:.0f} minutes")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _digest(edges: InEdges) -> str:
    """Of all edges, whatever type they are stored with."""
    found = hashlib.blake2b(digest_size=16)
    for piece in _pieces(edges.pointers, edges.sources):
        found.update(piece.long().numpy().tobytes())
    return found.hexdigest()


def _pieces(*arrays: Tensor) -> Iterator[Tensor]:
    for array in arrays:
        yield from array.split(1 << 22)
