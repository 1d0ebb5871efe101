"""The picture of rank by layer over time in two or more finished runs, side by side, and the figures behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcollapse.core.errors import RecipeError, RunError
from sslcollapse.rank.plots import rank_heat_map
from sslcollapse.rank.record import LayerRank
from sslcollapse.report.runs import Run, read_run
from tools.evidence import write_json
from tools.evidence.mechanism import HEADS

IMAGE = Path("docs/images/rank_by_depth_cora.png")


def write_depth(runs: Sequence[Path], image: Path, titles: Sequence[str] = ()) -> Path:
    """Write the picture and, beside it, a JSON with what is drawn and what the runs ended with; returns the picture.

    Args:
        runs: run directories.
        image: the picture.
        titles: one a run; by default the names of their recipes.

    Raises:
        RecipeError: another number of titles than of runs.
        RunError: a run is not finished, or has no ranks of its layers over time.
    """
    if titles and len(titles) != len(runs):
        raise RecipeError(f"--titles: give one a run, got {len(titles)} for {len(runs)} runs")
    made = {"runs": [_figures(read_run(path)) for path in runs]}
    for run, text in zip(made["runs"], titles, strict=False):
        run["title"] = text
    image.parent.mkdir(parents=True, exist_ok=True)
    write_json(image.with_suffix(".json"), made)
    draw(made, image)
    return image


def draw(made: Mapping[str, Any], image: Path) -> None:
    """The picture of what the JSON has."""
    rank_heat_map({title(run): _rows(run) for run in made["runs"]}, image)


def title(run: Mapping[str, Any]) -> str:
    """Name of the recipe with the accuracy and the rank that the run ended with."""
    return f"{run['title']}: {run['accuracy']:.1f} %, rank {run['rank']:.0f}"


def _figures(run: Run) -> dict[str, Any]:
    """What is kept of a run: how it was made, how it ended, and the outputs' share of rank by layer and step."""
    layers = [layer for layer in run.layers if layer.partition(".")[0] not in HEADS]
    outputs = {layer: run.fractions(layer, "output") for layer in layers}
    if run.result is None or not any(outputs.values()):
        raise RunError(f"{run.path}: not a finished run whose layers were measured on the way (monitor.every)")
    result, kept = run.result, run.result["rank"]["representation"]
    probe, scores = next(iter(result["evaluation"].items()))
    metric = next(name for name in scores if name.startswith("test_"))
    packages = run.environment.get("packages", {})
    return {
        "title": run.recipe["name"],
        "name": run.recipe["name"],
        "hash": result["hash"],
        "seed": result["seed"],
        "steps": result["steps"],
        "metric": f"{probe}.{metric}",
        "accuracy": round(100 * scores[metric]["mean"], 4),
        "untrained": round(100 * result["untrained"][probe][metric]["mean"], 4),
        "rank": round(kept["effective_rank"], 4),
        "attainable": kept["attainable"],
        "device": run.environment.get("device"),
        "threads": run.environment.get("threads"),
        "torch": packages.get("torch"),
        "outputs": {
            layer: {str(step): round(share, 4) for step, share in shares.items()} for layer, shares in outputs.items()
        },
    }


def _rows(run: Mapping[str, Any]) -> list[LayerRank]:
    """Rows for the drawer, which looks at layer, depth, step and fraction alone."""
    none = math.nan
    return [
        LayerRank(
            step=int(step),
            layer=layer,
            depth=depth,
            kind="output",
            n=0,
            attainable=0,
            effective_rank=none,
            fraction=share,
            rankme=none,
            stable_rank=none,
            participation_ratio=none,
            numerical_rank=0,
            rtol=none,
            effective_rank_centred=none,
            attainable_centred=None,
            participation_ratio_centred=none,
            reachable=0,
        )
        for depth, (layer, shares) in enumerate(run["outputs"].items())
        for step, share in shares.items()
    ]
