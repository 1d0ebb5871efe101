from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from report_records import record, write_records

from sslcollapse.report.ablation_page import ablation_page, from_folder
from sslcollapse.report.plot import COLOURS, INK
from sslcollapse.report.scale import Key

NOTHING = Path("/nonexistent")
OBJECTIVES = ("byol", "vicreg", "bgrl", "simclr")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two domains × four objectives × three coefficients; BYOL with WERank has one seed in the second domain."""
    rows = []
    for base in ("images", "series"):
        for place, objective in enumerate(OBJECTIVES):
            for coefficient, gain in ((None, 0.0), (0.01, 0.02), (0.1, 0.05)):
                alone = base == "series" and objective == "byol" and coefficient
                for seed in range(1 if alone else 3):
                    accuracy = 0.5 + 0.1 * place + 0.01 * seed + gain * (1 + 0.1 * seed)
                    one = record(base, coefficient, seed, accuracy, 3 + 10 * gain, f"{base}{objective}{coefficient}")
                    one["overrides"]["objective"] = {"type": objective}
                    rows.append(one)
    folder = write_records(tmp_path_factory.mktemp("results") / "domains", rows)
    return ablation_page(from_folder(folder), NOTHING)


def plots(page):
    return [plot for section in page.sections for plot in (*section.plots, *section.folded)]


def looks(plot) -> dict[str, tuple[str, str]]:
    """Label → colour and marker of a plot's legend."""
    figure = plot.figure()
    if not figure.legends:
        return {}
    handles, labels = figure.axes[0].get_legend_handles_labels()
    lines = [handle[0] if isinstance(handle, tuple) else handle for handle in handles]
    return {label: (to_hex(line.get_color()), line.get_marker()) for line, label in zip(lines, labels, strict=True)}


def test_a_colour_with_its_marker_means_one_value_in_every_panel_of_a_page(page):
    meanings: dict[str, set] = {}
    for plot in plots(page):
        for label, look in looks(plot).items():
            meanings.setdefault(label, set()).add(look)
    assert {"byol", "vicreg", "coefficient 0.01"} <= set(meanings)
    assert [label for label, found in meanings.items() if len(found) > 1] == []
    every = [look for (look,) in meanings.values()]
    assert len(set(every)) == len(every)


def test_a_colour_stands_for_the_same_part_of_every_label_it_is_in(page):
    colours: dict[str, set] = {}
    for plot in plots(page):
        for label, (colour, _) in looks(plot).items():
            colours.setdefault(label.split(" · ")[0], set()).add(colour)
    assert [part for part, found in colours.items() if len(found) > 1] == []


def test_a_cell_with_one_seed_is_drawn_hollow_and_named_in_the_caption(page):
    (panel,) = [plot for plot in plots(page) if plot.name == "difference-public.test_accuracy-by-coefficient-series"]
    assert "Hollow, since there is no interval: coefficient 0.01 · byol (n = 1)" in panel.caption
    assert "byol" in looks(panel)
    axes = panel.figure().axes[0]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata()) == 1]
    assert len(hollow) == 2, "one a coefficient"
    assert {to_hex(line.get_color()) for line in hollow} == {looks(panel)["byol"][0]}
    (forest,) = [plot for plot in plots(page) if plot.name == "forest-public.test_accuracy"]
    assert "Hollow, since there is no interval: series · coefficient 0.01 · byol (n = 1)" in forest.caption
    assert len(forest.rows) == 16
    (panel,) = [plot for plot in plots(page) if plot.name == "public.test_accuracy-by-coefficient-images"]
    assert "ollow" not in panel.caption


def test_a_cell_without_any_record_is_named_below_the_differences(tmp_path):
    from sslcollapse.ablation.grid import Ablation
    from sslcollapse.ablation.records import Records
    from sslcollapse.ablation.tables.page import columns
    from sslcollapse.ablation.values import Cell
    from sslcollapse.report.labels import factors
    from sslcollapse.report.plots_cells import forest

    rows = [record("x", c, seed, 0.5 + (c or 0) * (1 + seed), 3, f"h{c}") for c in (None, 0.1) for seed in (0, 1)]
    folder = write_records(tmp_path, rows)
    axis = "regularizers.werank.coefficient"
    cells = [Cell("x", None, {axis: value}, {}, f"h{value or None}") for value in (0.0, 0.1, 0.2)]
    baselines = {"h0.1": "hNone", "h0.2": "hNone"}
    ablation = Ablation("a", cells, [(axis,)], 2, baselines, [], [])
    records = Records(folder / "runs.jsonl")
    column = next(c for c in columns(ablation, records.of(cells, 2)) if c.percent and c.metric)
    (plot,) = forest(ablation, records, column, factors(ablation))
    assert "Without a record, so not drawn: coefficient 0.2." in plot.caption


def test_the_sides_of_zero_have_no_colour_that_means_a_value(page):
    (forest,) = [plot for plot in plots(page) if plot.name == "forest-public.test_accuracy"]
    drawn = {to_hex(line.get_color()) for line in forest.figure().axes[0].lines}
    assert drawn == {INK}
    assert drawn.isdisjoint(colour.lower() for colour in COLOURS)


def test_seventy_values_have_pairs_of_their_own_and_seven_have_colours_of_their_own():
    key = Key(range(70))
    pairs = {tuple(key.point(value).values()) for value in range(70)}
    assert len(pairs) == 70
    assert len({key.point(value)["color"] for value in range(7)}) == 7
    assert Key(["a", "b"]).point("b") == Key(["a", "b", "c"]).point("b")


def test_a_line_of_two_values_has_the_colour_of_the_first_and_the_marker_of_the_second():
    key = Key("abcd")
    assert key.point("a", "c") == {"color": key.point("a")["color"], "marker": key.point("c")["marker"]}
    assert key.line("a", "c") != key.line("a", "d")
    assert key.point()["color"] == INK
