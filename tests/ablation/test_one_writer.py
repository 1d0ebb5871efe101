import os

import pytest

from sslcollapse.ablation import run_ablation
from sslcollapse.core.errors import RunError
from sslcollapse.core.files import locked


def test_two_commands_cannot_write_one_results_folder(workspace):
    folders = dict(out=workspace.out, results=workspace.results)
    refused = pytest.raises(RunError, match=r"results/tiny: this results folder is in use by process")
    with locked(workspace.results / "tiny" / ".lock", "it"), refused:
        run_ablation(workspace.recipe, grid=["encoder.hidden=[4],[8]"], seeds=1, **folders)
    assert not workspace.out.exists()


def test_a_run_that_another_process_makes_is_left_to_it(workspace, capsys):
    options = dict(grid=["encoder.hidden=[4],[8]"], seeds=1, out=workspace.out)
    assert run_ablation(workspace.recipe, **options, results=workspace.results) == 0
    call = workspace.calls()[0]
    run = workspace.out / "tiny" / call["hash"] / "seed0"
    result = run / "result.json"
    result.rename(workspace.folder / "kept")
    elsewhere = workspace.folder / "elsewhere"
    log = run / "train.log"
    log.write_text("of the other")
    with locked(run.with_name(".seed0.lock"), "it"):
        assert run_ablation(workspace.recipe, **options, results=elsewhere) == 1
    assert f"this run is in use by process {os.getpid()}" in capsys.readouterr().out
    assert len(workspace.calls()) == 2
    assert log.read_text() == "of the other"
    (workspace.folder / "kept").rename(result)
    assert run_ablation(workspace.recipe, **options, results=elsewhere) == 0
    assert not (elsewhere / "tiny" / "failures.json").exists()
