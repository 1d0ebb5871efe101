"""A diagnosis as a table, as JSON and as a picture, and the command that makes them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sslcollapse.core.console import PlainConsole, Table, Text
from sslcollapse.core.files import write_atomic
from sslcollapse.core.texts import printable
from sslcollapse.layers.layer import Uncovered
from sslcollapse.rank.diagnose.diagnosis import (
    COLLAPSED,
    COLLAPSED_BELOW,
    CONDITION_LIMIT,
    DEGRADING,
    DEGRADING_BELOW,
    FEW_DIRECTIONS,
    HEALTHY,
    Diagnosis,
    Judged,
    LayerReport,
    add_outputs,
    diagnose_weights,
)
from sslcollapse.rank.diagnose.state_dict import TargetError
from sslcollapse.rank.diagnose.targets import load_data, load_target
from sslcollapse.rank.plots import draw_fan, layer_labels, shorten

FOUND = 3
"""Exit code of a diagnosis that finds what ``--fail-on`` names; no failure has it."""

NEVER = "never"
FAIL_ON = (COLLAPSED, DEGRADING, NEVER)
_STYLES = {HEALTHY: "green", DEGRADING: "yellow", COLLAPSED: "bold red"}
_COLOURS = {HEALTHY: "#2a7f62", DEGRADING: "#e0a100", COLLAPSED: "#c8321f"}
_WIDTH = 150
_MARKED = 3


def run_diagnosis(
    target: str,
    *,
    data: Path | None = None,
    json_file: Path | None = None,
    plot_file: Path | None = None,
    samples: int = 1024,
    pretrained: bool = False,
    fail_on: str = COLLAPSED,
) -> int:
    """Diagnose a target, print the table, write the files asked for.

    Args:
        target: run directory, exported encoder, state dict, or ``timm:MODEL``.
        data: recipe whose probe set the network is run on.
        json_file: where the record goes.
        plot_file: where the picture goes; its suffix is the format.
        samples: at most this many images of the probe set.
        pretrained: the published weights of a timm model.
        fail_on: the mildest verdict that makes the exit code 3; ``"never"`` for none.

    Returns:
        0, or 3 where a layer's verdict is ``fail_on`` or worse: no other error has this code.

    Raises:
        TargetError: see ``load_target`` and ``add_outputs``; also a file that cannot be written.
    """
    recipe = None if data is None else load_data(data)  # first: it may register the components of the target
    loaded = load_target(target, pretrained=pretrained)
    diagnosis = diagnose_weights(loaded)
    if recipe is not None:
        diagnosis = add_outputs(diagnosis, loaded, recipe, samples)
    _print(diagnosis)
    try:
        if json_file is not None:
            write_atomic(json_file, (json.dumps(to_json(diagnosis), indent=2) + "\n").encode())
        if plot_file is not None:
            draw(diagnosis, plot_file)
    except (OSError, ValueError) as error:
        where = " or ".join(str(path) for path in (json_file, plot_file) if path is not None)
        reason = error.strerror if isinstance(error, OSError) else error
        raise TargetError(f"{where}: cannot be written: {reason}") from error
    return FOUND if fail_on != NEVER and diagnosis.fails(fail_on) else 0


def table(diagnosis: Diagnosis) -> Table:
    """One row a layer, the representation last."""
    outputs = diagnosis.representation is not None
    view = Table(title=diagnosis.title, title_justify="left")
    view.add_column("layer", overflow="fold")
    titles = ["shape", "effective rank", "of random", "stable rank", "condition", "‖WᵀW−I‖"]
    titles += ["output's rank", "of untrained"] if outputs else []
    for title in titles:
        view.add_column(title, justify="right")
    view.add_column("verdict")
    for layer in diagnosis.layers:
        cells = _weight_cells(layer.weight) + (_output_cells(layer.output) if outputs else [])
        view.add_row(printable(layer.name), *cells, _styled(layer.verdict))
    if diagnosis.representation is not None:
        cells = [""] * 6 + _output_cells(diagnosis.representation)
        view.add_row("representation", *cells, _styled(diagnosis.representation.verdict))
    return view


def to_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The record that ``--json`` writes; None stands for what is not finite or not measured."""
    return {
        "target": diagnosis.title,
        "verdict": diagnosis.verdict,
        "counts": {verdict: diagnosis.count(verdict) for verdict in _STYLES},
        "thresholds": {
            "degrading_below": DEGRADING_BELOW,
            "collapsed_below": COLLAPSED_BELOW,
            "few_directions": FEW_DIRECTIONS,
            "condition_limit": CONDITION_LIMIT,
        },
        "data": diagnosis.data,
        "unmeasured": diagnosis.unmeasured,
        "layers": [_layer_record(layer) for layer in diagnosis.layers],
        "representation": None if diagnosis.representation is None else _output_record(diagnosis.representation),
        "coverage": {
            "parameters": diagnosis.coverage.parameters,
            "covered": diagnosis.coverage.covered,
            "share": diagnosis.coverage.share,
            "uncovered": [asdict(part) for part in diagnosis.coverage.uncovered],
        },
    }


