"""A diagnosis, a comparison and a series as tables and sentences."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sslcollapse.core.console import PlainConsole, Table, Text
from sslcollapse.core.texts import printable
from sslcollapse.layers.layer import Uncovered
from sslcollapse.rank.diagnose.diagnosis import Diagnosis, LayerReport
from sslcollapse.rank.diagnose.verdicts import (
    COLLAPSED,
    DEGRADING,
    HEALTHY,
    NO_CHANGE,
    Judged,
)

if TYPE_CHECKING:
    from sslcollapse.rank.diagnose.compare import Change
    from sslcollapse.rank.diagnose.series import Series

_STYLES = {HEALTHY: "green", DEGRADING: "yellow", COLLAPSED: "bold red"}
_WIDTH = 150
_FALLS = 5


def unchanged_adapters(diagnosis: Diagnosis) -> list[str]:
    """One line on the adapters that change nothing, whose rank of zero is no loss."""
    names = [layer.name for layer in diagnosis.layers if layer.weight.reason == NO_CHANGE]
    if not names:
        return []
    shown = ", ".join(names[:5]) + (f", … ({len(names)} in all)" if len(names) > 5 else "")
    return [f"no change: {shown}: B·A is zero, as of an adapter that has not been trained"]


def table(diagnosis: Diagnosis) -> Table:
    """One row a layer, the representation last."""
    outputs = diagnosis.representation is not None
    view = Table(title=diagnosis.title, title_justify="left")
    view.add_column("layer", overflow="fold")
    titles = ["shape", "effective rank", "of random", "stable rank", "condition", "‖WᵀW−I‖"]
    columns = columns_shown(diagnosis)
    titles += columns
    titles += ["output's rank", "of untrained"] if outputs else []
    for title in titles:
        view.add_column(title, justify="right")
    view.add_column("verdict")
    for layer in diagnosis.layers:
        more = [_number(layer.weight.columns.get(name)) for name in columns]
        cells = _weight_cells(layer.weight) + more + (_output_cells(layer.output) if outputs else [])
        view.add_row(printable(layer.name), *cells, _styled(layer.verdict))
    if diagnosis.representation is not None:
        cells = [""] * (6 + len(columns)) + _output_cells(diagnosis.representation)
        view.add_row("representation", *cells, _styled(diagnosis.representation.verdict))
    return view


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


def since_when(diagnosis: Diagnosis) -> list[str]:
    """When the layers fell, as far as it is known; nothing of a healthy network."""
    if diagnosis.verdict == HEALTHY:
        return []
    if diagnosis.falls is None:
        return ["one checkpoint does not say; give several, the oldest first: sslcollapse diagnose A B C ..."]
    if not diagnosis.falls:
        return ["at no step that was recorded: layers were judged as healthy during the run"]
    more = len(diagnosis.falls) - _FALLS
    return [str(fall) for fall in diagnosis.falls[:_FALLS]] + ([f"and {more} more"] if more > 0 else [])


def what_to_try(diagnosis: Diagnosis) -> list[str]:
    """Advice by what was found; nothing of a healthy network."""
    bad = [layer for layer in diagnosis.layers if layer.verdict != HEALTHY]
    weights = [layer for layer in bad if layer.weight.verdict != HEALTHY]
    outputs = [layer for layer in bad if layer.output is not None and layer.output.verdict != HEALTHY]
    whole = diagnosis.representation
    advice = []
    if diagnosis.unmeasured or any(not layer.weight.rank.finite for layer in bad):
        advice.append(
            "entries that are not finite: go back to the last healthy checkpoint; lower the learning rate, clip "
            "gradients, and use bf16 or float32 where it was fp16"
        )
    if any(layer.weight.rank.finite and not layer.weight.rank.effective_rank for layer in weights):
        advice.append("a weight of zeros: see whether the layer is used at all, and whether it was initialised")
    low = [layer for layer in weights if layer.weight.rank.finite and layer.weight.rank.effective_rank]
    if low:
        advice.append(
            f"weights have lost rank, the first at {low[0].name}: WERank on the encoder (a coefficient of 1e-3 to "
            "1e-1), less weight decay there; unless the layer was pruned, factorised or distilled on purpose"
        )
    if (outputs or (whole is not None and whole.verdict != HEALTHY)) and not weights:
        advice.append(
            "outputs have lost rank and weights have not: look at the objective first (negatives or a variance term, "
            "the predictor and its stop-gradient, the temperature, the strength of the views)"
        )
    elif outputs and weights and outputs[0].depth < weights[0].depth:
        advice.append(f"outputs fall before weights do, from {outputs[0].name} on: look at the objective and the views")
    return advice


def text_of(diagnosis: Diagnosis) -> str:
    """What the command prints."""
    stream = io.StringIO()
    show(diagnosis, PlainConsole(file=stream, width=_width(diagnosis)))
    return stream.getvalue()


def show(diagnosis: Diagnosis, console: PlainConsole | None = None) -> None:
    """Print the table, what was left out; which layers are bad, since when, and what to try."""
    console = _console(_width(diagnosis)) if console is None else console
    console.print(table(diagnosis))
    if diagnosis.data:
        n = f", N = {diagnosis.representation.rank.n}" if diagnosis.representation else ""
        _line(console, f"outputs: {diagnosis.data}{n}, un-augmented, eval mode, un-centred")
    for line in left_out(diagnosis):
        _line(console, line)
    kinds = kinds_of(diagnosis.layers)
    if len(kinds) > 1:
        _line(console, f"by kind: {'; '.join(kinds)}")
    for line in [*unchanged_adapters(diagnosis), *findings(diagnosis)]:
        _line(console, line)
    for word, lines in (("since when", since_when(diagnosis)), ("what to try", what_to_try(diagnosis))):
        for line in lines:
            _line(console, f"{word}: {line}")
    if diagnosis.against is not None:
        console.print(change_table(diagnosis))
        for line in diagnosis.unmatched:
            _line(console, f"not compared: {line}")
    counts = ", ".join(f"{diagnosis.count(verdict)} {verdict}" for verdict in _STYLES)
    _line(console, f"{len(diagnosis.layers)} layers: {counts}")


def kinds_of(layers: Sequence[LayerReport]) -> list[str]:
    """Attention, MLP, experts, ...: how many layers, their median share and the lowest; nothing where none is known."""
    from statistics import median

    from sslcollapse.rank.diagnose.matrices import kind_of_layer

    groups: dict[str, list[float]] = {}
    for layer in layers:
        groups.setdefault(kind_of_layer(layer.name), []).append(layer.weight.share)
    return [
        f"{kind}: {len(shares)} layers, median {median(shares):.2f} of random, lowest {min(shares):.2f}"
        for kind, shares in groups.items()
    ]


def change_table(diagnosis: Diagnosis) -> Table:
    """One row a layer, the most changed first."""
    view = Table(title=f"against {printable(diagnosis.against or '')}", title_justify="left")
    view.add_column("layer", overflow="fold")
    for title in CHANGE_HEADS[1:]:
        view.add_column(title, justify="right")
    for change in diagnosis.changes:
        view.add_row(printable(change.layer), *change_cells(change)[1:])
    return view


CHANGE_HEADS = ["layer", "‖B−A‖/‖A‖", "rank A", "rank B", "rank B−A", "stable B−A", "intruders", "largest angle"]
"""Of ``change_cells``."""


def change_cells(change: Change) -> list[str]:
    """One layer of a comparison."""
    if not change.change:
        return [change.layer, "0", f"{change.rank_before:.1f}", f"{change.rank_after:.1f}", "no change", "", "0", "0°"]
    return [
        change.layer,
        f"{change.change:.3g}",
        f"{change.rank_before:.1f}",
        f"{change.rank_after:.1f}",
        f"{change.rank_of_change:.1f}",
        f"{change.stable_of_change:.1f}",
        f"{change.intruders}",
        f"{change.largest_angle:.0f}°",
    ]


def text_of_series(series: Series) -> str:
    """What the command prints."""
    stream = io.StringIO()
    show_series(series, PlainConsole(file=stream, width=_WIDTH))
    return stream.getvalue()


def show_series(series: Series, console: PlainConsole | None = None) -> None:
    """Print the share of the reference by step, a row a layer; then which fell first, since when, and what to try."""
    console = _console() if console is None else console
    steps = sorted(series.diagnoses)
    shown = steps if len(steps) <= 8 else [steps[round(k * (len(steps) - 1) / 7)] for k in range(8)]
    view = Table(title=f"effective rank / reference by step: {printable(series.last.title)}", title_justify="left")
    view.add_column("layer", overflow="fold")
    for step in shown:
        view.add_column(f"{step:,}", justify="right")
    view.add_column("verdict")
    for (layer, part), course in series.courses.items():
        shares = {step: share for step, share, _ in course}
        cells = [f"{shares[step]:.2f}" if step in shares else "" for step in shown]
        label = layer if part in ("weight", "representation") else f"{layer} {part}"
        view.add_row(printable(label), *cells, _styled(course[-1][2]))
    console.print(view)
    falls = series.falls
    for place, fall in enumerate(falls):
        _line(console, f"{'first to fall' if not place else 'then'}: {fall}")
    for line in what_to_try(series.last):
        _line(console, f"what to try: {line}")
    counts = ", ".join(f"{series.last.count(verdict)} {verdict}" for verdict in _STYLES)
    _line(console, f"{len(steps)} checkpoints; of the last, {len(series.last.layers)} layers: {counts}")


def columns_shown(diagnosis: Diagnosis) -> list[str]:
    """Names of the columns that were asked for."""
    return list(dict.fromkeys(name for layer in diagnosis.layers for name in layer.weight.columns))


def _console(width: int = _WIDTH) -> PlainConsole:
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=width)  # a log has no width


def _width(diagnosis: Diagnosis) -> int:
    return _WIDTH + sum(len(name) + 4 for name in columns_shown(diagnosis))


def _line(console: PlainConsole, text: str) -> None:
    console.print(printable(text), soft_wrap=True)  # a line break in a name would begin a line of its own


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.3g}"


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
