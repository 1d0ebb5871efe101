"""A killed run that is resumed ends as the one that ran through."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import text_parts
import torch
from tiny import tiny_recipe

from sslcollapse import cli
from sslcollapse.core.errors import RunError, WriteError
from sslcollapse.recipe import override, resolve
from sslcollapse.runs.directory import RunDirectory
from sslcollapse.runs.quantities import CUT_SHORT
from sslcollapse.training.checkpoint import save_checkpoint
from sslcollapse.training.trainer import train

ROOT = Path(__file__).parents[2]
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


def test_a_run_killed_before_its_first_checkpoint_is_resumed_from_its_beginning(straight, tmp_path):
    run = unfinished(straight, tmp_path, 0)
    assert not list((run / "checkpoints").glob("step*.pt"))
    (run / "spectra/00000033.npz").write_bytes(b"measured when the monitor's settings were others")
    train(RECIPE, out=tmp_path, resume=True)
    assert learnt(run) == learnt(straight)
    assert "no checkpoint yet: from the beginning" in (run / "train.log").read_text()


def test_resume_starts_a_run_where_no_other_one_may_have_been_meant(straight, tmp_path):
    shutil.copytree(straight, tmp_path / "of_another_name/00000000/seed0")
    run = train(RECIPE, out=tmp_path, resume=True)
    assert learnt(run) == learnt(straight)


def test_a_result_that_was_cut_short_before_what_is_optional_is_completed_by_resume(straight, tmp_path):
    run = RunDirectory.of(resolve(RECIPE), tmp_path).path
    shutil.copytree(straight, run)
    result = json.loads((run / "result.json").read_text())
    rank = {name: value for name, value in result["rank"].items() if not name.startswith("shared")}
    (run / "result.json").write_text(json.dumps({**result, "rank": rank, "warnings": [CUT_SHORT]}))
    with pytest.raises(RunError, match="this run is finished"):
        train(RECIPE, out=tmp_path)
    train(RECIPE, out=tmp_path, resume=True)
    assert learnt(run) == learnt(straight)
    assert learnt(run)["result"]["rank"]["shared"]


def test_a_run_resumed_after_its_last_step_has_the_features_penalties_in_its_result(tmp_path):
    penalty = dict(variance=dict(type="variance", on=["representation"], coefficient=0.1))
    recipe = override(RECIPE, ["train.steps=4", f"regularizers={penalty}"])
    run = train(recipe, out=tmp_path)
    before = learnt(run)
    (run / "result.json").unlink()
    train(recipe, out=tmp_path, resume=True)
    assert learnt(run) == before
    assert before["result"]["regularizers"]["variance"]["representation"]["penalty"] > 0


def test_checkpoints_by_time_leave_metrics_and_everything_learnt_as_they_are(straight, tmp_path):
    recipe = override(RECIPE, ["train.checkpoint_minutes=1e-6", "train.keep_checkpoints=100", "train.log_every=7"])
    plain = override(RECIPE, ["train.checkpoint_minutes=0", "train.log_every=7"])
    run, other = (train(each, out=tmp_path / name) for each, name in ((recipe, "timed"), (plain, "plain")))
    assert len(list((run / "checkpoints").glob("step*.pt"))) == 60
    assert {**learnt(run), "result": None} == {**learnt(other), "result": None}
    assert run.relative_to(tmp_path / "timed") == other.relative_to(tmp_path / "plain")  # the hash is the same


def test_by_default_a_checkpoint_is_written_every_five_minutes(monkeypatch, tmp_path):
    clock = iter(range(0, 10**9, 61))  # every look at the clock is 61 seconds later
    monkeypatch.setattr("sslcollapse.training.stopping.time", SimpleNamespace(monotonic=lambda: next(clock)))
    recipe = override(RECIPE, ["train.steps=20", "train.checkpoint_every=0", "train.keep_checkpoints=100"])
    run = train(recipe, out=tmp_path)
    steps = [int(path.stem.removeprefix("step")) for path in sorted((run / "checkpoints").glob("*.pt"))]
    assert steps == [5, 10, 15, 20]


def other_shapes(state):
    name = next(iter(state["module"]))
    return {**state, "module": {**state["module"], name: torch.zeros(3, 5)}}


def other_moments(state):
    moments = {0: {**state["optimizer"]["state"][0], "exp_avg": torch.zeros(3, 5)}}
    return {**state, "optimizer": {**state["optimizer"], "state": {**state["optimizer"]["state"], **moments}}}


CONTENT = {
    "keys missing": lambda state: {"step": state["step"]},
    "networks no dict": lambda state: {**state, "module": [1]},
    "a parameter missing": lambda state: {**state, "module": dict(list(state["module"].items())[1:])},
    "other shapes": other_shapes,
    "optimizer empty": lambda state: {**state, "optimizer": {}},
    "optimizer of other shapes": other_moments,
    "world size": lambda state: {**state, "world_size": "two"},
    "after the last step": lambda state: {**state, "step": 10**9},
}


@pytest.mark.parametrize("kind", CONTENT)
def test_a_checkpoint_with_wrong_content_and_the_right_checksum_is_passed_over_with_a_word(kind, straight, tmp_path):
    run = unfinished(straight, tmp_path, 60)
    newest = run / "checkpoints/step00000060.pt"
    state = CONTENT[kind](torch.load(newest, weights_only=True))
    newest.unlink()
    save_checkpoint(run / "checkpoints", state["step"], state, keep=5)
    train(RECIPE, out=tmp_path, resume=True)
    log = (run / "train.log").read_text()
    assert "passed over as damaged, for the one of step 50 (" in log
    assert "resuming after step 50" in log
    assert learnt(run) == learnt(straight)


@pytest.mark.parametrize("line", [b"\xff\xfe", b"{not json", b"5", b'{"loss": 1.0}', b'{"step": "1"}', b"[" * 9999])
def test_a_damaged_line_of_metrics_costs_that_line_and_no_other(line, straight, tmp_path):
    run = unfinished(straight, tmp_path, 50)
    path = run / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:9], line, *lines[10:]]))
    train(RECIPE, out=tmp_path, resume=True)
    expected = learnt(straight)["metrics"]
    assert learnt(run)["metrics"] == expected[:9] + expected[10:]
    assert "metrics.jsonl: damaged and left out: line 10" in (run / "train.log").read_text()


def test_what_a_killed_process_was_writing_is_removed_at_the_next_start(straight, tmp_path):
    run = unfinished(straight, tmp_path, 50)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    for place in ("checkpoints/.step00000060.pt", "spectra/.00000060.npz", ".result.json"):
        (run / f"{place}.tmp{int(ended.stdout)}").write_bytes(b"half a file")
    train(RECIPE, out=tmp_path, resume=True)
    assert not list(run.rglob(".*"))


def test_resuming_what_does_not_exist_names_the_nearest_run_and_the_fields_that_differ(straight, tmp_path):
    unfinished(straight, tmp_path, 50)
    other = override(RECIPE, ["optim.lr=0.5"])
    with pytest.raises(RunError, match=r"no unfinished run at .*nearest run is .*seed0 \(unfinished\).*optim.lr"):
        train(other, out=tmp_path, resume=True)


def test_a_finished_run_is_refused_with_the_way_out_and_left_as_it_is_by_resume(straight, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in straight.rglob("*")}
    out = straight.parents[2]
    with pytest.raises(RunError, match=r"this run is finished; use --overwrite .* another seed \(seed=1\)"):
        train(RECIPE, out=out)
    assert train(RECIPE, out=out, resume=True) == straight
    recipe = tmp_path / "resumed.json"
    recipe.write_text(json.dumps(RECIPE))
    assert cli.main(["train", str(recipe), "--out", str(out), "--resume"]) == 0
    assert f"{straight}: this run is finished; there is nothing to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in straight.rglob("*")} == before


def test_an_unfinished_run_is_neither_overwritten_nor_resumed_unasked(straight, tmp_path):
    run = unfinished(straight, tmp_path, 50)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"unfinished run is here; use --resume .* or --overwrite"):
        train(RECIPE, out=tmp_path)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    train(RECIPE, out=tmp_path, overwrite=True)
    assert learnt(run) == learnt(straight)


def say_streams(run, version):
    """Let a run's environment name a version of the random streams; none for None."""
    path = run / "environment.json"
    environment = json.loads(path.read_text()) | {"streams": version}
    if version is None:
        del environment["streams"]
    path.write_text(json.dumps(environment))


