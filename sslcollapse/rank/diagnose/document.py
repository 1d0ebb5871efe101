"""A diagnosis, a comparison and a series as one HTML page, drawn as those of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sslcollapse.core.texts import in_html, printable
from sslcollapse.rank.diagnose.diagnosis import Diagnosis
from sslcollapse.rank.diagnose.report import (
    CHANGE_HEADS,
    change_cells,
    columns_shown,
    findings,
    kinds_of,
    left_out,
    since_when,
    unchanged_adapters,
    what_to_try,
)
from sslcollapse.rank.diagnose.series import Series
from sslcollapse.rank.diagnose.verdicts import (
    COLLAPSED,
    DEGRADING,
    DEGRADING_BELOW,
    HEALTHY,
    OUTPUT_DEGRADING_BELOW,
)
from sslcollapse.rank.plots import draw_fan, draw_heat_map, layer_labels, step_ticks

_FOOT = "Made by sslcollapse diagnose."
_WORDS = (
    "<p>σₖ/σ₁ against k over the attainable rank, a line a layer, the colour its depth. A fall before the dashed line "
    "is lost rank.</p>"
)


def html_of(diagnosis: Diagnosis) -> str:
    """Which layer, since when, what to try; then every number, the spectra, and what has changed against a base."""
    from sslcollapse.report.page import Page, Section, one_file
    from sslcollapse.report.tables import Table

    rows = diagnosis.rows
    columns = columns_shown(diagnosis)
    heads = ["layer", "part", "kind", "shape", "effective rank", "attainable", "of reference", "stable rank", "verdict"]
    cells = [
        [
            *(row.layer, row.part, row.kind, " × ".join(map(str, row.shape)), row.effective_rank, row.attainable),
            *(row.share, row.stable_rank, row.verdict, *(row.columns.get(name, "") for name in columns)),
        ]
        for row in rows
    ]
    formats = dict.fromkeys(heads, ".1f") | {"of reference": ".2f"} | dict.fromkeys(columns, ".3g")
    changes = [change_cells(change) for change in diagnosis.changes]
    kinds = "".join(f"<p>{in_html(line)}</p>\n" for line in kinds_of(diagnosis.layers))
    sections = [
        Section(
            "layers",
            "Which layers",
            _list([*(findings(diagnosis) or ["every layer is healthy"]), *unchanged_adapters(diagnosis)]) + kinds,
        ),
        Section("since", "Since when", _list(since_when(diagnosis))),
        Section("try", "What to try", _list(what_to_try(diagnosis))),
        Section(
            "changes",
            "What has changed",
            f"<p>Against {in_html(printable(diagnosis.against or ''))}; the most changed layer first.</p>"
            if diagnosis.against
            else "",
            [Table("changes", CHANGE_HEADS, changes)],
            _change_plots(diagnosis),
        ),
        Section("numbers", "All numbers", "", [Table("layers", [*heads, *columns], cells, formats=formats)]),
        Section("spectra", "Spectra", _WORDS, (), _spectra(diagnosis)),
        Section("read", "What is read", _list([*left_out(diagnosis), *diagnosis.unmatched])),
    ]
    counts = ", ".join(f"{diagnosis.count(verdict)} {verdict}" for verdict in (HEALTHY, DEGRADING, COLLAPSED))
    lead = f"{diagnosis.verdict.capitalize()}. Of {len(diagnosis.layers)} layers: {counts}."
    return one_file(Page(printable(diagnosis.title), lead, sections, _FOOT))


def html_of_series(series: Series) -> str:
    """Which layer fell first and when, what to try, the ranks by step, and the newest diagnosis' numbers."""
    from sslcollapse.report.page import Page, Section, one_file
    from sslcollapse.report.plot import Plot
    from sslcollapse.report.tables import Table

    falls, steps, courses = series.falls, sorted(series.diagnoses), series.courses
    rows = [
        [layer, part, *(share for _, share, _ in course), course[-1][2]] for (layer, part), course in courses.items()
    ]
    whole = all(len(course) == len(steps) for course in courses.values())
    heads = ["layer", "part", *(f"{step:,}" for step in steps), "verdict"]
    plots = [
        Plot(
            f"{part}-over-time",
            f"Rank of {part}s",
            "Effective rank over its reference; 1 is the rank of an untrained one.",
            _heat_map({layer: course for (layer, own), course in courses.items() if own == part}, steps),
            ["layer", "step", "share"],
            [(layer, *point[:2]) for (layer, own), course in courses.items() if own == part for point in course],
        )
        for part in ("weight", "output")
        if any(own == part for _, own in courses)
    ]
    sections = [
        Section(
            "first", "Which layer first, and when", _list([str(fall) for fall in falls] or ["no layer has fallen"])
        ),
        Section("try", "What to try", _list(what_to_try(series.last))),
        Section("time", "Rank by step", "", (), plots),
        Section(
            "numbers",
            "Share of the reference by step",
            "",
            [Table("shares", heads, rows if whole else [], formats=dict.fromkeys(heads, ".2f"))],
        ),
    ]
    lead = f"{len(steps)} checkpoints, from step {steps[0]:,} to {steps[-1]:,}; the last is {series.verdict}."
    return one_file(Page(printable(series.last.title), lead, sections, _FOOT))


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{in_html(printable(line))}</li>' for line in lines)}</ul>\n" if lines else ""


