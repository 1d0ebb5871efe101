"""A disk that is full, read-only, limited or gone ends a run with one sentence, and the run goes on afterwards."""

import json
import os
import resource
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
from namespaces import in_a_namespace
from processes import Process
from test_resume import learnt
from tiny import tiny_recipe

from sslcollapse.training.trainer import train

RECIPE = tiny_recipe(
    "disk",
    optim=dict(type="adamw", lr=1e-2),
    train=dict(steps=100, log_every=1, checkpoint_every=20),
    monitor=dict(every=50, samples=240),
    evaluate=dict(public=dict(type="logistic", split="public")),
)


def one_sentence(said: str) -> str:
    """What stands on stderr, which is the last line; there is no traceback."""
    assert "Traceback" not in said, said
    *_, last = said.splitlines()
    assert last.startswith("error: ")
    return last


def test_a_full_and_a_read_only_disk_are_named_and_the_run_goes_on_bit_identically(tmp_path):
    run = in_a_namespace(
        f"cd {tmp_path} && exec {sys.executable} {Path(__file__).with_name('small_disk.py')} {tmp_path}"
    )
    outcomes = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[")]
    assert [kind for kind, *_ in outcomes] == ["full 4", "full 16", "full 48", "full 100", "read-only"], run.stderr
    for kind, code, said, resumed, said_then, same in outcomes:
        assert code == 2, said
        reason = "No space left on device" if kind.startswith("full") else "Read-only file system"
        assert reason in one_sentence(said)
        assert "--out" in said or "then give the same command again, with --resume" in said
        assert resumed == 0, said_then
        assert same, kind
    assert any(
        "make room there, then give the same command again, with --resume" in said for _, _, said, *_ in outcomes
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return train(RECIPE, out=tmp_path_factory.mktemp("straight"))


@pytest.mark.parametrize("size", [3_000, 10_000])
def test_a_limit_on_the_size_of_files_is_named_and_the_run_goes_on_without_it(size, straight, tmp_path):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    process = Process(RECIPE, tmp_path, first=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, hard)))
    assert process.wait() == 2
    sentence = one_sentence(process.said())
    assert "File too large); raise the limit on the size of files (ulimit -f), then give the same command" in sentence
    train(RECIPE, out=tmp_path, resume=True)
    assert learnt(process.run) == learnt(straight)


def test_a_run_folder_that_is_deleted_meanwhile_ends_the_run_with_a_sentence(straight, tmp_path):
    process = Process(RECIPE, tmp_path)
    process.wait_for_steps(5)
    process.run.rename(tmp_path / "moved")
    assert process.wait() == 2
    sentence = one_sentence(process.said())
    assert str(process.run) in sentence
    assert "moved or deleted meanwhile; put it back, or start again" in sentence
    process.run.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(tmp_path / "moved", process.run)
    train(RECIPE, out=tmp_path, resume=True)
    assert learnt(process.run) == learnt(straight)


def close_the_other_end() -> None:
    """stdout and stderr become a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 2)
    sys.stdout = sys.stderr = os.fdopen(writing, "w", buffering=1)


def test_a_terminal_that_is_gone_does_not_end_a_run(straight, tmp_path):
    process = Process(RECIPE, tmp_path, first=close_the_other_end)
    process.wait()
    assert learnt(process.run) == learnt(straight)
    assert "finished in" in (process.run / "train.log").read_text()
