"""A picture of neighbourhoods of a graph: the edges and features that views keep, and those that they drop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

NODES, COLUMNS = 14, 48
"""Most nodes of a neighbourhood, and most features that are shown of it."""
SIDE, STRIP, GAP, TITLE = 180, 70, 10, 18
"""Pixels: of a drawing of edges, the height of the features below it, between them, and of a line of text."""
FINER = 3
"""Drawn so many times larger, then made smaller, for smooth lines."""

KEPT, HALF, DROPPED = "#334155", "#f59e0b", "#e79a9a"
MASKED, INK, PAPER = "#f8d7d7", "#1e293b", "#ffffff"
CLASSES = ("#2a7f62", "#3b6fb6", "#b5543f", "#8a5fb0", "#c9a227", "#4aa3a2", "#d1709a", "#7a7a7a", "#8fae3a", "#5b4b8a")


class Neighbourhood(NamedTuple):
    """Some nodes around one, which is the first of them.

    Shapes:
        nodes: [n] in the order in which a breadth-first search meets them.
        rings: [n] distance from the first, of which 2 also stands for more.
        edges: [E'] positions of the edges between them in the graph's.
        features: [n, F'] of their most frequent features.
        columns: [F'] which features these are.
        labels: [n] classes, or -1.
    """

    nodes: list[int]
    rings: list[int]
    edges: Tensor
    features: Tensor
    columns: Tensor
    labels: list[int]


def neighbourhood(edge_index: Tensor, x: Tensor, y: Tensor, center: int) -> Neighbourhood:
    """The nodes nearest to one, at most ``NODES`` of them.

    Shapes:
        edge_index: [2, E].
        x: [N, F], dense or CSR.
        y: [N] classes, or [N, C] labels.
    """
    distance = {center: 0}
    front = [center]
    while front and len(distance) < NODES:
        touching = torch.isin(edge_index, torch.tensor(front)).any(dim=0)
        near = [node for node in edge_index[:, touching].unique().tolist() if node not in distance]
        near = near[: NODES - len(distance)]
        distance |= dict.fromkeys(near, max(distance.values()) + 1)
        front = near
    nodes = list(distance)
    inside = torch.isin(edge_index, torch.tensor(nodes)).all(dim=0).nonzero().flatten()
    values = torch.stack([_row(x, node) for node in nodes])
    columns = values.abs().sum(0).topk(min(COLUMNS, x.shape[1])).indices.sort().values
    labels = [int(y[node]) if y.dim() == 1 else -1 for node in nodes]
    rings = [min(ring, 2) for ring in distance.values()]
    return Neighbourhood(nodes, rings, inside, values[:, columns], columns, labels)


def write_neighbourhoods(
    rows: Sequence[tuple[Neighbourhood, Tensor, Sequence[Any]]], titles: Sequence[str], path: Path
) -> None:
    """Write a PNG with a row a neighbourhood and a column a view.

    Args:
        rows: each with the edges [2, E] of its graph, and views of that graph.
        titles: of the columns.
        path: of the picture; its folder is made.
    """
    from PIL import Image, ImageDraw

    width, height = len(titles) * (SIDE + GAP) + GAP, len(rows) * (SIDE + STRIP + GAP) + 2 * TITLE + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    for row, (place, edge_index, views) in enumerate(rows):
        for column, view in enumerate(views):
            panel = _panel(place, edge_index, view)
            sheet.paste(panel, (GAP + column * (SIDE + GAP), TITLE + row * (SIDE + STRIP + GAP)))
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        pen.text((GAP + column * (SIDE + GAP), 4), title, fill=INK)
    left, bottom = GAP, height - TITLE
    for colour, text in ((KEPT, "edge kept"), (HALF, "one direction kept"), (DROPPED, "dropped"), (MASKED, "masked")):
        pen.rectangle((left, bottom, left + 10, bottom + 10), fill=colour)
        pen.text((left + 14, bottom), text, fill=INK)
        left += 24 + int(pen.textlength(text))
    pen.text((left, bottom), "below: features, a line a node, the middle one first", fill=INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")


def _panel(place: Neighbourhood, edge_index: Tensor, view: Any) -> Any:
    """Edges and features of one view."""
    from PIL import Image, ImageDraw

    panel = Image.new("RGB", (SIDE * FINER, (SIDE + STRIP) * FINER), PAPER)
    pen = ImageDraw.Draw(panel)
    points = _points(place, edge_index)
    for (a, b), colour in sorted(_edges(place, edge_index, view.keep).items(), key=lambda each: each[1] == KEPT):
        pen.line((*points[a], *points[b]), fill=colour, width=(1 if colour == DROPPED else 2) * FINER)
    for position, node in enumerate(place.nodes):
        (x, y), radius = points[node], (7 if position == 0 else 4) * FINER
        label = place.labels[position]
        fill = CLASSES[-3] if label < 0 else CLASSES[label % len(CLASSES)]
        pen.ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=fill, outline=INK if position == 0 else PAPER
        )
    _draw_features(pen, place, view.features.mask)
    return panel.resize((SIDE, SIDE + STRIP), Image.Resampling.LANCZOS)


def _draw_features(pen: Any, place: Neighbourhood, mask: Tensor | None) -> None:
    kept = torch.ones(len(place.columns)) if mask is None else mask[place.columns].float()
    strength = place.features.abs() / place.features.abs().amax(1, keepdim=True).clamp(min=1e-12)
    wide, high = SIDE * FINER / max(1, len(place.columns)), STRIP * FINER / len(place.nodes)
    for column, share in enumerate(kept.tolist()):
        left, top = column * wide, SIDE * FINER
        if not share:
            pen.rectangle((left, top, left + wide, top + STRIP * FINER), fill=MASKED)
            continue
        for row, value in enumerate(strength[:, column].tolist()):
            grey = int(240 - 190 * value)
            pen.rectangle((left, top + row * high, left + wide, top + (row + 1) * high), fill=(grey, grey, grey + 10))


def _edges(place: Neighbourhood, edge_index: Tensor, keep: Tensor | None) -> dict[tuple[int, int], str]:
    """Pair of nodes → colour of the edge between them, by how many of its directions are kept."""
    found: dict[tuple[int, int], list[bool]] = {}
    for edge in place.edges.tolist():
        source, target = edge_index[:, edge].tolist()
        if source != target:
            pair = (min(source, target), max(source, target))
            found.setdefault(pair, []).append(keep is None or bool(keep[edge]))
    return {pair: KEPT if all(kept) else HALF if any(kept) else DROPPED for pair, kept in found.items()}


def _points(place: Neighbourhood, edge_index: Tensor) -> dict[int, tuple[float, float]]:
    """Node → place: the first in the middle, others on two circles, each near the one that it hangs on."""
    half = SIDE * FINER / 2
    pairs = [edge_index[:, edge].tolist() for edge in place.edges.tolist()]
    angle: dict[int, float] = {place.nodes[0]: 0.0}
    points = {place.nodes[0]: (half, half)}
    for ring, radius in ((1, 0.5 if 2 in place.rings else 0.9), (2, 0.9)):
        members = [node for node, at in zip(place.nodes, place.rings, strict=True) if at == ring]
        inner = {node for node, at in zip(place.nodes, place.rings, strict=True) if at < ring}
        hangs = dict.fromkeys(members, 7.0)
        for a, b in pairs:
            for node, other in ((a, b), (b, a)):
                if node in hangs and other in inner:
                    hangs[node] = min(hangs[node], angle[other])
        for number, node in enumerate(sorted(members, key=hangs.__getitem__)):
            angle[node] = 2 * math.pi * (number + 0.5 * (ring - 1)) / len(members)
            away = radius * (half - 9 * FINER)
            points[node] = half + away * math.cos(angle[node]), half + away * math.sin(angle[node])
    return points


def _row(x: Tensor, node: int) -> Tensor:
    """[F] features of a node of a dense or CSR matrix."""
    if x.layout != torch.sparse_csr:
        return x[node]
    first, last = x.crow_indices()[node : node + 2].tolist()
    row = torch.zeros(x.shape[1])
    row[x.col_indices()[first:last]] = x.values()[first:last].float()
    return row