def _spectra(diagnosis: Diagnosis) -> list[Any]:
    from sslcollapse.report.plot import Plot

    parts = {"weight": [layer.weight for layer in diagnosis.layers]}
    if outputs := [layer.output for layer in diagnosis.layers if layer.output is not None]:
        parts["output"] = outputs
    plots = []
    for word, judged in parts.items():
        lines = [(part.sigma, part.rank.reachable, part.rank.depth) for part in judged if part.sigma is not None]
        limit = DEGRADING_BELOW if word == "weight" else OUTPUT_DEGRADING_BELOW
        points = [(part.rank.layer, part.rank.depth, part.share) for part in judged]
        plots += [
            Plot(f"{word}-spectra", f"Spectra of the {word}s", "", _fan(lines), ["k"], []),
            Plot(
                f"{word}-ranks",
                f"Rank of the {word}s by depth",
                f"Effective rank over its reference; below {limit:g} a layer is degrading.",
                _depths([point[1:] for point in points], limit),
                ["layer", "depth", "share"],
                points,
            ),
        ]
    return plots


def _change_plots(diagnosis: Diagnosis) -> list[Any]:
    from sslcollapse.report.plot import Plot

    plots = []
    for k, change in enumerate(diagnosis.changes[:3]):
        if not change.change:
            continue
        spectra = {"A": change.sigma_before, "B": change.sigma_after, "B − A": change.sigma_of_change}
        plots.append(
            Plot(
                f"change-{k}",
                printable(change.layer),
                f"Singular values of A, B and B − A; principal angles {', '.join(f'{a:.0f}°' for a in change.angles)}.",
                _labelled({name: sigma.numpy() for name, sigma in spectra.items()}),
                ["of", "k", "σ"],
                [],
            )
        )
    return plots


def _fan(lines: Sequence[tuple[Any, int, int]]) -> Any:
    def draw(figure: Any) -> None:
        import matplotlib

        colours = matplotlib.colormaps["viridis"]
        deepest = max((depth for *_, depth in lines), default=0) or 1
        looks = [{"color": colours(depth / deepest), "linewidth": 1.1} for *_, depth in lines]
        draw_fan(figure.subplots(), ((s, a, look) for (s, a, _), look in zip(lines, looks, strict=True)))

    return draw


def _depths(points: Sequence[tuple[int, float]], limit: float) -> Any:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.plot([depth for depth, _ in points], [share for _, share in points], "o")
        axes.axhline(limit, linestyle="--", linewidth=1)
        axes.set(ylim=(0, max(1.1, *(share for _, share in points))), xlabel="depth", ylabel="of its reference")

    return draw


def _labelled(spectra: dict[str, np.ndarray]) -> Any:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for name, sigma in spectra.items():
            shown = sigma[sigma > 0]
            axes.plot(np.arange(1, len(shown) + 1), shown, label=name)
        axes.set(yscale="log", xlabel="k", ylabel="σₖ")
        axes.legend(frameon=False)

    return draw


def _heat_map(courses: dict[str, Sequence[tuple[int, float, str]]], steps: Sequence[int]) -> Any:
    def draw(figure: Any) -> None:
        cells = np.full((len(courses), len(steps)), np.nan)
        for row, course in enumerate(courses.values()):
            for step, share, _ in course:
                cells[row, steps.index(step)] = min(share, 1.0)
        axes = figure.subplots()
        image = draw_heat_map(axes, cells, "magma")
        labels, _ = layer_labels(list(courses))
        axes.set_yticks([k + 0.5 for k in range(len(labels))], labels, parse_math=False)
        shown = step_ticks(steps, 3.6)
        axes.set_xticks([k + 0.5 for k in shown], [f"{steps[k]:,}" for k in shown])
        axes.set_xlabel("step")
        figure.colorbar(image, ax=axes)

    return draw
