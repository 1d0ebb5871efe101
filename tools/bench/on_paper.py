"""What graphs need that are larger than those measured: bytes by arithmetic, hours by the record of ``graph-scale``.

    python -m tools.bench.on_paper [docs/benchmarks/graph_scale.json]

prints the tables of ``docs/scale.md``. Bytes are exact; hours follow from the largest size that was measured and the
slopes of the record, and are no measurement.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WIDTH = 256
"""Of the layers in these tables."""


@dataclass(frozen=True)
class Size:
    """A graph.

    Attributes:
        nodes: N.
        edges: E, stored edges; an undirected one counts twice.
        features: F.
        labelled: rows in splits.
    """

    name: str
    nodes: int
    edges: int
    features: int
    labelled: int


SIZES = (
    Size("ogbn-products", 2_449_029, 123_718_280, 100, 2_449_029),
    Size("ogbn-papers100M, both directions", 111_059_956, 3_231_371_744, 128, 1_546_782),
    Size("a billion nodes of degree 14", 10**9, 14 * 10**9, 128, 10**7),
)
"""Published sizes (Hu et al. 2020); the last one is made up."""


def on_disk(size: Size, bytes_a_feature: int = 4) -> dict[str, int]:
    """Bytes of the files of a stored graph; of int8 features with a scale a node."""
    number = 4 if size.nodes < 2**31 else 8
    scale = 4 * size.nodes if bytes_a_feature == 1 else 0
    return {
        "edges": number * size.edges + 8 * (size.nodes + 1),
        "features": bytes_a_feature * size.nodes * size.features + scale,
        "labels": 8 * size.nodes + 8 * size.labelled,
    }


def evaluating(size: Size, width: int = WIDTH) -> dict[str, int]:
    """Bytes that encoding all nodes and evaluating on the labelled ones needs beside the graph.

    A layer is in a mapped file, with the one before it; representations of labelled nodes are in memory, or mapped.
    """
    return {"layers": 2 * 4 * size.nodes * width, "kept": 4 * size.labelled * width, "marks": 2 * size.nodes}


def hours(size: Size, record: Mapping[str, Any], processes: int = 1) -> dict[str, float]:
    """Hours of a pass over the nodes, and of an evaluation with ranks, by the slopes of a record.

    A step costs what it does at the largest size measured, times (N / N₀) to the slope of the step. Processes share the
    roots at the efficiency of the record's two.
    """
    last = record["results"][-1]
    ratio = size.nodes / last["nodes"]
    step = last["ms"] / 1000 * ratio ** record["slopes"]["ms"]
    speed = 1.0 if processes == 1 else processes * record["processes"]["ratio"] / 2
    grows = {name: last[name] * ratio ** max(record["slopes"][name], 1.0) for name in ("probe_seconds", "rank_seconds")}
    return {
        "pass": size.nodes / record["batch"] * step / speed / 3600,
        "evaluation": sum(grows.values()) / 3600,
    }


def tables(record: Mapping[str, Any] | None = None) -> str:
    """Both tables as Markdown; the second needs a record."""
    lines = [
        "| graph | edges | features float32 / float16 / int8 | labels and splits | temporary file of an evaluation | "
        "representations of labelled nodes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for size in SIZES:
        parts, beside = on_disk(size), evaluating(size)
        features = " / ".join(_gb(on_disk(size, kind)["features"]) for kind in (4, 2, 1))
        lines.append(
            f"| {size.name} | {_gb(parts['edges'])} | {features} | {_gb(parts['labels'])} | {_gb(beside['layers'])} | "
            f"{_gb(beside['kept'])} |"
        )
    if record is not None:
        lines += ["", "| graph | hours of a pass, 1 process | 2 | 64 | hours of an evaluation with ranks |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for size in SIZES:
            numbers = [hours(size, record, count)["pass"] for count in (1, 2, 64)]
            numbers.append(hours(size, record)["evaluation"])
            lines.append(f"| {size.name} | " + " | ".join(f"{number:,.2g}" for number in numbers) + " |")
    return "\n".join(lines)


def _gb(count: int) -> str:
    return f"{count / 1e9:,.3g} GB"


if __name__ == "__main__":
    print(tables(json.loads(Path(sys.argv[1]).read_text()) if len(sys.argv) > 1 else None))
