"""A killed run that is resumed ends as the one that ran through."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import tiny_recipe

from sslcollapse.errors import RunError
from sslcollapse.recipe import override, resolve
from sslcollapse.run import RunDirectory
from sslcollapse.trainer import train

ROOT = Path(__file__).parents[1]
RECIPE = tiny_recipe(
    "resumed",
    regularizers=dict(werank=dict(type="werank", coefficient=dict(type="schedule", base=1e-2, start=30))),
    optim=dict(type="adamw", lr=1e-2, warmup_steps=5),
    train=dict(steps=60, log_every=1, checkpoint_every=10),
    monitor=dict(every=20),
    evaluate=dict(public=dict(type="logistic", split="public")),
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return train(RECIPE, out=tmp_path_factory.mktemp("straight"))


def learnt(run: Path) -> dict:
    """All that a run has learnt and measured, without its timings."""
    result = json.loads((run / "result.json").read_text())
    del result["seconds"]
    return {
        "metrics": [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()],
        "encoder": (run / "encoder.safetensors").read_bytes(),
        "result": result,
        "spectra": {path.name: path.read_bytes() for path in (run / "spectra").iterdir()},
    }


def unfinished(straight: Path, out: Path, step: int, later_lines: bool = True) -> Path:
    """What a kill some time after the checkpoint of ``step`` leaves behind."""
    run = RunDirectory.of(resolve(RECIPE), out).path
    shutil.copytree(straight, run)
    for name in ("result.json", "encoder.safetensors", "encoder.json", "splits.npz"):
        (run / name).unlink()
    for path in (run / "checkpoints").glob("step*.pt"):
        if int(path.stem.removeprefix("step")) > step:
            path.unlink()
    if later_lines:
        with open(run / "metrics.jsonl", "a") as file:
            file.write('{"step": 61, "loss"')
    return run


def test_a_run_killed_with_sigkill_and_resumed_is_bit_identical_to_one_that_ran_through(straight, tmp_path):
    recipe = tmp_path / "resumed.json"
    recipe.write_text(json.dumps(override(RECIPE, [])))
    command = [sys.executable, str(ROOT / "tools/train.py"), str(recipe), "--out", str(tmp_path / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = RunDirectory.of(resolve(RECIPE), tmp_path / "runs").path
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    deadline = time.monotonic() + 120
    while not list((run / "checkpoints").glob("step*.pt")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, process.stderr.read().decode()
    assert not (run / "result.json").exists()
    train(RECIPE, out=tmp_path / "runs", resume=True)
    assert learnt(run) == learnt(straight)


def test_lines_after_the_checkpoint_and_a_torn_one_are_written_again_once(straight, tmp_path):
    run = unfinished(straight, tmp_path, 50)
    train(RECIPE, out=tmp_path, resume=True)
    assert learnt(run) == learnt(straight)
    steps = [record["step"] for record in learnt(run)["metrics"] if "loss" in record]
    assert steps == list(range(1, 61))
    assert "resuming after step 50" in (run / "train.log").read_text()


def test_a_damaged_newest_checkpoint_is_passed_over_for_the_one_before(straight, tmp_path):
    run = unfinished(straight, tmp_path, 60)
    newest = run / "checkpoints/step00000060.pt"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 0xFF
    newest.write_bytes(data)
    train(RECIPE, out=tmp_path, resume=True)
    assert "resuming after step 50" in (run / "train.log").read_text()
    assert learnt(run) == learnt(straight)


def test_only_the_newest_checkpoints_are_kept(straight):
    assert sorted(path.name for path in (straight / "checkpoints").glob("*.pt")) == [
        "step00000050.pt",
        "step00000060.pt",
    ]


def test_resuming_what_does_not_exist_names_the_nearest_run_and_the_fields_that_differ(straight, tmp_path):
    unfinished(straight, tmp_path, 50)
    other = override(RECIPE, ["optim.lr=0.5"])
    with pytest.raises(RunError, match=r"no unfinished run at .*nearest run is .*seed0 \(unfinished\).*optim.lr"):
        train(other, out=tmp_path, resume=True)


def test_a_finished_run_is_refused_with_the_way_out(straight):
    before = learnt(straight)
    out = straight.parents[2]
    for resume in (False, True):
        with pytest.raises(RunError, match=r"this run is finished; use --overwrite .* another seed \(seed=1\)"):
            train(RECIPE, out=out, resume=resume)
    assert learnt(straight) == before


def test_an_unfinished_run_is_neither_overwritten_nor_resumed_unasked(straight, tmp_path):
    run = unfinished(straight, tmp_path, 50)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"unfinished run is here; use --resume .* or --overwrite"):
        train(RECIPE, out=tmp_path)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    train(RECIPE, out=tmp_path, overwrite=True)
    assert learnt(run) == learnt(straight)
