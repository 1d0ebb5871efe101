"""The page that is served while a run goes on: drawn again, on loopback alone, and nothing else of the disk."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tiny import tiny_recipe

from sslcollapse import cli
from sslcollapse.core.errors import RunError
from sslcollapse.report import live
from sslcollapse.training.trainer import train


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A short run."""
    rest = dict(optim=dict(type="adamw", lr=1e-2), train=dict(steps=3, log_every=1), evaluate={})
    return train(tiny_recipe("live", monitor=dict(every=0), **rest), out=tmp_path_factory.mktemp("live"))


@pytest.fixture
def run(made, tmp_path):
    """A copy of it that seems to be under way."""
    run = shutil.copytree(made, tmp_path / "seed0")
    (run / "result.json").unlink()
    return run


def report_of(run):
    """What draws and watches a run, without the loop around it."""
    paths, folders = [run], dict(runs=run.parent, results=run.parent)

    def draw():
        page, _ = live.page_of(paths, **folders)
        return live.render_page(page, refresh=7)

    report = live.LiveReport(draw, lambda: live._described(live.watched_files(paths, **folders)))
    report.refresh()
    return report


def asked(address, **headers):
    with urlopen(Request(address, headers=headers), timeout=10) as answer:
        return answer.read().decode(), answer.headers


def refused(address, **headers):
    with pytest.raises(HTTPError) as caught:
        asked(address, **headers)
    return caught.value.code


def test_the_page_is_served_without_a_script_with_its_own_files_and_nothing_else_of_the_disk(run):
    report = report_of(run)
    with live.serving(report, 0) as address:
        assert address.startswith("http://127.0.0.1:")
        html, headers = asked(address)
        assert '<meta http-equiv="refresh" content="7">' in html
        assert "<script" not in html
        assert "script-src" not in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        plot = next(name for name in report.files if name.endswith(".csv"))
        assert plot in html
        assert asked(address + plot)[0] == report.files[plot].decode()
        for path in ("recipe.json", "seed0/recipe.json", "../seed0/recipe.json", f"/{run}/recipe.json", "plots/"):
            assert refused(address + path) == 404
        assert refused(address, Host="somewhere.example:80") == 403
    with pytest.raises(OSError, match="refused"):
        asked(address)


def test_it_is_drawn_again_when_the_run_has_gone_on_and_only_then(run):
    report = report_of(run)
    before = report.files["index.html"]
    report._pause_until = 0.0
    assert not report.refresh()
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 9, "loss": 0.5}\n{"step": 10, "lo')  # half a line is being written
    assert report.refresh()
    assert report.files["index.html"] != before
    assert b"9 steps" in report.files["index.html"]
    with open(run / "metrics.jsonl", "a") as file:
        file.write('ss": 0.4}\n')
    assert not report.refresh()  # drawing took a while, so it pauses
    report._pause_until = 0.0
    assert report.refresh()
    assert b"10 steps" in report.files["index.html"]


def test_a_collapse_of_the_run_is_told_at_the_top(run):
    report = report_of(run)
    report._pause_until = 0.0
    (run / "collapse.json").write_text(json.dumps(dict(stopped=True, step=8, text="the output of <b> has collapsed")))
    assert report.refresh()
    assert (
        b"A collapse has stopped it after step 8: the output of &lt;b&gt; has collapsed." in report.files["index.html"]
    )


def test_a_half_written_file_leaves_the_page_as_it_was(run, capsys):
    report = report_of(run)
    before = report.files
    whole = (run / "recipe.json").read_text()
    (run / "recipe.json").write_text(whole[:40])
    for _ in range(2):
        report._pause_until = 0.0
        assert not report.refresh()
    assert report.files is before
    assert capsys.readouterr().err.count("the page stays as it was") == 1
    (run / "recipe.json").write_text(json.dumps(json.loads(whole) | dict(seed=3)))
    report._pause_until = 0.0
    assert report.refresh()
    assert b"seed 3" in report.files["index.html"]


def test_a_port_in_use_is_told_and_what_is_no_run_too(run, tmp_path, capsys):
    with socket.socket() as other:
        other.bind((live.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        assert cli.main(["report", str(run), "--live", "--port", str(port)]) == 2
        assert f"port {port} of 127.0.0.1 is in use by another program; give another one with --port" in (
            capsys.readouterr().err
        )
    with pytest.raises(RunError, match="neither a run nor a folder of runs"):
        live.serve_report([run / "spectra"], port=0)


def test_of_an_ablation_its_records_and_the_metrics_of_its_runs_are_watched(results, tmp_path):
    metrics = tmp_path / "tiny/abc/seed0/metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_text("")
    watched = live.watched_files([results], runs=tmp_path, results=tmp_path)
    assert {results / "runs.jsonl", metrics} <= set(watched)
    assert not live._described([tmp_path / "gone"])


def test_ctrl_c_ends_the_command_well(run, tmp_path):
    log = tmp_path / "said"
    with open(log, "w") as file:
        command = [sys.executable, "-m", "sslcollapse.cli", "report", str(run), "--live", "--port", "0"]
        process = subprocess.Popen(
            command,
            stderr=file,
            stdout=file,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in the background of a script
        )
    try:
        deadline = time.monotonic() + 240
        while "Ctrl-C to stop" not in log.read_text():
            assert time.monotonic() < deadline
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        html, _ = asked(log.read_text().split()[0])
        assert "Drawn at" in html
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
    assert "served no more" in log.read_text()


def test_a_browser_that_goes_away_is_not_shown_as_an_error(run, capsys):
    with live.serving(report_of(run), 0) as address:
        host, port = address.removeprefix("http://").strip("/").split(":")
        gone = socket.create_connection((host, int(port)))
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closes with a reset
        gone.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n")  # the head goes on, so that the server still reads
        time.sleep(0.1)
        gone.close()
        asked(address)
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_a_run_that_is_moved_away_leaves_the_page_as_it_was(run, capsys):
    report = report_of(run)
    page = report.files
    run.rename(run.with_name("elsewhere"))
    report._pause_until = 0.0
    assert not report.refresh()
    assert report.files == page
    assert "the page stays as it was" in capsys.readouterr().err
