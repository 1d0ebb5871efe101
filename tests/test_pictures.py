"""The program of the guide's pictures."""

import importlib.util
from pathlib import Path

import numpy as np

from sslcollapse.diagnostics.course_plot import heat_map_cells

DOCS = Path(__file__).parents[1] / "docs"


def test_both_pictures_are_written_from_what_the_monitors_saw_and_the_guide_shows_them(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    runs = pictures.main(tmp_path, 45)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"rank_by_depth.png", "spectrum_fan.png"} == {path.name for path in (DOCS / "pictures").iterdir()}
    assert all(path.stat().st_size > 5_000 for path in tmp_path.iterdir())
    assert all(path.stat().st_size < 150_000 for path in (DOCS / "pictures").iterdir())
    guide = (DOCS / "library.md").read_text()
    assert all(f"(pictures/{name})" in guide for name in names)
    for monitor in runs.values():
        layers, steps, cells = heat_map_cells(monitor.history, "output")
        assert (layers, steps) == ([f"layer{k}" for k in range(1, 6)], list(range(0, 46, 3)))
        last = [row.fraction for row in monitor.history if row.kind == "output" and row.layer == "layer5"]
        np.testing.assert_array_equal(cells[-1], last)
    assert "without WERank: effective rank of the representation" in capsys.readouterr().out
