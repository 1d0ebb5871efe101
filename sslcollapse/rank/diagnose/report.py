"""A diagnosis as a table and as JSON, and the command that makes them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from sslcollapse.core.console import PlainConsole
from sslcollapse.core.files import write_atomic
from sslcollapse.core.texts import printable
from sslcollapse.layers.coverage import Uncovered
from sslcollapse.rank.diagnose.diagnosis import (
    CONDITION_LIMIT,
    Diagnosis,
    LayerReport,
    OutputReport,
    WeightReport,
    add_outputs,
    diagnose_weights,
)
from sslcollapse.rank.diagnose.state_dict import TargetError
from sslcollapse.rank.diagnose.targets import load_target
from sslcollapse.rank.diagnose.verdict import (
    COLLAPSED,
    COLLAPSED_BELOW,
    DEGRADING,
    DEGRADING_BELOW,
    FEW_DIRECTIONS,
    HEALTHY,
)

FOUND = 3
"""Exit code of a diagnosis that finds what ``--fail-on`` names; no failure has it."""

NEVER = "never"
FAIL_ON = (COLLAPSED, DEGRADING, NEVER)
_STYLES = {HEALTHY: "green", DEGRADING: "yellow", COLLAPSED: "bold red"}
_WIDTH = 150


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
    loaded = load_target(target, pretrained=pretrained)
    diagnosis = diagnose_weights(loaded)
    if data is not None:
        diagnosis = add_outputs(diagnosis, loaded, data, samples)
    _print(diagnosis)
    try:
        if json_file is not None:
            write_atomic(json_file, (json.dumps(to_json(diagnosis), indent=2) + "\n").encode())
        if plot_file is not None:
            from sslcollapse.rank.diagnose.plot import draw

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
        "representation": None if diagnosis.representation is None else _record(diagnosis.representation),
        "coverage": {
            "parameters": diagnosis.coverage.parameters,
            "covered": diagnosis.coverage.covered,
            "share": diagnosis.coverage.share,
            "uncovered": [asdict(part) for part in diagnosis.coverage.uncovered],
        },
    }


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
        n = f", N = {diagnosis.representation.n}" if diagnosis.representation else ""
        _line(console, f"outputs: {diagnosis.data}{n}, un-augmented, eval mode, un-centred")
    for line in left_out(diagnosis):
        _line(console, line)
    for line in findings(diagnosis):
        _line(console, line)
    counts = ", ".join(f"{diagnosis.count(verdict)} {verdict}" for verdict in _STYLES)
    _line(console, f"{len(diagnosis.layers)} layers: {counts}")


def _line(console: PlainConsole, text: str) -> None:
    console.print(printable(text), soft_wrap=True)  # a line break in a name would begin a line of its own


def _weight_cells(weight: WeightReport) -> list[str]:
    shape = f"{weight.shape[0]} × {weight.shape[1]}"
    if weight.effective_rank is None:
        return [shape, "not finite", "", "", "", ""]
    return [
        shape,
        f"{weight.effective_rank:.1f} / {weight.attainable}",
        f"{weight.effective_rank / weight.reference:.2f}",
        f"{weight.stable_rank:.1f} / {weight.attainable}",
        "> 1e7" if weight.condition is None else f"{weight.condition:.3g}",
        f"{weight.orthogonality_defect:.3g}",
    ]


def _output_cells(output: OutputReport | None) -> list[str]:
    if output is None:
        return ["", ""]
    share = f"{output.effective_rank / output.reference:.2f}" if output.reference else ""
    return [f"{output.effective_rank:.1f} / {output.attainable}", share]


def _styled(verdict: str) -> Text:
    return Text(verdict, style=_STYLES[verdict])


def _layer_record(layer: LayerReport) -> dict[str, Any]:
    return {
        "name": layer.name,
        "depth": layer.depth,
        "verdict": layer.verdict,
        "weight": _record(layer.weight),
        "output": None if layer.output is None else _record(layer.output),
    }


def _record(part: WeightReport | OutputReport) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if name != "sigma"}
