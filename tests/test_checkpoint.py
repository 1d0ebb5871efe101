import pytest
import torch

from sslcollapse.checkpoint import load_latest_checkpoint, save_checkpoint, write_atomic
from sslcollapse.errors import RunError


def save(folder, step, keep=2):
    return save_checkpoint(folder, step, {"step": step, "x": torch.full((3,), float(step))}, keep)


def test_the_newest_checkpoint_is_loaded_and_only_the_newest_are_kept(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step)
    assert load_latest_checkpoint(tmp_path)["step"] == 30
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["step00000020.pt", "step00000030.pt"]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    save(tmp_path, 10)
    path = save(tmp_path, 20)
    path.write_bytes(path.read_bytes()[:-20])
    assert load_latest_checkpoint(tmp_path)["step"] == 10


def test_only_damaged_checkpoints_are_an_error_that_names_them(tmp_path):
    save(tmp_path, 10).write_bytes(b"torn")
    with pytest.raises(RunError, match=r"every checkpoint is damaged \(step00000010.pt\).*--overwrite"):
        load_latest_checkpoint(tmp_path)


def test_no_checkpoint_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(RunError, match="no checkpoint was written yet; start again with --overwrite"):
        load_latest_checkpoint(tmp_path)


def test_a_failing_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
