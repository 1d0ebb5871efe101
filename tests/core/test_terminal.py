"""Nothing that a command meets outside of it ends in a traceback, and its exit code says what happened."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sslcollapse import cli
from sslcollapse.core import texts
from sslcollapse.core.errors import explained

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "recipes/quickstart.py")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """State dicts of a healthy and of a collapsed layer."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    healthy, collapsed = torch.randn(40, 40), torch.randn(40, 1) @ torch.randn(1, 40)
    for name, weight in (("healthy", healthy), ("collapsed", collapsed)):
        torch.save({"a.weight": weight}, folder / f"{name}.pt")
    return {name: str(folder / f"{name}.pt") for name in ("healthy", "collapsed")}


def command(*words: str, **options) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("environment", {})}
    options.setdefault("stdout", subprocess.PIPE)
    words = (sys.executable, "-m", "sslcollapse.cli", *words)
    return subprocess.run(words, stderr=subprocess.PIPE, env=environment, check=False, **options)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_an_encoding_that_lacks_characters_changes_neither_the_verdict_nor_the_exit_code(files, encoding):
    found = command("diagnose", files["healthy"], environment={"PYTHONIOENCODING": encoding})
    assert (found.returncode, found.stderr) == (0, b"")
    assert b"1 layers: 1 healthy" in found.stdout
    assert command("diagnose", files["collapsed"], environment={"PYTHONIOENCODING": encoding}).returncode == 1


def test_a_pipe_that_nobody_reads_changes_no_exit_code(files):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        found = command("diagnose", files["collapsed"], stdout=writing)
        listed = command("list", stdout=writing)
    finally:
        os.close(writing)
    assert (found.returncode, found.stderr) == (1, b"")
    assert (listed.returncode, listed.stderr) == (0, b"")


def test_a_command_without_stdout_does_its_work(files, tmp_path):
    line = f"{sys.executable} -m sslcollapse.cli diagnose {files['collapsed']} --json {tmp_path / 'a.json'} >&-"
    found = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (found.returncode, found.stderr) == (1, b"")
    assert '"verdict": "collapsed"' in (tmp_path / "a.json").read_text()


def test_a_stream_has_its_own_way_with_characters_back_afterwards(capsys):
    before, errors = sys.stdout, sys.stdout.errors
    with texts.lasting_output():
        assert sys.stdout is not before
        print("‖")
    assert sys.stdout is before
    assert sys.stdout.errors == errors
    assert capsys.readouterr().out == "‖\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_a_sentence_that_says_what_to_do(files):
    with open("/dev/full", "w") as full:
        found = command("diagnose", files["healthy"], stdout=full)
    assert found.returncode == cli.MENDABLE
    assert b"No space left on device; make room there" in found.stderr
    assert found.stderr.count(b"\n") == 1


def fail(monkeypatch, error: BaseException) -> None:
    def raises(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("sslcollapse.training.trainer.train", raises)


def test_a_bug_is_one_sentence_with_a_code_of_its_own_and_its_traceback_is_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fail(monkeypatch, ValueError("a bug"))
    assert cli.main(["train", QUICKSTART]) == cli.BUG == 70
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"error: sslcollapse train {QUICKSTART}: unexpected ValueError: a bug. This is a fault of")
    (log,) = tmp_path.glob("sslcollapse-*.log")
    assert str(log) in error
    assert log.read_text().splitlines()[0].startswith("Traceback")
    assert "test_terminal.py" in log.read_text()


def test_debug_raises_a_bug_as_it_is(monkeypatch):
    fail(monkeypatch, ValueError("a bug"))
    with pytest.raises(ValueError, match=r"^a bug$"):
        cli.main(["train", QUICKSTART, "--debug"])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/runs/a.pt"),
            "/runs/a.pt: No space left on device; make room",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/runs"),
            "/runs: Read-only file system; make this file system writable",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/runs/x"), "moved or deleted meanwhile"),
        (MemoryError("Unable to allocate 7.45 GiB for an array"), "not enough memory (7.45 GiB at once); of the"),
        (RuntimeError("alloc_cpu.cpp: you tried to allocate 4000000000000 bytes. Error code 12"), "(4 TB at once)"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "(20.00 GiB at once)"),
    ],
)
def test_what_the_machine_cannot_do_is_a_sentence(capsys, monkeypatch, error, message):
    fail(monkeypatch, error)
    assert cli.main(["train", QUICKSTART]) == cli.MENDABLE
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: sslcollapse train {QUICKSTART}: ")
    assert message in shown


def test_other_errors_are_not_explained_away():
    assert explained(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), {}) is None
    assert explained(ValueError("x"), {}) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["encoder.hidden=[1000000000, 8]"], "encoder.hidden[0] = 1000000000 is the largest: make it smaller"),
        (
            ["objective.predictor_hidden=300000000000"],
            "objective.predictor_hidden = 300000000000 is the",
        ),
        ([f"encoder.hidden=[{2**63 - 1}]"], f"encoder.hidden[0] = {2**63 - 1} is the largest: make it smaller"),
    ],
)
def test_networks_that_do_not_fit_are_refused_before_they_are_made_with_the_number_that_is_too_large(
    tmp_path, capsys, words, message
):
    assert cli.main(["train", QUICKSTART, *words, "--out", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert "the networks need at least" in error
    assert message in error
    assert not (tmp_path / "runs").exists()


def test_data_that_do_not_fit_are_refused_before_they_are_drawn(tmp_path, capsys):
    words = ['domain.dataset={"type": "csbm", "nodes": 1000000000000}', "--out", str(tmp_path)]
    assert cli.main(["train", QUICKSTART, *words]) == 2
    assert "nodes=1000000000000: needs at least" in capsys.readouterr().err


def test_a_process_that_has_ended_is_no_fault_of_the_package():
    said = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:552] Connection closed by peer [127.0.0.1]:5"
    assert re.match(
        "another process of this run has ended or cannot be reached; look", explained(RuntimeError(said), {})
    )
    assert explained(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), {}) is None
