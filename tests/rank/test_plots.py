import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
from boxes import layout
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn

from sslcollapse.rank.monitor import CollapseMonitor, MonitorError
from sslcollapse.rank.plots import attainable_over_time, heat_map_cells, rank_heat_map, spectrum_fan


@pytest.fixture
def monitor():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    with CollapseMonitor(model, every=1) as monitor:
        for step in (0, 10, 25):
            model(torch.randn(20, 5))
            monitor.summary(step=step)
    return monitor


@pytest.fixture
def drawn(monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: figures.append(figure))
    return figures


def test_cells_of_a_heat_map_are_the_fractions_of_the_history_by_depth_and_step(monitor):
    names, steps, cells = heat_map_cells(monitor.history[:-1], "output")
    assert (names, steps) == (["0", "2"], [0, 10, 25])
    expected = {(row.layer, row.step): row.fraction for row in monitor.history if row.kind == "output"}
    for i, name in enumerate(names):
        for j, step in enumerate(steps[: 3 - i]):
            assert cells[i, j] == expected[name, step]
    assert math.isnan(cells[1, 2])  # the row that was left out


def test_heat_maps_side_by_side_share_one_scale_from_0_to_1(monitor, drawn):
    rank_heat_map({"one": monitor.history, "two": monitor.history}, "x.png", kind="weight")
    images = [axis.collections[0] for axis in drawn[0].axes[:2]]
    assert [image.get_clim() for image in images] == [(0, 1), (0, 1)]
    np.testing.assert_array_equal(images[1].get_array(), heat_map_cells(monitor.history, "weight")[2])
    assert [label.get_text() for label in drawn[0].axes[0].get_yticklabels()] == ["0", "2"]


def test_heat_maps_of_runs_with_other_layers_have_a_row_a_layer_in_all_of_them(drawn):
    runs = {}
    for depth in (5, 2):
        model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(depth)))
        with CollapseMonitor(model, every=1) as other:
            model(torch.randn(8, 4))
            other.summary()
        runs[f"{depth} layers"] = other.history
    rank_heat_map(runs, "x.png")
    for axis, depth in zip(drawn[0].axes, (5, 2), strict=False):
        cells = np.ma.filled(axis.collections[0].get_array(), np.nan)
        assert axis.get_ylim() == (5, 0)  # the first on top, and none cut off
        assert np.isfinite(cells)[:, 0].tolist() == [k < depth for k in range(5)]
    assert [label.get_text() for label in drawn[0].axes[0].get_yticklabels()] == ["0", "1", "2", "3", "4"]


def test_lines_of_a_fan_are_the_spectra_over_the_largest_a_line_a_step(monitor, drawn):
    monitor.plot("x.png", kind="spectrum", layer="0")
    *lines, _ = drawn[0].axes[0].lines
    spectra = monitor.spectra_over_time("output/0")
    assert list(spectra) == [0, 10, 25]
    for line, sigma in zip(lines, spectra.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), (sigma / sigma[0]).numpy()[:5])
    assert torch.equal(spectra[25], monitor.spectra["output/0"])


def test_a_layer_that_widens_is_drawn_against_what_it_can_attain_with_a_mark_at_its_end(monitor, drawn):
    monitor.plot("x.png", kind="spectrum", layer="0")  # 5 → 8: rank 5 is full
    monitor.plot("x.png")
    for axes in (drawn[0].axes[0], drawn[1].axes[2]):
        assert axes.get_xlabel() == "k / attainable rank"
        dashed = [line for line in axes.lines if list(line.get_xdata()) == [1, 1]]
        assert [line.get_linestyle() for line in dashed] == ["--"]
        ends = {float(line.get_xdata()[-1]) for line in axes.lines if len(line.get_xdata()) in (3, 5)}
        assert ends == {1.0}


def test_samples_fewer_than_dimensions_limit_what_can_be_attained(monitor):
    model = nn.Sequential(nn.Linear(64, 32))
    with CollapseMonitor(model, every=1) as few:
        model(torch.randn(10, 64))
        few.summary(step=1)
        model(torch.randn(100, 64))
        few.summary(step=2)
    assert attainable_over_time(few.history, "output/0") == {1: 10, 2: 32}
    assert attainable_over_time(few.history, "weight/0") == {1: 32, 2: 32}
    assert attainable_over_time(monitor.history, "output/0") == dict.fromkeys((0, 10, 25), 5)


@pytest.mark.parametrize("kind", ["overview", "heatmap", "spectrum"])
def test_long_names_leave_the_panels_their_place(drawn, kind):
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(12)))
    for name in ("and_blocks_of_many_parts", "a_$backbone_{$_with_a_long_name"):
        model = nn.Sequential(OrderedDict({name: model}))
    with CollapseMonitor(model, every=1) as monitor:
        for step in range(0, 3_000_000, 300_000):
            model(torch.randn(8, 4))
            monitor.summary(step=step)
    monitor.plot("x.png", kind=kind)
    FigureCanvasAgg(drawn[0])
    found = layout(drawn[0])
    panels = {"overview": 3}.get(kind, 1)
    assert found.width * panels > 0.5
    assert found.height > 0.5
    assert found.outside == found.overlapping == []


def test_pictures_of_every_kind_are_written_and_the_last_layer_is_the_default(monitor, tmp_path):
    for kind in ("overview", "heatmap", "spectrum"):
        monitor.plot(tmp_path / f"{kind}.png", kind=kind)
        assert (tmp_path / f"{kind}.png").stat().st_size > 5_000


def test_what_cannot_be_drawn_is_refused_with_what_can(monitor):
    with pytest.raises(ValueError, match="kind must be 'overview', 'heatmap' or 'spectrum', got 'fan'"):
        monitor.plot("x.png", kind="fan")
    with pytest.raises(ValueError, match=r"layer='0': kind='heatmap' shows all layers; use kind='spectrum'"):
        monitor.plot("x.png", kind="heatmap", layer="0")
    with pytest.raises(MonitorError, match=r"no spectrum 'output/7' \(spectra: weight/0, output/0, weight/2"):
        monitor.plot("x.png", kind="spectrum", layer="7")
    with pytest.raises(ValueError, match="there is no row of kind 'output' to draw"):
        rank_heat_map({"none": []}, "x.png")
    with pytest.raises(ValueError, match="'none' has no spectrum to draw"):
        spectrum_fan({"none": {}}, "x.png")
