import time
from pathlib import Path

from sslcollapse.ablation.job import TAIL_BYTES, Job
from sslcollapse.ablation.progress import Durations, Progress, remaining
from sslcollapse.ablation.values import Cell


def job(cell="a", seed=0, path=Path("nowhere"), steps=100):
    recipe = {"name": "n", "seed": 0, "train": {"steps": steps}}
    return Job(Cell("base", Path("base.py"), {"x": cell}, recipe, cell), seed, path, path, [])


def record(cell, seconds, steps=10, trained=10):
    return {"hash": cell, "steps": steps, "seconds": {"training": seconds, "evaluation": 1.0, "steps_trained": trained}}


def test_time_left_is_that_of_runs_started_in_order_on_free_places():
    assert remaining([], [], 2) == 0.0
    assert remaining([4.0], [], 3) == 4.0
    assert remaining([1.0, 5.0], [10.0, 2.0], parallel=2) == 11.0
    assert remaining([], [3.0] * 5, parallel=2) == 9.0
    assert remaining([], [3.0] * 5, parallel=1) == 15.0


def test_a_cell_is_expected_to_take_what_its_own_runs_took():
    durations = Durations([record("slow", 99.0), record("slow", 199.0), record("resumed", 1.0, trained=5)])
    assert durations.expected(job("slow")) == 150.0
    assert durations.expected(job("new")) == 150.0
    durations.add(job("fast"), 2.0)
    durations.add(job("fast"), 4.0)
    assert durations.expected(job("fast")) == 3.0
    assert durations.expected(job("slow")) == 150.0
    assert durations.expected(job("new")) == 3.0


def test_recorded_times_are_scaled_to_this_machine():
    durations = Durations([record("a", 9.0), record("b", 29.0)])
    durations.add(job("a"), 5.0)
    assert durations.expected(job("b")) == 15.0


def test_nothing_is_expected_before_anything_is_known():
    assert Durations([]).expected(job()) is None


def test_a_runs_step_is_that_of_its_last_whole_line(tmp_path):
    assert job(path=tmp_path).step() == 0
    metrics = tmp_path / "metrics.jsonl"
    long = '{"step": 20, "note": "' + "x" * TAIL_BYTES + '"}\n'
    metrics.write_text('{"step": 10, "loss": 0.5}\n' + long + '{"step": 30, "loss": 1}\n{"st')
    assert job(path=tmp_path).step() == 30


def test_lines_say_how_many_are_finished_and_what_is_left(capsys):
    progress = Progress(Durations([]))
    first, second, third = (job(seed=seed) for seed in range(3))
    progress.start(3, 0, [first, second, third], parallel=1)
    progress.started(first)
    progress.ended(first, None, 30.0)
    progress.started(second)
    progress.ended(second, "bad luck", 1.0)
    out = capsys.readouterr().out.splitlines()
    assert out[1] == "finished  base x=a seed=0  in 0:30  [1/3, 1:00 left]"
    assert out[3] == "FAILED    base x=a seed=1: bad luck  (log: nowhere/train.log)  [1/3, 1 failed, 0:30 left]"


def test_a_terminal_shows_each_running_jobs_steps(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "metrics.jsonl").write_text('{"step": 40}\n')
    progress = Progress(Durations([]))
    assert progress.console.is_terminal
    running = job(path=tmp_path)
    progress.start(2, 1, [running], parallel=1)
    progress.started(running)
    (tmp_path / "metrics.jsonl").write_text('{"step": 90}\n')
    progress._drawn = 0.0
    later = time.monotonic() + 50.0
    monkeypatch.setattr(time, "monotonic", lambda: later)
    progress.tick()
    progress.stop()
    out = capsys.readouterr().out
    assert "40/100" in out
    assert "90/100" in out
    assert "1/2 runs" in out
    assert "0:10 left" in out  # 50 steps took 50 s, 10 are left


def test_a_job_is_named_by_its_cell_and_seed():
    assert job(seed=4).name == "base x=a seed=4"
    assert job(seed=4).key == "a/seed4"
