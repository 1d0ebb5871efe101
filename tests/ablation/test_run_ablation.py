import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fake_worker
import pytest

import sslcollapse
from sslcollapse.ablation import run_ablation
from sslcollapse.ablation.executors.local import THREAD_VARIABLES, environment, visible_devices
from sslcollapse.ablation.files import read_plan
from sslcollapse.core.errors import RecipeError, RunError
from sslcollapse.runs.quantities import CUT_SHORT

ROOT = Path(__file__).parents[2]


def run(workspace, widths="[4],[8]", seeds=2, **more):
    options = {"jobs": 2, "out": workspace.out, "results": workspace.results, **more}
    return run_ablation(workspace.recipe, grid=[f"encoder.hidden={widths}"], seeds=seeds, **options)


def page(workspace, name="tiny"):
    return (workspace.results / name / "README.md").read_bytes()


def test_finished_runs_are_recorded_once_and_not_made_again(workspace, capsys):
    assert run(workspace) == 0
    records, first = workspace.records(), page(workspace)
    assert len(records) == len(workspace.calls()) == 4
    assert {call["threads"] for call in workspace.calls()} == {str(max(1, len(os.sched_getaffinity(0)) // 2))}
    assert "4/4" in capsys.readouterr().out
    assert run(workspace, seeds=3) == 0
    assert len(workspace.calls()) == 6
    assert workspace.records()[:4] == records
    assert run(workspace, seeds=2) == 0
    assert len(workspace.calls()) == 6
    assert page(workspace) == first


def test_results_that_cannot_be_written_are_refused_before_the_first_run(workspace, tmp_path):
    place = tmp_path / "file"
    place.write_text("kept")
    with pytest.raises(RunError, match=r"file/tiny: cannot be written .* another folder with --results"):
        run(workspace, results=place)
    assert workspace.calls() == []
    assert not workspace.out.exists()
    assert place.read_text() == "kept"


def test_a_dry_run_shows_what_is_to_do_and_writes_nothing(workspace, capsys):
    run(workspace, seeds=1)
    before = sorted(path for path in workspace.folder.rglob("*") if path.is_file())
    capsys.readouterr()
    assert run(workspace, widths="[4],[8],[16]", seeds=2, dry_run=True) == 0
    shown = capsys.readouterr().out
    assert [line.split(" | ")[:2] for line in shown.splitlines()[2:5]] == [
        ["| 1 layer of 4", "1 of 2"],
        ["| 1 layer of 8", "1 of 2"],
        ["| 1 layer of 16", "0 of 2"],
    ]
    assert shown.splitlines()[-1] == "tiny: 6 runs, 2 finished, 4 to do"
    assert sorted(path for path in workspace.folder.rglob("*") if path.is_file()) == before


def test_runs_that_cannot_be_written_are_refused_before_the_first_one(workspace, tmp_path):
    place = tmp_path / "file"
    place.write_text("kept")
    with pytest.raises(RunError, match=r"file: cannot be written .* another folder with --out"):
        run(workspace, out=place)
    assert workspace.calls() == []
    assert place.read_text() == "kept"


def test_a_record_is_compact_and_says_how_it_came_about(workspace):
    run(workspace, widths="[4]", seeds=1, overrides=["train.steps=3"])
    (record,) = workspace.records()
    assert record["overrides"] == {"encoder.hidden": [4]}
    assert record["settings"] == ["train.steps=3"]
    assert record["evaluation"]["public"]["test_accuracy"].keys() == {"mean", "std", "n"}
    assert record["evaluation"]["public"]["test_accuracy"]["n"] == 30
    assert record["rank"]["layers"]["convs.0"]["weight"].keys() == {
        "effective_rank", "effective_rank_centred", "attainable", "n",
    }  # fmt: skip
    assert (record["commit"], record["device"], record["torch"]) == ("abc", "a cpu", "2.15")
    environment = next(workspace.out.glob("tiny/*/seed0/environment.json"))
    command = json.loads(environment.read_text())["command"]
    assert command[:2] == ["sslcollapse", "train"]
    assert "encoder.hidden=[4]" in command


def test_a_lost_record_is_taken_from_the_run_directory(workspace):
    run(workspace)
    path = workspace.results / "tiny" / "runs.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:40])
    assert run(workspace) == 0
    assert len(workspace.calls()) == 4
    assert sorted(path.read_text().splitlines()) == sorted("".join(lines).splitlines())


def test_tables_are_the_same_bytes_from_the_records_alone(workspace):
    run(workspace)
    folder = workspace.results / "tiny"
    before = page(workspace), (folder / "table.csv").read_bytes()
    workspace.out.rename(workspace.folder / "elsewhere")
    lines = (folder / "runs.jsonl").read_text().splitlines(keepends=True)
    (folder / "runs.jsonl").write_text("".join(reversed(lines)))
    assert run(workspace) == 0
    assert (page(workspace), (folder / "table.csv").read_bytes()) == before
    assert not workspace.out.exists()
    assert "sslcollapse ablate tiny.py --grid 'encoder.hidden=[4],[8]' --seeds 2" in before[0].decode()
    assert str(workspace.folder) not in before[0].decode()


def test_a_failing_cell_does_not_stop_the_rest(workspace, capsys):
    assert run(workspace, widths="[13],[4]") == 1
    assert "FAILED    tiny encoder.hidden=[13] seed=0: ValueError: width 13 brings bad luck" in capsys.readouterr().out
    assert len(workspace.records()) == 2
    text = page(workspace).decode()
    assert "* tiny encoder.hidden=[13] seed=1: ValueError: width 13" in text
    assert "| 1 layer of 13 | 0 | – |" in text
    assert "| ValueError: width 13 brings bad luck (2 runs) |" in text
    log = next(workspace.out.glob("tiny/*/seed0/train.log"))
    assert "Traceback" in log.read_text()


def test_a_restart_leaves_failed_runs_alone_until_it_is_asked(workspace, capsys):
    assert run(workspace, widths="[13],[4]", seeds=1) == 1
    path = workspace.results / "tiny" / "failures.json"
    before = path.read_text()
    (failure,) = json.loads(before).values()
    assert failure["error"] == "ValueError: width 13 brings bad luck"
    assert Path(failure["log"]).name == "train.log"
    assert failure["time"]
    capsys.readouterr()
    assert run(workspace, widths="[13],[4]", seeds=1) == 1
    assert len(workspace.calls()) == 2
    assert path.read_text() == before
    out = capsys.readouterr().out
    assert "tiny: 2 runs, 1 finished, 1 failed before, 0 to do" in out
    assert "skipped   tiny encoder.hidden=[13] seed=0: ValueError: width 13 brings bad luck" in out
    assert "1 failed" in out
    assert "--retry-failed tries them again" in out
    assert run(workspace, widths="[13],[4]", seeds=1, retry_failed=True) == 1
    assert len(workspace.calls()) == 3


def test_a_failure_is_forgotten_when_the_run_was_recorded_elsewhere(workspace, monkeypatch):
    assert run(workspace, widths="[13]", seeds=1) == 1
    monkeypatch.setenv("LUCKY", "1")
    there = workspace.folder / "there"
    assert run(workspace, widths="[13]", seeds=1, results=there, out=there / "runs") == 0
    (there / "tiny" / "runs.jsonl").rename(workspace.results / "tiny" / "runs.jsonl")
    assert run(workspace, widths="[13]", seeds=1) == 0
    assert not (workspace.results / "tiny" / "failures.json").exists()


def test_threads_and_devices_are_shared_out(workspace, monkeypatch):
    assert run(workspace, widths="[4]", seeds=1, threads=3) == 0
    assert workspace.calls()[0]["threads"] == "3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert visible_devices() == ["2", "5"]
    devices = [environment(slot, visible_devices())["CUDA_VISIBLE_DEVICES"] for slot in range(3)]
    assert devices == ["2", "5", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert environment(1, visible_devices())["CUDA_VISIBLE_DEVICES"] == "7"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_devices() == []


def test_the_fork_server_starts_no_thread_and_no_cuda():
    script = """
import importlib, os
from sslcollapse.ablation.executors.local import PRELOAD
for name in PRELOAD:
    importlib.import_module(name)
import torch
print(len(os.listdir("/proc/self/task")), torch.cuda.is_initialized())
"""
    one = {name: "1" for name in THREAD_VARIABLES}
    command = [sys.executable, "-c", script]
    process = subprocess.run(
        command, env={**os.environ, **one, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert process.stdout == "1 False\n", process.stderr


def test_a_failure_is_forgotten_when_its_run_finishes(workspace, monkeypatch):
    assert run(workspace, widths="[13]", seeds=1) == 1
    monkeypatch.setenv("LUCKY", "1")
    assert run(workspace, widths="[13]", seeds=1, retry_failed=True) == 0
    assert workspace.calls()[-1]["resume"]
    assert not (workspace.results / "tiny" / "failures.json").exists()
    assert "Failed runs" not in page(workspace).decode()


def test_table_compares_with_the_baseline_over_equal_seeds(workspace):
    target = workspace.ablation(
        'name="widths", base="tiny.py", seeds=3, baseline={"encoder.hidden": [4]},axes={"encoder.hidden": [[4], [8]]}, '
        'claim=dict(number=1, statement="Wide is good", checks=[dict(name="accuracy", expect="positive", '
        'metric="evaluation.public.test_accuracy")])'
    )
    assert run_ablation(target, jobs=3, out=workspace.out, results=workspace.results) == 0
    key = "evaluation.public.test_accuracy"
    with open(workspace.results / "widths" / "table.csv") as file:
        baseline, other = csv.DictReader(file)
    by_width = {4: [], 8: []}
    for record in sorted(workspace.records("widths"), key=lambda record: record["seed"]):
        width = record["overrides"]["encoder.hidden"][0]
        by_width[width].append(record["evaluation"]["public"]["test_accuracy"]["mean"])
    expected = sum(b - a for a, b in zip(by_width[4], by_width[8], strict=True)) / 3
    assert float(other[f"{key}:difference"]) == pytest.approx(expected)
    assert float(other[f"{key}:low"]) < expected < float(other[f"{key}:high"])
    assert other[f"{key}:pairs"] == "3"
    assert baseline[f"{key}:difference"] == ""
    assert float(other[f"{key}:p"]) == float(other[f"{key}:p_corrected"])
    claim = json.loads((workspace.results / "widths" / "claim.json").read_text())
    assert claim["tests"][0]["estimate"] == pytest.approx(100 * expected)
    assert (workspace.results / "widths" / "table.tex").exists()
    text = page(workspace, "widths").decode()
    for expected_text in (
        "## Difference to the baseline",
        "| 1 layer of 8 | 3 | ",
        "untrained encoder",
        "| 4 | 10 |",
        "lbfgs",
    ):
        assert expected_text in text


def test_validation_choice_is_printed(workspace, capsys):
    run(workspace, widths="[4],[400]")
    assert "best by validation, public: tiny encoder.hidden=[400]" in capsys.readouterr().out


def test_nothing_starts_if_any_cell_is_wrong(workspace):
    with pytest.raises(RecipeError, match=r"cell tiny encoder.hidden=\[4, 'x'\]"):
        run(workspace, widths="[4],[4,'x']")
    with pytest.raises(
        RecipeError, match="executor 'slrm': there is only local, fork, warm, slurm, debug; did you mean 'slurm'"
    ):
        run(workspace, executor="slrm")
    assert not workspace.out.exists()
    assert not workspace.results.exists()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_ablation_leaves_no_process_and_continues_where_it_was(workspace, sent):
    options = {"widths": "[99],[4]", "seeds": 1}
    parent = start_ablate(workspace, **options)
    wait_for(lambda: any(workspace.results.glob("tiny/runs.jsonl")) and len(workspace.calls()) == 2)
    wait_for(lambda: any(workspace.out.glob("tiny/*/seed0/checkpoints/*.pt")))
    parent.send_signal(sent)
    assert parent.wait(90) != 0
    pids = {call["pid"] for call in workspace.calls()}
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert run(workspace, **options) == 0
    assert len(workspace.records()) == 2
    assert [call["resume"] for call in workspace.calls()] == [False, False, True]


def test_a_preempted_run_is_no_failed_run_and_the_same_command_goes_on_with_it(workspace, capsys):
    assert run(workspace, widths="[98],[4]", seeds=1) == 1
    assert "stopped   tiny encoder.hidden=[98] seed=0 by a signal" in capsys.readouterr().out
    assert not (workspace.results / "tiny" / "failures.json").exists()
    assert len(workspace.records()) == 1
    assert run(workspace, widths="[98],[4]", seeds=1) == 0
    assert [call["resume"] for call in workspace.calls()] == [False, False, True]


def test_a_worker_that_a_signal_ends_before_it_can_answer_has_not_failed_either(workspace, capsys):
    ablation = threading.Thread(target=lambda: run(workspace, widths="[99]", seeds=1))
    ablation.start()
    wait_for(lambda: any(workspace.out.glob("tiny/*/seed0/checkpoints/*.pt")))
    (call,) = workspace.calls()
    os.kill(call["pid"], signal.SIGTERM)
    ablation.join()
    assert "stopped   tiny encoder.hidden=[99] seed=0 by a signal" in capsys.readouterr().out
    assert not (workspace.results / "tiny").exists() or not list(workspace.results.glob("tiny/failures.json"))
    assert run(workspace, widths="[99]", seeds=1) == 0


def test_a_result_that_was_cut_short_is_completed_before_it_is_recorded(workspace):
    assert run(workspace, widths="[4]", seeds=1) == 0
    (result,) = workspace.out.glob("tiny/*/seed0/result.json")
    whole = json.loads(result.read_text())
    result.write_text(json.dumps({**whole, "warnings": [CUT_SHORT]}))
    shutil.rmtree(workspace.results)
    assert run(workspace, widths="[4]", seeds=1) == 0
    assert [call["resume"] for call in workspace.calls()] == [False, True]
    assert json.loads(result.read_text()) == whole


def test_a_run_that_is_killed_by_what_is_optional_is_recorded_with_its_result(workspace):
    assert run(workspace, widths="[97]", seeds=1) == 0
    assert len(workspace.records()) == len(workspace.calls()) == 1
    assert not (workspace.results / "tiny" / "failures.json").exists()


def test_what_killed_ablations_were_writing_is_removed(workspace):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = workspace.results / "tiny" / f".README.md.tmp{int(ended.stdout)}"
    left.parent.mkdir(parents=True)
    left.touch()
    assert run(workspace, widths="[4]", seeds=1) == 0
    assert not left.exists()


def start_ablate(workspace, widths, seeds):
    """A process of its own, in a terminal's foreground: a job in a script's background starts with SIGINT ignored."""
    options = ["--grid", f"encoder.hidden={widths}", "--seeds", str(seeds), "--jobs", "2"]
    options += ["--out", workspace.out, "--results", workspace.results]
    return subprocess.Popen(
        [sys.executable, fake_worker.__file__, "ablate", workspace.recipe, *options],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def test_real_training_of_a_small_random_graph_is_recorded(workspace, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(workspace.folder)
    graph = "domain.dataset={'type': 'csbm', 'nodes': 300, 'features': 8}"
    probe = "evaluate={'random': {'type': 'logistic', 'split': 'random', 'repeats': 1}}"
    assert run(workspace, widths="[4]", seeds=1, overrides=[graph, probe]) == 0
    (record,) = workspace.records()
    assert record["rank"]["representation"]["n"] == 300
    assert 1 <= record["rank"]["representation"]["effective_rank"] <= 4
    assert 0 <= record["evaluation"]["random"]["test_accuracy"]["mean"] <= 1
    assert "| 1 layer of 4 | 1 |" in page(workspace).decode()
    assert record["sslcollapse"] == sslcollapse.__version__
    assert (record["plugins"], record["recipe"]["encoder"]["norm"]) == ({}, "batch"), "defaults are spelt out"
    assert f"sslcollapse: {sslcollapse.__version__}." in page(workspace).decode()


def test_tables_are_rebuilt_and_the_plan_is_written_without_a_run(workspace, capsys):
    run(workspace, seeds=1)
    folder = workspace.results / "tiny"
    (folder / "plan.json").unlink()
    (folder / "README.md").unlink()
    assert run(workspace, seeds=2, tables=True) == 0
    assert len(workspace.calls()) == 2
    assert "2 of 4 runs" in (folder / "README.md").read_text()
    assert read_plan(folder)[0].seeds == 2
    assert "2/4 runs finished" in capsys.readouterr().out


def test_a_plan_is_written_where_there_is_no_record_yet(workspace):
    assert run(workspace, tables=True) == 0
    assert [path.name for path in (workspace.results / "tiny").iterdir() if path.name[0] != "."] == ["plan.json"]
    assert len(read_plan(workspace.results / "tiny")[0].cells) == 2
    assert not workspace.out.exists()


@pytest.mark.parametrize("content", ["{}", "[]", "", "\xff"])
def test_a_damaged_result_stops_no_other_run(workspace, capsys, content):
    assert run(workspace, seeds=1) == 0
    (damaged, _) = sorted(workspace.out.glob("tiny/*/seed0/result.json"))
    damaged.write_bytes(content.encode("latin-1"))
    (workspace.results / "tiny" / "runs.jsonl").unlink()
    assert run(workspace, widths="[4],[8],[16]", seeds=1) == 1
    shown = capsys.readouterr().out
    assert "3 runs, 1 finished, 1 failed before, 1 to do" in shown
    assert f"{damaged}: damaged (" in shown
    assert len(workspace.records()) == 2
