"""The blocks of docs/multi-node.md: the script for Slurm with stand-ins for its commands, the program with FSDP2."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_two_processes import FULL_BATCH

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/multi-node.md").read_text()

SRUN = """
import json, os, signal, subprocess, sys, time
from pathlib import Path

tasks = [
    subprocess.Popen(sys.argv[1:], env={**os.environ, "SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)})
    for task in range(int(os.environ["SLURM_NTASKS"]))
]
if "SLURM_RESTART_COUNT" not in os.environ:  # the time limit is near after some steps
    steps = lambda: sum(len(path.read_text().splitlines()) for path in Path("runs").glob("pair/*/seed0/metrics.jsonl"))
    until = time.monotonic() + 120
    while steps() < 4 and time.monotonic() < until:
        time.sleep(0.01)
    for task in tasks:
        task.send_signal(signal.SIGUSR1)
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """
import sys

if sys.argv[1:3] == ["show", "hostnames"]:
    print("127.0.0.1")
else:
    open("queued", "a").write(" ".join(sys.argv[1:]) + "\\n")
"""


def command(folder, name, source):
    """A program of this name in a folder."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(0o755)


def test_the_script_for_slurm_saves_before_the_time_limit_is_queued_again_and_goes_on(tmp_path):
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", GUIDE, flags=re.DOTALL)
    for before, after in {
        "recipe=recipes/simclr_cifar10.py": f"recipe={tmp_path}/pair.py",
        "out=/shared/runs": "out=runs",
        "tools/train.py": str(ROOT / "tools/train.py"),
    }.items():
        assert script.count(before) == 1
        script = script.replace(before, after)
    (tmp_path / "job.sh").write_text(script)
    (tmp_path / "pair.py").write_text(FULL_BATCH.replace("steps=4", "steps=400").replace("every=2", "every=0"))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, source in (("srun", SRUN), ("scontrol", SCONTROL)):
        command(programs, name, source)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_NTASKS": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_ID": str(port - 20000 if 20000 <= port < 40000 else 20000 + os.getpid() % 19999),
        "CUDA_VISIBLE_DEVICES": "",
    }

    def job(**more):
        return subprocess.run(
            ["bash", "job.sh"],
            cwd=tmp_path,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=300,
        )

    first = job()
    (run,) = tmp_path.glob("runs/pair/*/seed0")
    assert "stopped by SIGUSR1 after step" in first.stderr, first.stderr
    assert (tmp_path / "queued").read_text() == f"requeue {environment['SLURM_JOB_ID']}\n"
    assert not (run / "result.json").exists()
    second = job(SLURM_RESTART_COUNT="1")
    assert second.returncode == 0, second.stderr
    assert "resuming after step" in second.stdout
    assert json.loads((run / "result.json").read_text())["steps"] == 400
    assert json.loads((run / "environment.json").read_text())["world_size"] == 2
    assert (tmp_path / "queued").read_text().count("requeue") == 1


@pytest.fixture(scope="module")
def penalties(tmp_path_factory):
    """Number of processes → what the program with FSDP2 prints."""
    (program,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    path = tmp_path_factory.mktemp("sharded") / "sharded.py"
    path.write_text(program)
    (shown,) = [line.strip() for line in GUIDE.splitlines() if line.endswith("sharded.py")]
    words = shown.removeprefix("torchrun ").replace("sharded.py", str(path)).split()
    found = {}
    for processes in ("1", "2"):
        words[words.index("--nproc-per-node") + 1] = processes
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", *words],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ended.returncode == 0, ended.stderr
        found[processes] = [float(word) for word in re.findall(r"penalty ([\d.]+)", ended.stdout)]
    return found


def test_the_program_with_fsdp2_has_the_penalties_of_one_process_in_two(penalties):
    assert len(penalties["2"]) == 3
    assert penalties["2"] == pytest.approx(penalties["1"], rel=1e-5)
    assert penalties["2"][2] < penalties["2"][0]
