"""The notebooks are notebooks, and their cells run from the first to the last."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.py"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_cells_of_code_and_of_text_and_no_outputs(path):
    jupytext = pytest.importorskip("jupytext")
    cells = jupytext.read(path)["cells"]
    assert {cell["cell_type"] for cell in cells} == {"code", "markdown"}
    assert cells[0]["source"].startswith("# ")
    assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.skipif(
    "SSLCOLLAPSE_NOTEBOOKS" not in os.environ,
    reason="they take 20 seconds of a core; set SSLCOLLAPSE_NOTEBOOKS=1 to run them",
)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_first_cell_to_its_last(path, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout


def test_the_page_of_notebooks_names_each():
    page = (ROOT / "docs/notebooks/README.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) == 3
    assert all(f"({path.name})" in page for path in NOTEBOOKS)
