"""What ends one of two processes before the first step or after the last, and what the other one says of it."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import text_run
from test_long_evaluation import end, start

from sslcollapse.core.files import run_lock
from sslcollapse.recipe import resolve
from sslcollapse.runs.directory import RunDirectory
from sslcollapse.training.checkpoint import newest_step


@pytest.fixture
def run(tmp_path, own_components):
    """Where the run will be; its recipe is written."""
    text_run.register()
    (tmp_path / "recipe.json").write_text(json.dumps(text_run.RECIPE))
    return RunDirectory.of(resolve(text_run.RECIPE), tmp_path).path


def ends(out):
    processes = start(out, script="text_run.py")
    said = [end(process) for process in processes]
    return [process.returncode for process in processes], said


def test_a_run_that_somebody_else_has_is_no_fault_of_the_package_on_any_rank(run, tmp_path):
    with run_lock(run):
        codes, said = ends(tmp_path)
    assert codes == [2, 2], "".join(said)
    assert f"error: {run}: this run is in use by process" in said[0]
    assert f"rank 0 failed while starting the run: {run}: this run is in use by process" in said[1]
    assert "fault of sslcollapse" not in "".join(said)


def test_a_run_that_cannot_be_described_is_no_fault_of_the_package_on_any_rank(run, tmp_path):
    (run / "environment.json").mkdir(parents=True)
    codes, said = ends(tmp_path)
    assert codes == [2, 2], "".join(said)
    assert "environment.json: cannot be written" in said[0]
    assert "rank 0 failed while starting the run" in said[1]


def test_a_signal_to_one_rank_in_the_last_step_stops_both_after_it_is_saved(run, tmp_path):
    codes, said = ends(tmp_path)
    assert codes == [75, 75], "".join(said)
    stopped = "stopped by SIGTERM after the last step, which is saved; --resume evaluates it"
    assert stopped in said[0]
    assert stopped in (run / "train.log").read_text()
    assert newest_step(run / "checkpoints") == text_run.STEPS
    assert not (run / "result.json").exists()
