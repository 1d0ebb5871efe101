"""Work of one rank that outlasts the timeout of the process group, in real processes over gloo."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import slow_run  # noqa: E402

from sslcollapse.training.evaluate import evaluate_run  # noqa: E402

pytestmark = pytest.mark.slow


def start(out: Path, *words: str, script: str = "slow_run.py") -> list[subprocess.Popen]:
    """Two processes without a launcher, which would end the second where the first one dies."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(HERE / script), str(out), *words]
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def end(process: subprocess.Popen) -> str:
    """What a process said on stderr by its end."""
    try:
        return process.communicate(timeout=120)[1]
    finally:
        process.kill()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("slow")
    processes = start(out)
    said = [end(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "".join(said)
    (path,) = out.glob("slow/*/seed0")
    return path


def test_measurements_and_evaluation_may_take_longer_than_the_timeout_of_the_process_group(run):
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["warnings"]) == ("finished", [])
    assert result["seconds"]["evaluation"] > slow_run.GROUP_TIMEOUT
    assert "shared by 2 processes" in (run / "train.log").read_text()


def test_splits_shared_by_two_processes_give_the_results_of_one(run, own_components):
    slow_run.register()
    result = json.loads((run / "result.json").read_text())
    assert len(result["evaluation"]["knn"]["test_accuracy"]["values"]) == 4
    assert len(result["evaluation"]["logistic"]["chosen_c"]) == 3
    names = ("evaluation", "untrained", "baselines", "baseline_ranks")
    assert evaluate_run(run) == {name: result[name] for name in names}


def test_what_fails_on_rank_0_alone_after_training_is_a_warning_and_both_ranks_end_together(tmp_path):
    processes = start(tmp_path, "uneven")
    said = [end(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "".join(said)
    (path,) = tmp_path.glob("slow/*/seed0/result.json")
    result = json.loads(path.read_text())
    assert result["warnings"] == ["baselines are not measured: ValueError: not a third time"]
    assert result["rank"]["shared"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("kill", "rank 0 (cannot be reached|has shown no life for [0-9]+ s) while evaluating"),
        ("stop", "rank 0 has shown no life for [0-9]+ s while evaluating"),
    ],
)
def test_a_rank_that_dies_or_freezes_while_it_evaluates_ends_the_others_with_its_name(how, message, tmp_path):
    first, second = start(tmp_path, how)
    try:
        said = end(second)
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert second.returncode == 2, said
    assert re.search(f"rank 1: {message}", said), said
    assert not list(tmp_path.rglob("result.json"))
    assert list(tmp_path.rglob("encoder.safetensors"))
