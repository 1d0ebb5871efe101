"""Slurm's code path through submitit's local executor, and with Slurm's commands as small scripts; debug."""

import json
import os
import pickle
import re
import signal
import stat
import threading
import time
from pathlib import Path

import pytest
import submitit

from sslcollapse.ablation import run_ablation
from sslcollapse.ablation.executors import slurm
from sslcollapse.ablation.executors.local import search_path
from sslcollapse.ablation.executors.slurm import SlurmRun, make_executor, parse_settings
from sslcollapse.core.errors import RecipeError, RunError

DATA = "domain.dataset={'type': 'csbm', 'nodes': 300, 'features': 8}"


def ablate(workspace, widths="[4],[8]", seeds=1, **more):
    options = {"executor": "slurm", "out": workspace.out, "results": workspace.results, **more}
    return run_ablation(workspace.recipe, grid=[f"encoder.hidden={widths}"], seeds=seeds, **options)


@pytest.fixture
def local_cluster(monkeypatch):
    """Jobs of submitit's local executor, which are processes of this machine, in place of Slurm's."""

    def executor(folder, name, jobs, settings):
        made = submitit.LocalExecutor(folder)
        made.update_parameters(**settings)
        return made

    monkeypatch.setattr("sslcollapse.ablation.executors.base.make_executor", executor)


@pytest.mark.slow
def test_runs_are_made_and_fail_through_submitit_for_real(workspace, local_cluster, capsys):
    options = {"executor": "slurm", "seeds": 1, "out": workspace.out, "results": workspace.results}
    overrides = ["evaluate={}", DATA.replace("300", "60")]
    grid = ["domain.dataset.nodes=300,60"]  # 60 leave nothing to test on, which is seen only when they are split
    assert run_ablation(workspace.recipe, grid=grid, overrides=overrides, threads=1, **options) == 1
    (record,) = workspace.records()
    assert (record["overrides"], record["threads"]) == ({"domain.dataset.nodes": 300}, 1)
    (failure,) = json.loads((workspace.results / "tiny" / "failures.json").read_text()).values()
    assert failure["error"].startswith("domain.dataset: train_per_class 20")
    assert failure["error"] in Path(failure["log"]).read_text()
    assert list((workspace.out / "submitit" / "tiny").glob("*_log.err"))
    assert json.loads((workspace.out / "submitit" / "tiny" / "jobs.json").read_text()) == {}
    assert "[1/2" in capsys.readouterr().out


CLUSTER = {
    "sbatch": 'cp "$1" "$CLUSTER/submission.sh"; echo x >> "$CLUSTER/submissions"; echo "Submitted batch job 17"',
    "srun": "exit 1",
    "sacct": 'echo "JobID|State|NodeList"; cat "$CLUSTER/states"',
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder with what was submitted, and with the states that the scheduler tells."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    for name, script in CLUSTER.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CLUSTER", str(folder))
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.05)
    submitit.SlurmJob.watcher.clear()
    return folder


def test_a_preempted_job_is_queued_again_as_it_was():
    run = SlurmRun({"path": "somewhere"}, threads=2)
    again = run.checkpoint()
    assert again.function is run
    assert vars(pickle.loads(pickle.dumps(again.function))) == {"message": {"path": "somewhere"}, "threads": 2}


@pytest.mark.slow
def test_a_run_that_submitit_preempts_saves_first_is_queued_again_and_finishes(workspace, local_cluster):
    steps = 300
    overrides = ["evaluate={}", DATA, f"train.steps={steps}", "train.log_every=1", "monitor.samples=300"]
    options = {"seeds": 1, "out": workspace.out, "results": workspace.results, "overrides": overrides}
    codes = []
    ablation = threading.Thread(
        target=lambda: codes.append(
            run_ablation(workspace.recipe, grid=["encoder.hidden=[4]"], executor="slurm", threads=1, **options)
        )
    )
    ablation.start()
    found, deadline = [], time.monotonic() + 120
    while not found or len(found[0].read_text().splitlines()) < 3:
        found = list(workspace.out.glob("tiny/*/seed0/metrics.jsonl"))
        assert time.monotonic() < deadline
        time.sleep(0.005)
    run = found[0].parent
    pid = int((run.parent / ".seed0.lock").read_text().split()[1])
    os.kill(pid, signal.SIGUSR2)
    ablation.join()
    assert codes == [0]
    log = (run / "train.log").read_text()
    (step,) = re.findall(r"stopped by SIGUSR2 after step (\d+), which is saved", log)
    assert f"resuming after step {step}\n" in log
    logged = [json.loads(line)["step"] for line in found[0].read_text().splitlines() if "loss" in line]
    assert logged == list(range(1, steps + 1))
    assert not (workspace.results / "tiny" / "failures.json").exists()


