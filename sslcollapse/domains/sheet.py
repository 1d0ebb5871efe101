"""A picture of samples and their views, whatever they are: texts, vectors, images."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

LETTERS = 36
"""Of a line of text."""

LINES = 8
"""Of a text; the rest is left out."""


def write_sheet(rows: Sequence[Sequence[Any]], path: Path) -> None:
    """Write a PNG with a row a sample and a column a view, the first of which is the sample as it is.

    Args:
        rows: texts, and tensors [d] (a curve), [H, W] (a picture) or [C, H, W] (in colours, with C of 1 or 3).
        path: of the picture; its folder is made.
    """
    from matplotlib.figure import Figure

    columns = len(rows[0])
    figure = Figure(figsize=(2.6 * columns, 1.5 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes_row, row in zip(grid, rows, strict=True):
        for axes, entry in zip(axes_row, row, strict=True):
            axes.set_xticks([])
            axes.set_yticks([])
            if isinstance(entry, Tensor):
                _draw(axes, entry.detach().float().cpu())
            else:
                lines = textwrap.wrap(str(entry), LETTERS)[:LINES]
                axes.text(0.02, 0.95, "\n".join(lines), va="top", fontsize=6, parse_math=False)
    for column, axes in enumerate(grid[0]):
        axes.set_title("sample" if column == 0 else f"view, draw {column}", fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=150)


def _draw(axes: Any, entry: Tensor) -> None:
    if entry.dim() == 3 and entry.shape[0] in (1, 3):
        low, high = entry.min(), entry.max()
        entry = ((entry - low) / (high - low).clamp(min=1e-12)).movedim(0, -1).squeeze(-1)
    if entry.dim() == 1 or entry.shape[0] == 1:
        axes.plot(entry.flatten().numpy(), linewidth=0.7)
    else:
        axes.imshow((entry if entry.dim() == 2 or entry.shape[-1] == 3 else entry.flatten(1)).numpy(), cmap="gray")
