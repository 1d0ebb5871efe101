"""Rendered boxes: labels, however long or many, leave the axes their share and stay inside the figure."""

from pathlib import Path

import pytest
from boxes import crushed
from report_records import record, write_records

from sslcollapse.report.ablation_page import ablation_page, from_folder
from sslcollapse.report.curves import Line, course, heat
from sslcollapse.report.plot import fits, text_inches, wrap
from sslcollapse.report.plots_run import Spectrum, _comparison
from sslcollapse.report.scale import Key

LONG = "backbone.encoder.stages.3.blocks.11.attention.projection"
NAMES = [f"{letter}-variant of SimCLR with a very long description of all that differs" for letter in "abcdefghijklmn"]
OBJECTIVES = ("simclr", "barlow_twins", "vicreg", "simsiam", "cca_ssg", "bgrl", "byol", "grace")


def plots(page):
    return [plot for section in page.sections for plot in (*section.plots, *section.folded)]


def page_of(folder, name, values, base="Cora", path="objective"):
    rows = []
    for place, value in enumerate(values):
        for coefficient in (None, 0.01):
            for seed in range(2):
                accuracy = 0.5 + 0.01 * place + 0.1 * seed + (coefficient or 0) * (3 + seed)
                one = record(base, coefficient, seed, accuracy, 3 + place, f"{place}{coefficient}")
                one["overrides"][path] = value
                rank = one["rank"]["layers"].pop("convs.0")
                one["rank"]["layers"] = {f"{LONG}.{k}": rank for k in range(3)}
                rows.append(one)
    return ablation_page(from_folder(write_records(folder / name, rows)), Path("/nonexistent"))


GRIDS = {
    "objectives": [
        {"type": name, "projector": [2048, 2048, 2048], "temperature": 0.2 + 0.01 * place}
        for place, name in enumerate(
            ("simclr", "barlow_twins", "vicreg", "simsiam", "cca_ssg", "bgrl", "byol", "grace")
        )
    ],
    "arguments": [
        {"type": "simclr", "projector": [width] * depth, "temperature": t, "symmetric": depth > 1}
        for width, depth, t in ((2048, 1, 0.1), (1024, 2, 0.15), (512, 3, 0.2), (256, 4, 0.25), (128, 5, 0.3))
    ],
    "names": NAMES,
    "numbers": [10.0**-k for k in range(9)],
    "close numbers": [0.1 + 0.00001 * k for k in range(12)],
    "depths": [[256] * depth for depth in (1, 2, 3, 4, 8, 16)],
}


@pytest.mark.parametrize("name", GRIDS)
def test_labels_of_an_axis_never_crush_a_plot_of_an_ablation(tmp_path, name):
    made = plots(page_of(tmp_path, "grid", GRIDS[name]))
    assert len(made) > 8
    assert {plot.name: found for plot in made if (found := crushed(plot.figure()))} == {}


def test_labels_of_an_axis_show_what_differs(tmp_path):
    page = page_of(tmp_path, "grid", GRIDS["objectives"])
    (panel,) = [plot for plot in plots(page) if plot.name == "public.test_accuracy-by-objective"]
    axes = panel.figure().axes[0]
    ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
    shown = {tick.get_text().replace("\n", "") for tick in ticks}
    assert {value["type"] for value in GRIDS["objectives"]} <= shown
    assert "In labels" not in panel.caption
    assert any("In labels of plots, all have projector=2048×3; simclr has temperature=0.2;" in n for n in page.notes)
    assert axes.get_xlabel() == "public accuracy, test [%]", "rows, since eight names have no room beside each other"


def test_levels_that_are_no_numbers_are_not_joined(tmp_path):
    page = page_of(tmp_path, "grid", GRIDS["objectives"])
    by_name = {plot.name: plot.figure().axes[0] for plot in plots(page)}
    joined = [line for line in by_name["public.test_accuracy-by-objective"].lines if len(line.get_xdata()) > 2]
    assert joined == []
    assert any(len(line.get_xdata()) > 1 for line in by_name["public.test_accuracy-by-coefficient"].lines)


@pytest.mark.parametrize("count", [1, 7, 14])
def test_lines_over_steps_with_long_names(count):
    key = Key(NAMES)
    lines = [Line(name, {step: k + step for step in range(0, 5000, 100)}, key.both(name)) for k, name in
             enumerate(NAMES[:count])]  # fmt: skip
    plot = course("x", "x", "", "a name of an axis that is rather long, and goes on", lines)
    assert crushed(plot.figure()) == []


@pytest.mark.parametrize(("rows", "columns"), [(1, 14), (3, 14), (80, 4), (2, 60)])
def test_heat_maps_with_long_names(rows, columns):
    names = [f"{LONG}.{k}" for k in range(rows)]
    values = [[0.5] * columns for _ in names]
    plot = heat("x", "x", "Caption.", names, [(NAMES * 5)[k] for k in range(columns)], values, "fraction", "cells")
    assert crushed(plot.figure()) == []
    if rows > 1:
        assert "Names without backbone.encoder.stages.3.blocks.11.attention.projection. at their" in plot.caption


def test_spectra_of_runs_with_long_names():
    import numpy as np

    lines = {name: Spectrum(np.linspace(1, 0.1, 9), 9) for name in NAMES}
    assert crushed(_comparison("weight/x", lines, Key(NAMES)).figure()) == []


def test_the_measure_finds_what_is_wrong():
    """The measure itself: a label outside, labels on each other, axes that are crushed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_xticks(range(8), ["a long name of a level"] * 8)
    axes.set_yticks([0, 1], ["a name that takes most of the width " * 2, "b"])
    figure.text(0.9, 0.5, "outside the figure")
    with pytest.warns(UserWarning, match="axes sizes collapsed to zero"):
        found = crushed(figure)
    assert any("of the width" in line for line in found)
    assert "'outside the figure' is outside" in found
    assert "'a long name of a level' is on 'a long name of a level'" in found


def test_what_is_no_visible_character_is_an_escape_in_a_plot():
    names = ["a\x1b[31m", "b\u202ec"]
    plot = course("x", "x", "", "y\x07", [Line(name, {0: 1.0, 9: 2.0}) for name in names])
    svg, _ = plot.render()
    assert all(text in svg.decode() for text in (r"a\x1b[31m", r"b\u202ec", r"y\x07"))
    assert not {"\x1b", "\x07", "\u202e"} & set(svg.decode())
    rows = heat("x", "x", "", names, ["c\x1b", "d"], [[0.1, 0.2]] * 2, "fraction", "cells").render()[0].decode()
    assert r"c\x1b" in rows
    assert not {"\x1b", "\u202e"} & set(rows)


def test_text_is_wrapped_between_words_and_cut_only_where_it_must_be():
    assert wrap("one two", 9.0, 8.5, 2) == ["one two"]
    assert wrap("one two", text_inches("one", 8.5) + 0.02, 8.5, 2) == ["one", "two"]
    assert wrap("rank.layers.numerical_rank", text_inches("rank.layers.", 8.5) + 0.02, 8.5, 3) == [
        "rank.layers.",
        "numerical_",
        "rank",
    ]
    (cut,) = wrap("a" * 50, 1.0, 8.5, 2)
    assert "…" in cut
    assert text_inches(cut, 8.5) <= 1.0
    assert not fits("a" * 50, 1.0, 8.5, 2)