def submissions(cluster):
    return len((cluster / "submissions").read_text())


def test_queued_jobs_are_watched_again_after_a_restart_and_not_submitted_twice(workspace, cluster, monkeypatch, capsys):
    def interrupted(seconds):
        raise KeyboardInterrupt

    (cluster / "states").write_text("17_[0-1]|PENDING|\n")
    with monkeypatch.context() as patched:
        patched.setattr("time.sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ablate(workspace, jobs=1, slurm=["partition=gpu"])
    assert "queued jobs go on, and the same command watches them; scancel --name=tiny" in capsys.readouterr().out
    ids = workspace.out / "submitit" / "tiny" / "jobs.json"
    assert sorted(json.loads(ids.read_text()).values()) == ["17_0", "17_1"]
    text = (cluster / "submission.sh").read_text()
    assert "#SBATCH --partition=gpu" in text
    assert "#SBATCH --array=0-1%1" in text
    assert "#SBATCH --job-name=tiny" in text

    (cluster / "states").write_text("17_0|CANCELLED by 1000|n1\n17_1|OUT_OF_MEMORY|n1\n")
    assert ablate(workspace) == 1
    assert submissions(cluster) == len("x\n")
    errors = [entry["error"] for entry in json.loads((workspace.results / "tiny/failures.json").read_text()).values()]
    assert sorted(error.partition(" ended")[0] for error in errors) == ["job 17_0", "job 17_1"]
    assert any("OUT_OF_MEMORY" in error for error in errors)
    assert json.loads(ids.read_text()) == {}

    assert ablate(workspace) == 1
    assert submissions(cluster) == len("x\n")
    assert ablate(workspace, retry_failed=True) == 1
    assert submissions(cluster) == len("x\nx\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["partiton=gpu"], "--slurm partiton: unknown parameter; did you mean 'partition'"),
        (["partition"], "--slurm 'partition': write it as key=value"),
        (["timeout_min=soon"], "--slurm timeout_min=soon: expected a number, got 'soon'"),
        (["job_name=x"], "--slurm job_name: unknown parameter"),
        (["additional_parameters=3"], "submitit refuses these parameters"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_starts(workspace, cluster, words, message):
    with pytest.raises(RecipeError, match=message):
        ablate(workspace, slurm=words)
    assert not workspace.out.exists()


def test_parameters_reach_sbatch_by_their_names(cluster, tmp_path):
    settings = parse_settings(["timeout_min=90", "mem_gb=8", "gpus_per_node=1", "setup=['module load cuda']"])
    executor = make_executor(tmp_path, "name", 4, settings)
    parameters = executor.parameters
    assert (parameters["time"], parameters["mem"], parameters["gpus_per_node"]) == (90, "8GB", 1)
    assert (parameters["array_parallelism"], parameters["setup"]) == (4, ["module load cuda"])


def test_without_slurm_or_submitit_the_error_says_so_before_anything_starts(workspace, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RunError, match="no sbatch on PATH"):
        ablate(workspace)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"pip install 'sslcollapse\[slurm\]'"):
        ablate(workspace)
    with pytest.raises(RecipeError, match="only --executor slurm takes parameters"):
        ablate(workspace, executor="local", slurm=["partition=gpu"])
    assert not workspace.out.exists()
    assert not workspace.results.exists()


def test_the_debug_executor_trains_in_this_process_and_goes_on_after_a_failure(workspace, monkeypatch, capsys):
    pids = []

    def train(recipe, *, out, **options):
        pids.append(os.getpid())
        raise ZeroDivisionError("by hand")

    monkeypatch.setattr("sslcollapse.training.trainer.train", train)
    assert ablate(workspace, executor="debug") == 1
    assert pids == [os.getpid()] * 2
    printed = capsys.readouterr()
    assert "FAILED    tiny encoder.hidden=[8] seed=0: ZeroDivisionError: by hand" in printed.out
    assert "raise ZeroDivisionError" in printed.err
    with pytest.raises(RecipeError, match="debug makes one run at a time, got --jobs 2"):
        ablate(workspace, executor="debug", jobs=2)


def test_processes_of_runs_find_this_package_where_nothing_is_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    first, *rest = search_path().split(os.pathsep)
    assert (Path(first) / "sslcollapse" / "__init__.py").exists()
    assert rest == [str(tmp_path)]
