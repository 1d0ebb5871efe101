"""One run on two hosts: two network namespaces, which share a file system or do not, and what ends one of them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import hosts
from test_two_processes import IMAGES

from sslcollapse.core.files import InUseError, run_lock
from sslcollapse.recipe import load
from sslcollapse.runs.export import load_encoder
from sslcollapse.training.checkpoint import newest_step
from sslcollapse.training.trainer import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """SimCLR with penalties and constraints on images, four steps, with a checkpoint after two."""
    path = tmp_path_factory.mktemp("recipe") / "images.py"
    path.write_text(IMAGES.replace("checkpoint_every=4", "checkpoint_every=2"))
    return path


@pytest.fixture(scope="module")
def straight(recipe, tmp_path_factory):
    """The run of one process."""
    return train(load(recipe), out=tmp_path_factory.mktemp("straight"))


@pytest.fixture(scope="module")
def shared(recipe, tmp_path_factory):
    """The run of two hosts, which see the same folder."""
    out = tmp_path_factory.mktemp("shared")
    with hosts.two_hosts() as pair:
        processes = hosts.torchrun(pair, str(recipe), out=[out, out])
        said = hosts.ended(processes)
    assert [process.returncode for process in processes] == [0, 0], "".join(said)
    (run,) = out.glob("images/*/seed0")
    return run


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def outcome(run):
    """What was learnt, as it is on the disk."""
    result = json.loads((run / "result.json").read_text())
    del result["seconds"]
    return result, (run / "metrics.jsonl").read_bytes(), (run / "encoder.safetensors").read_bytes()


def test_two_hosts_train_as_one_process_with_the_whole_batch(shared, straight):
    assert json.loads((shared / "environment.json").read_text())["world_size"] == 2
    assert losses(shared) == pytest.approx(losses(straight), rel=1e-5)
    _, description = load_encoder(shared)
    assert description["recipe"] == json.loads((shared / "recipe.json").read_text())
    assert not list(shared.parent.glob(".*"))  # no lock is left


def test_hosts_that_share_no_folder_resume_from_the_checkpoint_of_the_first_and_end_in_the_same_bits(
    shared, recipe, tmp_path
):
    first, second = tmp_path / "first", tmp_path / "second"
    run = first / shared.relative_to(shared.parents[2])
    shutil.copytree(shared, run)
    for path in (run / "result.json", run / "checkpoints/step00000004.pt", run / "encoder.safetensors"):
        path.unlink()
    assert newest_step(run / "checkpoints") == 2
    with hosts.two_hosts() as pair:
        processes = hosts.launch(pair, str(recipe), "--resume", out=[first, second])
        said = hosts.ended(processes)
        assert [process.returncode for process in processes] == [0, 0], "".join(said)
        assert "resuming after step 2" in said[0]
        assert outcome(run) == outcome(shared)
        assert not list(second.rglob("*.*"))

        again = hosts.launch(pair, str(recipe), "--resume", out=[first, second])  # the second cannot see the result
        said = hosts.ended(again)
    assert [process.returncode for process in again] == [0, 0], "".join(said)
    assert f"{run}: this run is finished; there is nothing to do" in said[0]


ENDLESS = ("train.steps=1000000", "train.log_every=1", "train.timeout_minutes=0.2")


@pytest.mark.parametrize("how", ["first", "second", "cable"])
def test_a_host_that_dies_or_is_cut_off_ends_the_other_with_a_sentence(how, recipe, tmp_path):
    with hosts.two_hosts() as pair:
        processes = hosts.launch(pair, str(recipe), *ENDLESS, out=[tmp_path, tmp_path])
        until = time.monotonic() + 120
        while not any(len(path.read_bytes()) > 2000 for path in tmp_path.glob("images/*/seed0/metrics.jsonl")):
            assert time.monotonic() < until
            assert processes[0].poll() is None, "".join(hosts.ended(processes))
            time.sleep(0.05)
        (run,) = tmp_path.glob("images/*/seed0")
        with pytest.raises(InUseError, match=rf"is in use by process \d+ on {pair[0].name} since"), run_lock(run):
            pass
        began = time.monotonic()
        if how == "cable":
            pair[1].pull_out()
        else:
            pair[["first", "second"].index(how)].kill()
        left = processes[how == "first"]
        (said,) = hosts.ended([left])
        seconds = time.monotonic() - began
    assert left.returncode == 2, said
    assert "error: sslcollapse train" in said
    assert "another process of this run has ended or cannot be reached; look at what it said, then resume (" in said
    assert "fault of sslcollapse" not in said
    # The timeout, the ten seconds for which another rank than the first lets that one speak, and a slow machine.
    assert seconds < (60 if how == "cable" else 45)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_whose_others_do_not_come_says_where_it_has_waited_for_them(rank, recipe, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    process = subprocess.run(
        [sys.executable, "-W", "ignore", hosts.TRAIN, str(recipe), "train.timeout_minutes=0.1"],
        env={**os.environ, **place, "CUDA_VISIBLE_DEVICES": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 2, process.stderr
    assert (
        f"error: rank {rank} of 2 has not met the other processes at 127.0.0.1:{port} within 0.1 minutes; start all of "
        "them, on every host with this address"
    ) in process.stderr
    assert not (tmp_path / "runs").exists()


def test_processes_that_were_given_different_recipes_are_refused_with_what_differs(recipe, tmp_path):
    place = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "CUDA_VISIBLE_DEVICES": ""}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place["MASTER_PORT"] = str(free.getsockname()[1])
    words = (["data_root=/one"], ["data_root=/two", "monitor.every=7", "encoder.hidden=[16, 9]"])
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", hosts.TRAIN, str(recipe), *own, "--out", str(tmp_path)],
            env={**os.environ, **place, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, own in enumerate(words)
    ]
    try:
        said = hosts.ended(processes)
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
    assert [process.returncode for process in processes] == [2, 2], "".join(said)
    for each in said:
        assert "rank 1 was given another recipe than rank 0" in each
        assert "encoder.hidden: [16, 8] here, [16, 9] there" in each
        assert "monitor.every: 0 here, 7 there" in each
        assert "data_root" not in each
    assert not list(tmp_path.rglob("*.json"))
