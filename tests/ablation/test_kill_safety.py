import json
import os
import random
import signal
import time

from sslcollapse.ablation import run_ablation

KILLS = 4
OVERRIDES = [
    "domain.dataset={'type': 'csbm', 'nodes': 300, 'features': 8}",
    "evaluate={'random': {'type': 'logistic', 'split': 'random', 'repeats': 1}}",
    "train.steps=8",
    "train.log_every=1",
    "train.checkpoint_every=2",
    "train.keep_checkpoints=1",
]


def ablate(workspace, folder):
    options = dict(out=workspace.folder / folder / "runs", results=workspace.folder / folder / "results")
    grid = ["encoder.hidden=[4],[8]"]
    # In this process, and so without importing torch after every kill.
    return run_ablation(workspace.recipe, grid=grid, seeds=2, overrides=OVERRIDES, executor="debug", **options)


def start(workspace, folder):
    """A fork that runs the ablation; its process id."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(ablate(workspace, folder))
    return pid


def results(workspace, folder):
    """What all runs left, timings apart."""
    found = {}
    for path in (workspace.folder / folder / "runs").glob("tiny/*/seed*/result.json"):
        result = json.loads(path.read_text())
        del result["seconds"]
        metrics = (path.parent / "metrics.jsonl").read_text()
        weights = (path.parent / "encoder.safetensors").read_bytes()
        found[path.parent.parent.name, path.parent.name] = result, metrics, weights
    return found


def records(workspace, folder):
    path = workspace.folder / folder / "results/tiny/runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_an_ablation_killed_at_random_moments_loses_and_duplicates_nothing(workspace):
    assert ablate(workspace, "whole") == 0
    ends = sorted(path.stat().st_mtime for path in (workspace.folder / "whole").rglob("result.json"))
    whole = len(ends) * (ends[-1] - ends[-2])  # the first one also imported much
    draw = random.Random(0)
    lost = []
    for _ in range(KILLS):
        pid = start(workspace, "killed")
        time.sleep(draw.uniform(0.0, 0.6) * whole)
        before = records(workspace, "killed")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        after = records(workspace, "killed")
        lost += [record for record in before if record not in after]
    _, status = os.waitpid(start(workspace, "killed"), 0)
    assert status == 0
    assert lost == []
    keys = [(record["hash"], record["seed"]) for record in records(workspace, "killed")]
    assert len(keys) == len(set(keys)) == 4
    assert results(workspace, "killed") == results(workspace, "whole")
