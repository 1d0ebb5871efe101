"""Warm workers on a device: run after run in one process, with its context; slots by the memory of a GPU."""

import json
from pathlib import Path

from on_device import DEVICE, differences, on_gpu
from safetensors.torch import load_file

from sslcollapse.ablation import run_ablation
from sslcollapse.runs.directory import device_name

pytestmark = on_gpu

ROOT = Path(__file__).parents[2]
GRID = ["regularizers.werank.coefficient=0.0,0.01,0.1"]
SHORT = ["train.steps=30", "optim.warmup_steps=2", "monitor.every=0", "train.checkpoint_every=0"]


def made(folder, executor, jobs):
    options = dict(seeds=2, jobs=jobs, threads=1, executor=executor, overrides=SHORT)
    places = dict(out=folder / "runs", results=folder / "results")
    assert run_ablation(ROOT / "recipes/quickstart.py", grid=GRID, name="warm", **options, **places) == 0
    return {
        str(path.parent.relative_to(folder)): (load_file(path), json.loads((path.parent / "result.json").read_text()))
        for path in (folder / "runs").glob("*/*/seed*/encoder.safetensors")
    }


def test_runs_of_warm_workers_on_a_device_are_near_those_of_a_process_each(tmp_path, record_property, capsys):
    wanted = made(tmp_path / "cold", "fork", 2)
    found = made(tmp_path / "warm", "warm", "auto")
    said = capsys.readouterr().out
    record_property("said", "; ".join(line for line in said.splitlines() if "at a time" in line))
    assert len(found) == len(wanted) == 6
    apart = {}
    for name, (weights, result) in found.items():
        others, other = wanted[name]
        apart[name] = max(differences(weights, others).values())
        assert result["rank"].keys() == other["rank"].keys()
        environment = json.loads((tmp_path / "warm" / name / "environment.json").read_text())
        assert environment["device"] == device_name(DEVICE)
    record_property("largest difference", f"{max(apart.values()):.1e}")
    assert max(apart.values()) <= 1e-3
