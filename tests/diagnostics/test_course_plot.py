import math

import numpy as np
import pytest
import torch
from torch import nn

from sslcollapse.diagnostics.course_plot import heat_map_cells, rank_heat_map, spectrum_fan
from sslcollapse.diagnostics.monitor import CollapseMonitor, MonitorError


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
    images = [axis.images[0] for axis in drawn[0].axes[:2]]
    assert [image.get_clim() for image in images] == [(0, 1), (0, 1)]
    np.testing.assert_array_equal(images[1].get_array(), heat_map_cells(monitor.history, "weight")[2])
    assert [label.get_text() for label in drawn[0].axes[0].get_yticklabels()] == ["0", "2"]


def test_lines_of_a_fan_are_the_spectra_over_the_largest_a_line_a_step(monitor, drawn):
    monitor.plot("x.png", kind="spectrum", layer="0")
    lines = drawn[0].axes[0].lines
    spectra = monitor.spectra_over_time("output/0")
    assert list(spectra) == [0, 10, 25]
    for line, sigma in zip(lines, spectra.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), np.maximum((sigma / sigma[0]).numpy(), 1e-5))
    assert torch.equal(spectra[25], monitor.spectra["output/0"])


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
