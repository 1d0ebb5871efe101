import multiprocessing
import os
import threading
import time

import pytest

from sslcollapse.core.errors import RunError
from sslcollapse.core.files import locked


def test_a_lock_names_its_holder_and_is_free_again_afterwards(tmp_path):
    path = tmp_path / "deep" / ".lock"
    with locked(path, "the thing"):
        refused = locked(path, "the thing", 0.2)
        with pytest.raises(RunError, match=f"the thing is in use by process {os.getpid()} on .* since"):
            refused.__enter__()
    assert not path.exists()
    with pytest.raises(ZeroDivisionError), locked(path, "the thing"):
        raise ZeroDivisionError
    assert not path.exists()


def test_a_killed_holder_holds_nothing(tmp_path):
    path = tmp_path / ".lock"
    held = multiprocessing.get_context("fork").Event()

    def hold():
        with locked(path, "the thing"):
            held.set()
            threading.Event().wait()

    process = multiprocessing.get_context("fork").Process(target=hold)
    process.start()
    assert held.wait(60)
    with pytest.raises(RunError, match=f"process {process.pid}"):
        locked(path, "the thing").__enter__()
    process.kill()
    process.join()
    assert path.exists()
    with locked(path, "the thing"):
        pass


def test_worker_processes_of_a_killed_holder_are_waited_for(tmp_path):
    path = tmp_path / ".lock"
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold():
        with locked(path, "the thing"):
            if os.fork() == 0:
                held.set()
                time.sleep(1.0)  # as a worker that reads data, until it sees that its parent is gone
                os._exit(0)
            threading.Event().wait()

    process = context.Process(target=hold)
    process.start()
    assert held.wait(60)
    process.kill()
    process.join()
    with locked(path, "the thing"):
        assert str(os.getpid()) in path.read_text()


def test_folders_made_for_a_lock_go_with_it_unless_something_was_put_there(tmp_path):
    with locked(tmp_path / "a/b/.lock", "the thing"):
        assert (tmp_path / "a/b").is_dir()
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "a/b/.lock", "the thing"):
        (tmp_path / "a/kept").touch()
    assert [item.name for item in (tmp_path / "a").iterdir()] == ["kept"]


def test_a_file_that_was_removed_while_it_was_opened_is_not_mistaken_for_the_lock(tmp_path, monkeypatch):
    path = tmp_path / ".lock"
    before = os.open
    descriptors = []

    def late(*arguments):
        descriptors.append(before(*arguments))
        if len(descriptors) == 1:
            path.unlink()  # as its holder does at the end
        return descriptors[-1]

    monkeypatch.setattr(os, "open", late)
    with locked(path, "the thing"):
        assert len(descriptors) == 2
        assert os.path.samestat(os.stat(path), os.fstat(descriptors[1]))


def test_a_lock_that_is_a_link_to_nowhere_is_an_error_and_no_endless_wait(tmp_path):
    path = tmp_path / ".lock"
    path.symlink_to(tmp_path / "nowhere" / "lock")
    with pytest.raises(FileNotFoundError), locked(path, "the thing"):
        pass
    assert path.is_symlink()
