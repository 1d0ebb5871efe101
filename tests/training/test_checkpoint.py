import hashlib
import io
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys

import pytest
import torch
from tiny import tiny_recipe

from sslcollapse.core.errors import RunError, WriteError
from sslcollapse.core.files import remove_temporaries, write_atomic
from sslcollapse.training.checkpoint import load_latest_checkpoint, newest_step, save_checkpoint
from sslcollapse.training.trainer import train


def save(folder, step, keep=2, **options):
    return save_checkpoint(folder, step, {"step": step, "x": torch.full((3,), float(step))}, keep, **options)


def kept(folder):
    return sorted(int(path.stem.removeprefix("step")) for path in folder.glob("*.pt"))


def test_the_newest_checkpoint_is_loaded_and_only_the_newest_are_kept(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step)
    assert load_latest_checkpoint(tmp_path)["step"] == 30
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["step00000020.pt", "step00000030.pt"]


def test_checkpoints_of_the_clock_put_no_planned_one_out(tmp_path):
    for step in (100, 200, 203, 206, 300, 301, 302):
        save(tmp_path, step, planned=lambda step: step % 100 == 0)
    assert kept(tmp_path) == [200, 300, 302]


def test_as_many_are_kept_while_fewer_are_planned(tmp_path):
    for step in (1, 2, 3, 100, 101, 102):
        save(tmp_path, step, keep=3, planned=lambda step: step % 100 == 0)
    assert kept(tmp_path) == [100, 101, 102]


def test_a_run_keeps_the_planned_ones_and_the_newest_of_its_clock(tmp_path):
    settings = dict(steps=7, checkpoint_every=2, keep_checkpoints=2, checkpoint_minutes=1e-9)
    rest = dict(optim=dict(type="adamw", lr=1e-2), evaluate={})
    run = train(tiny_recipe("clock", train=settings, **rest), out=tmp_path)
    assert kept(run / "checkpoints") == [5, 6, 7]
    settings["checkpoint_every"] = 0
    run = train(tiny_recipe("clock_alone", train=settings, **rest), out=tmp_path)
    assert kept(run / "checkpoints") == [6, 7]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    save(tmp_path, 10)
    path = save(tmp_path, 20)
    path.write_bytes(path.read_bytes()[:-20])
    assert load_latest_checkpoint(tmp_path)["step"] == 10


def resign(path, data):
    """Other content with the right checksum."""
    path.write_bytes(data)
    path.with_suffix(".sha256").write_text(hashlib.sha256(data).hexdigest())


def saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def as_folder(path):
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


def as_link(target):
    def damage(path):
        path.unlink()
        path.symlink_to(target)

    return damage


def as_pipe(path):
    path.unlink()
    os.mkfifo(path)


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("code_was_run",))


DAMAGE = {
    "a folder": as_folder,
    "a link to itself": lambda path: as_link(path)(path),
    "a link to nothing": as_link("nowhere"),
    "a pipe": as_pipe,
    "binary checksum": lambda path: path.with_suffix(".sha256").write_bytes(b"\xff\xfe\x00" * 20),
    "checksum a folder": lambda path: as_folder(path.with_suffix(".sha256")),
    "checksum gone": lambda path: path.with_suffix(".sha256").unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "no checkpoint": lambda path: resign(path, b"garbage"),
    "no dict": lambda path: resign(path, saved([1, 2])),
    "no step": lambda path: resign(path, saved({"x": 1})),
    "step as text": lambda path: resign(path, saved({"step": "20"})),
    "step not a number": lambda path: resign(path, saved({"step": float("nan")})),
    "another step": lambda path: resign(path, saved({"step": 19})),
    "code": lambda path: resign(path, pickle.dumps({"step": 20, "x": Evil()})),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_newest_checkpoint_that_is_damaged_in_any_way_is_passed_over_with_a_word(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path, 10)
    DAMAGE[kind](save(tmp_path, 20))
    said = []
    assert load_latest_checkpoint(tmp_path, say=said.append)["step"] == 10
    (line,) = said
    assert re.search(r"passed over as damaged, for the one of step 10 \(step00000020.pt: .+\)", line)
    assert not (tmp_path / "code_was_run").exists()


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_in_the_way_of_a_new_checkpoint_is_replaced_and_the_new_one_kept(kind, tmp_path):
    save(tmp_path, 10, keep=1)
    DAMAGE[kind](save(tmp_path, 20, keep=3))
    save(tmp_path, 15, keep=1)  # a run that was resumed from step 10
    assert newest_step(tmp_path) == 15
    assert load_latest_checkpoint(tmp_path)["step"] == 15
    save(tmp_path, 20, keep=1)
    assert load_latest_checkpoint(tmp_path)["step"] == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step00000020.pt", "step00000020.sha256"]


def test_a_checkpoint_that_does_not_fit_its_run_is_passed_over_too(tmp_path):
    save(tmp_path, 10)
    save(tmp_path, 20)

    def use(state):
        if state["step"] == 20:
            raise KeyError("module")

    assert load_latest_checkpoint(tmp_path, use=use)["step"] == 10


def test_steps_are_ordered_as_numbers(tmp_path):
    for step in (99_999_999, 100_000_000):
        save(tmp_path, step)
    (tmp_path / "step_of_somebody_else.pt").touch()
    assert load_latest_checkpoint(tmp_path)["step"] == newest_step(tmp_path) == 100_000_000


def test_only_damaged_checkpoints_are_an_error_that_names_them(tmp_path):
    save(tmp_path, 10).write_bytes(b"torn")
    with pytest.raises(
        RunError, match=r"every checkpoint is damaged \(step00000010.pt: its checksum is another .*--overwrite"
    ):
        load_latest_checkpoint(tmp_path)


def test_no_checkpoint_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(RunError, match="no checkpoint was written yet; `train` with --resume starts this run"):
        load_latest_checkpoint(tmp_path)


def test_a_failing_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_written_files_name_is_on_disk_before_anything_else_is_done(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(descriptor):
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), (tmp_path / "file").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomic(tmp_path / "file", b"data")
    assert synced == [(False, False), (True, True)]


def test_what_killed_processes_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead, living = int(process.stdout), os.getpid()
    names = [".step00000010.pt.tmp{}", ".writable{}", "file.tmp{}"]
    for name in names:
        for pid in (dead, living):
            (tmp_path / name.format(pid)).touch()
    remove_temporaries(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *(name.format(living) for name in names),
        f"file.tmp{dead}",  # not named as ours are
    }


def test_a_write_that_the_system_refuses_says_what_to_do_and_keeps_the_systems_error(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    save(folder, 10)
    shutil.rmtree(folder)
    with pytest.raises(WriteError, match=r"gone/file: cannot be written \(No such file.*moved or deleted") as caught:
        write_atomic(folder / "file", b"data")
    assert isinstance(caught.value, OSError)
    assert caught.value.strerror == "No such file or directory"