def draw(diagnosis: Diagnosis, path: Path) -> None:
    """Write the picture: weights in the first row, outputs in a second one where there were data.

    Left, σ_k/σ₁ against k over the attainable rank: a healthy layer reaches the dashed mark, a collapsed one drops
    off a cliff before it. Right, effective rank over its reference by depth, with the thresholds.

    Raises:
        OSError, ValueError: a file that cannot be written, a suffix that is no picture's.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows: list[tuple[str, str, list[tuple[str, int, Judged]]]] = [
        (
            "weights",
            "of a random matrix of its shape",
            [(layer.name, layer.depth, layer.weight) for layer in diagnosis.layers],
        )
    ]
    if diagnosis.representation is not None:
        rows.append(("outputs", "of the untrained network", _outputs(diagnosis.layers, diagnosis.representation)))
    figure = Figure(figsize=(11, 4.2 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), 2, squeeze=False)
    deepest = max(depth for *_, entries in rows for _, depth, _ in entries)
    colours = ScalarMappable(Normalize(0, max(deepest, 1)), matplotlib.colormaps["viridis"])
    for (word, reference, entries), (left, right) in zip(rows, axes, strict=True):
        _fan(left, word, entries, colours)
        _ranks(right, word, reference, entries)
        figure.colorbar(colours, ax=left, label="depth").ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    title = shorten(printable(diagnosis.title), 120)
    figure.suptitle(title, fontsize=10, parse_math=False)  # names may have dollar signs
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.removeprefix(".") or "png", dpi=120)
    write_atomic(path, buffer.getvalue())


def left_out(diagnosis: Diagnosis) -> list[str]:
    """One line for each reason why something is no layer, what is not read first; then what share the layers hold."""
    groups: dict[tuple[bool, str], list[Uncovered]] = {}
    for part in diagnosis.coverage.uncovered:
        groups.setdefault((part.unread, part.reason), []).append(part)
    lines = []
    for (unread, reason), parts in sorted(groups.items(), key=lambda item: not item[0][0]):
        names = ", ".join(part.name for part in parts[:5]) + (f", … ({len(parts)} in all)" if len(parts) > 5 else "")
        size = sum(part.parameters for part in parts)
        lines.append(f"{'not read' if unread else 'no layer'}: {names}: {size:,} parameters: {reason}")
    coverage = diagnosis.coverage
    lines.append(f"the layers hold {coverage.covered:,} of {coverage.parameters:,} parameters ({coverage.share:.1%})")
    return lines


def findings(diagnosis: Diagnosis) -> list[str]:
    """One line for each weight, output or representation that is not healthy."""
    lines = [
        f"{layer.name}: {word} {part.verdict}: {part.reason}"
        for layer in diagnosis.layers
        for word, part in (("weight", layer.weight), ("output", layer.output))
        if part is not None and part.verdict != HEALTHY
    ]
    whole = diagnosis.representation
    if whole is not None and whole.verdict != HEALTHY:
        lines.append(f"representation {whole.verdict}: {whole.reason}")
    if diagnosis.unmeasured:
        lines.append(f"outputs {COLLAPSED}: {diagnosis.unmeasured}")
    return lines


def _print(diagnosis: Diagnosis) -> None:
    console = PlainConsole()
    if not console.is_terminal:
        console = PlainConsole(width=_WIDTH)  # a log has no width, and folded numbers cannot be read
    console.print(table(diagnosis))
    if diagnosis.data:
        n = f", N = {diagnosis.representation.rank.n}" if diagnosis.representation else ""
        _line(console, f"outputs: {diagnosis.data}{n}, un-augmented, eval mode, un-centred")
    for line in left_out(diagnosis):
        _line(console, line)
    for line in findings(diagnosis):
        _line(console, line)
    counts = ", ".join(f"{diagnosis.count(verdict)} {verdict}" for verdict in _STYLES)
    _line(console, f"{len(diagnosis.layers)} layers: {counts}")


def _line(console: PlainConsole, text: str) -> None:
    console.print(printable(text), soft_wrap=True)  # a line break in a name would begin a line of its own


def _weight_cells(weight: Judged) -> list[str]:
    shape, rank = " × ".join(map(str, weight.shape)), weight.rank
    if not rank.finite:
        return [shape, "not finite", "", "", "", ""]
    return [
        shape,
        f"{rank.effective_rank:.1f} / {rank.attainable}",
        f"{weight.share:.2f}",
        f"{rank.stable_rank:.1f} / {rank.attainable}",
        "> 1e7" if weight.condition is None else f"{weight.condition:.3g}",
        f"{weight.orthogonality_defect:.3g}",
    ]


def _output_cells(output: Judged | None) -> list[str]:
    if output is None:
        return ["", ""]
    share = f"{output.share:.2f}" if output.reference else ""
    return [f"{output.rank.effective_rank:.1f} / {output.rank.reachable}", share]


def _styled(verdict: str) -> Text:
    return Text(verdict, style=_STYLES[verdict])


def _layer_record(layer: LayerReport) -> dict[str, Any]:
    return {
        "name": layer.name,
        "depth": layer.depth,
        "verdict": layer.verdict,
        "weight": _weight_record(layer.weight),
        "output": None if layer.output is None else _output_record(layer.output),
    }


def _weight_record(weight: Judged) -> dict[str, Any]:
    rank = weight.rank
    return {
        "shape": weight.shape,
        "attainable": rank.attainable,
        "reference": weight.reference,
        "effective_rank": rank.effective_rank if rank.finite else None,
        "stable_rank": rank.stable_rank if rank.finite else None,
        "numerical_rank": rank.numerical_rank if rank.finite else None,
        "condition": weight.condition,
        "orthogonality_defect": weight.orthogonality_defect,
        "verdict": weight.verdict,
        "reason": weight.reason,
    }


def _output_record(output: Judged) -> dict[str, Any]:
    rank = output.rank
    return {
        "n": rank.n,
        "attainable": rank.reachable,
        "reference": output.reference,
        "effective_rank": rank.effective_rank,
        "effective_rank_centred": rank.effective_rank_centred,
        "verdict": output.verdict,
        "reason": output.reason,
    }


def _outputs(layers: Sequence[LayerReport], representation: Judged) -> list[tuple[str, int, Judged]]:
    entries = [(layer.name, layer.depth, layer.output) for layer in layers if layer.output is not None]
    last = max((layer.depth for layer in layers), default=-1)
    return [*entries, ("representation", last + 1, representation)]


def _fan(axis: Any, word: str, entries: Sequence[tuple[str, int, Judged]], colours: Any) -> None:
    draw_fan(
        axis,
        (
            (
                part.sigma,
                part.rank.reachable,
                {"color": colours.to_rgba(np.array(depth)), "linewidth": 1.1, "alpha": 0.85},
            )
            for _, depth, part in entries
            if part.sigma is not None
        ),
    )
    axis.set_title(f"spectra of the {word}")


def _ranks(axis: Any, word: str, reference: str, entries: Sequence[tuple[str, int, Judged]]) -> None:
    from matplotlib.ticker import MaxNLocator

    shares = [part.share for *_, part in entries]
    for verdict, colour in _COLOURS.items():
        chosen = [k for k, (*_, part) in enumerate(entries) if part.verdict == verdict]
        axis.scatter(
            [entries[k][1] for k in chosen],
            [shares[k] for k in chosen],
            color=colour,
            s=26,
            label=f"{verdict} ({len(chosen)})",
            zorder=3,
        )
    for threshold, verdict in ((DEGRADING_BELOW, DEGRADING), (COLLAPSED_BELOW, COLLAPSED)):
        axis.axhline(threshold, color=_COLOURS[verdict], linewidth=1, linestyle="--")
    worst = sorted((k for k, (*_, part) in enumerate(entries) if part.verdict != HEALTHY), key=shares.__getitem__)
    names, _ = layer_labels([name for name, *_ in entries])
    top = max(1.15, 1.05 * max(shares)) * (1.25 if worst else 1.0)  # room for names, above all points
    if worst:
        lines = [f"{names[k]}: {shares[k]:.2f} at depth {entries[k][1]}" for k in worst[:_MARKED]]
        lowest = "\n".join(["lowest:", *lines])
        axis.text(0.98, 0.97, lowest, transform=axis.transAxes, ha="right", va="top", fontsize=8, parse_math=False)
    axis.set(ylim=(0, top), title=f"rank of the {word} by depth")
    axis.set(xlabel="depth", ylabel=f"effective rank / that\n{reference}")
    axis.grid(alpha=0.25)
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False)
