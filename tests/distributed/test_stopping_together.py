"""Two processes stop after the same step, and lose nothing to kills at random moments."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_two_processes import FULL_BATCH

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import kill_campaign  # noqa: E402


def wait_for_line(find, number):
    """The run directory, once so many lines of metrics are there."""
    deadline = time.monotonic() + 120
    while True:
        for path in find():
            if len(path.read_text().splitlines()) >= number:
                return path.parent
        assert time.monotonic() < deadline
        time.sleep(0.005)


def check_stopped(run):
    """The step that the log names is the newest checkpoint's, and the last one that was logged."""
    (step,) = re.findall(
        r"stopped by SIG\w+ after step (\d+), which is saved; --resume", (run / "train.log").read_text()
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert kill_campaign.newest_step(run) == int(step)
    assert max(line["step"] for line in lines) <= int(step) < kill_campaign.RECIPE["train"]["steps"]
    assert not (run / "result.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_second_of_two_processes_stops_both_after_the_same_step(number, tmp_path):
    recipe = tmp_path / "campaign.json"
    recipe.write_text(json.dumps(kill_campaign.RECIPE))
    group = kill_campaign.Group(recipe, tmp_path / "runs", tmp_path / "log")
    try:
        run = wait_for_line(lambda: tmp_path.glob("runs/campaign/*/seed0/metrics.jsonl"), 4)
        group.send(number, [1])
        group.end()
    finally:
        group.send(signal.SIGKILL, [0, 1])
    assert group.codes == {0: 75, 1: 75}, (tmp_path / "log").read_text()
    check_stopped(run)


def test_a_collapse_stops_both_of_two_processes_after_the_same_step_with_its_code(tmp_path):
    recipe = tmp_path / "falling.py"
    watched = 'monitor=dict(every=2, on_collapse="stop", below=0.99, patience=2)'  # no layer is as good as that
    changed = FULL_BATCH.replace("monitor=dict(every=2)", watched).replace("steps=4", "steps=8")
    recipe.write_text(changed)
    group = kill_campaign.Group(recipe, tmp_path / "runs", tmp_path / "log")
    try:
        assert group.wait(240)
    finally:
        group.send(signal.SIGKILL, [0, 1])
    assert group.codes == {0: 79, 1: 79}, (tmp_path / "log").read_text()
    (run,) = tmp_path.glob("runs/pair/*/seed0")
    assert kill_campaign.newest_step(run) == 4
    assert json.loads((run / "collapse.json").read_text())["stopped"]
    assert "stopped after step 4, which is saved" in (run / "train.log").read_text()


def test_a_sigterm_to_torchrun_saves_and_ends_without_the_error_of_a_rank(tmp_path):
    recipe = tmp_path / "pair.py"
    recipe.write_text(FULL_BATCH.replace("steps=4, log_every=1, checkpoint_every=2", "steps=5000, log_every=1"))
    torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        [*torchrun, str(ROOT / "tools/train.py"), str(recipe)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
    ) as process:
        run = wait_for_line(lambda: tmp_path.glob("runs/pair/*/seed0/metrics.jsonl"), 4)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    step = kill_campaign.newest_step(run)
    assert 0 < step < 5000
    assert said.count(f"stopped by SIGTERM after step {step}, which is saved; --resume goes on from there") == 1
    assert "error: " not in said
    assert "rank 1" not in said


def test_a_tiny_kill_campaign_loses_nothing():
    command = [sys.executable, str(ROOT / "tools/kill_campaign.py"), "--kills", "3", "--terms", "2"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=580)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"3 SIGKILL, 2 SIGTERM in \d+ s: nothing lost", run.stdout)
    assert len(re.findall(r"SIGKILL to \[[01, ]+\] after", run.stdout)) == 3
    assert "identical" in run.stdout


def test_a_campaign_notices_a_difference(tmp_path):
    campaign = kill_campaign.Campaign(tmp_path, 0)
    run = tmp_path / "run1/campaign/00000000/seed0"
    (run / "spectra").mkdir(parents=True)
    (run / "result.json").write_text('{"seconds": 1, "steps": 80}')
    (run / "encoder.safetensors").write_bytes(b"weights")
    (run / "metrics.jsonl").write_text('{"step": 1}\n')
    campaign.expected = kill_campaign.outcome(run)
    assert campaign.compare("run1") == ""
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"step": 1}\n')
    (run / ".result.json.tmp1").touch()
    assert campaign.compare("run1") == "metrics, left behind"
    assert len(campaign.faults) == 1