@pytest.mark.parametrize("version", [None, 1])
def test_a_run_begun_with_other_random_streams_is_not_gone_on_with(version, tmp_path, own_components):
    text_parts.register()
    recipe = text_parts.text_recipe("streams")
    run = train(recipe, out=tmp_path)
    (run / "result.json").unlink()
    say_streams(run, version)
    before = (run / "environment.json").read_bytes()
    with pytest.raises(RunError, match=r"was begun with version 1 of the random streams.*start again with --overwrite"):
        train(recipe, out=tmp_path, resume=True)
    assert (run / "environment.json").read_bytes() == before
    train(recipe, out=tmp_path, overwrite=True)
    assert json.loads((run / "environment.json").read_text())["streams"] == 2


def test_a_run_that_draws_the_same_from_other_random_streams_is_gone_on_with(straight, tmp_path):
    run = unfinished(straight, tmp_path, 50)
    say_streams(run, 1)
    train(RECIPE, out=tmp_path, resume=True)
    assert learnt(run) == learnt(straight)


def test_what_cannot_be_written_names_the_option_of_the_command_that_was_given(tmp_path, capsys):
    run = RunDirectory.of(resolve(RECIPE), tmp_path).path
    (run / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(WriteError, match=r"metrics.jsonl: cannot be written.*give the same command again$"):
        train(RECIPE, out=tmp_path)  # as an ablation does, which has no such option
    shutil.rmtree(run)
    (run / "metrics.jsonl").mkdir(parents=True)
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(RECIPE))
    assert cli.main(["train", str(file), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("then give the same command again, with --resume\n")
