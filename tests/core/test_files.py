import multiprocessing
import os
import threading
import time

import pytest

from sslcollapse.ablation import run_ablation
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


def test_two_commands_cannot_write_one_results_folder(workspace):
    folders = dict(out=workspace.out, results=workspace.results)
    refused = pytest.raises(RunError, match=r"results/tiny: this results folder is in use by process")
    with locked(workspace.results / "tiny" / ".lock", "it"), refused:
        run_ablation(workspace.recipe, grid=["encoder.hidden=[4],[8]"], seeds=1, **folders)
    assert not workspace.out.exists()


def test_a_run_that_another_process_makes_is_left_to_it(workspace, capsys):
    options = dict(grid=["encoder.hidden=[4],[8]"], seeds=1, out=workspace.out)
    assert run_ablation(workspace.recipe, **options, results=workspace.results) == 0
    call = workspace.calls()[0]
    run = workspace.out / "tiny" / call["hash"] / "seed0"
    result = run / "result.json"
    result.rename(workspace.folder / "kept")
    elsewhere = workspace.folder / "elsewhere"
    log = run / "train.log"
    log.write_text("of the other")
    with locked(run.with_name(".seed0.lock"), "it"):
        assert run_ablation(workspace.recipe, **options, results=elsewhere) == 1
    assert f"this run is in use by process {os.getpid()}" in capsys.readouterr().out
    assert len(workspace.calls()) == 2
    assert log.read_text() == "of the other"
    (workspace.folder / "kept").rename(result)
    assert run_ablation(workspace.recipe, **options, results=elsewhere) == 0
    assert not (elsewhere / "tiny" / "failures.json").exists()
