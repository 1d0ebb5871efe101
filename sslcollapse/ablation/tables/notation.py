"""How tables write numbers, cells and axes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.statistics.intervals import Difference, Summary
from sslcollapse.ablation.tables.columns import SECTIONS, Column
from sslcollapse.ablation.values import Cell, plain, short
from sslcollapse.core.texts import printable


def heads(ablation: Ablation) -> dict[str, str]:
    """Path of each axis whose value differs between cells (of every axis where none does) → a short title."""
    axes = list(itertools.chain.from_iterable(ablation.axes))
    differing = [path for path in ("base", *axes) if len({plain(cell.at(path)) for cell in ablation.cells}) > 1]
    varying = differing or axes or ["base"]
    return {path: _title(path, varying) for path in varying}


def legend(ablation: Ablation) -> str:
    """What the short titles stand for, and the axes that have one value; "" where there is nothing to say."""
    titles = heads(ablation)
    parts = [f"{title} is `{path}`" for path, title in titles.items() if title != path]
    text = f"Axes: {', '.join(parts)}. " if parts else ""
    cell = ablation.cells[0]
    constant = [path for axis in ablation.axes for path in axis if path not in titles]
    if constant:
        text += f"In all cells: {', '.join(f'`{path}` is {short(cell.at(path))}' for path in constant)}."
    return text.strip()


def labels(cell: Cell, titles: Mapping[str, str]) -> list[str]:
    """A cell's values under these heads."""
    return [short(cell.at(path)) for path in titles]


def number(value: float, column: Column, sign: str = "") -> str:
    """Evaluation in %, ranks with two decimals, anything else, fractions among it, with four digits."""
    if column.percent:
        return f"{100 * value:{sign}.2f}"
    return f"{value:{sign}.2f}" if column.is_rank else f"{value:{sign}.4g}"


def in_unit(value: float, column: Column, sign: str = "") -> str:
    """``number`` of a value that is in points of % already, if its column is."""
    return number(value / 100 if column.percent else value, column, sign)


def full_title(column: Column) -> str:
    """A column's title outside its section."""
    return f"effective rank, {column.title}" if column.section == SECTIONS[1] else column.title


def shown_summary(summary: Summary | None, column: Column) -> str:
    """``81.00 ± 0.50``."""
    if summary is None:
        return "–"
    mean = number(summary.mean, column)
    return mean if summary.std is None else f"{mean} ± {number(summary.std, column)}"


def shown_difference(difference: Difference | None, column: Column, corrected: float | None = None) -> str:
    """``+1.00 [+0.50, +1.50], p = 0.004``, with a corrected p-value."""
    if difference is None:
        return "–"
    text = number(difference.mean, column, "+")
    if difference.interval is not None:
        text += f" [{', '.join(number(end, column, '+') for end in difference.interval)}]"
    elif difference.n == 1 and difference.splits > 1:
        text += f" over {difference.splits} splits"
    elif difference.n > 1:
        text += " (no spread)"
    return text if corrected is None else f"{text}, {shown_p(corrected)}"


def shown_p(p: float) -> str:
    """``p = 0.012``, or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    escaped = [[printable(" ".join(text.split())).replace("|", "\\|") for text in row] for row in (titles, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return [lines[0], "|" + " --- |" * len(titles), *lines[1:]]


def _title(path: str, paths: Sequence[str]) -> str:
    """The fewest last parts of a path that no other path ends with."""
    parts = path.split(".")
    for count in range(1, len(parts)):
        ending = ".".join(parts[-count:])
        if not any(other != path and f".{other}".endswith(f".{ending}") for other in paths):
            return ending
    return path
