"""The commit that a run writes down."""

import os
import subprocess

import pytest

from sslcollapse.runs import directory


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with a package of two rooms, which is taken for this one."""
    for name in ("runs/directory.py", "core/errors.py"):
        (tmp_path / "package" / name).parent.mkdir(parents=True)
        (tmp_path / "package" / name).write_text("first\n")
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(directory, "PACKAGE", tmp_path / "package")
    return tmp_path


def test_a_change_in_any_room_of_the_package_is_said_beside_the_commit(clone):
    clean = directory.commit()
    assert len(clean) == 12
    (clone / "package" / "core" / "errors.py").write_text("second\n")
    assert directory.commit() == f"{clean}+changes"


def test_asking_for_the_commit_never_takes_the_lock_of_the_repository(clone):
    index = clone / ".git" / "index"
    os.utime(clone / "package" / "core" / "errors.py", (1, 1))  # so that git would write down what it knows of the file
    written = index.stat().st_mtime_ns
    assert directory.commit()
    assert index.stat().st_mtime_ns == written, "where a run is killed meanwhile, the lock would stay"
