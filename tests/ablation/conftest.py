import json
from pathlib import Path

import fake_worker
import pytest

BASE = """
recipe = dict(
    name="tiny",
    domain=dict(type="graph", dataset=dict(type="digits"), views=dict(strength=0.2)),
    encoder=dict(type="gcn", hidden=[4]),
    objective=dict(type="bgrl", predictor_hidden=4),
    optim=dict(type="adamw", lr=1e-3, warmup_steps=0),
    train=dict(steps=2),
    monitor=dict(every=0),
    evaluate=dict(public=dict(type="logistic", split="public")),
)
"""


class Workspace:
    """A folder with a recipe, where runs are made by ``fake_worker.py`` in place of real training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = folder / "tiny.py"
        self.recipe.write_text(BASE)
        self.out, self.results = folder / "runs", folder / "results"

    def ablation(self, text: str) -> Path:
        path = self.folder / "ablation.py"
        path.write_text(f"ablation = dict({text})")
        return path

    def calls(self) -> list[dict]:
        path = self.out / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def records(self, name: str = "tiny") -> list[dict]:
        return [json.loads(line) for line in (self.results / name / "runs.jsonl").read_text().splitlines()]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setattr("sslcollapse.ablation.executors.local._serve", fake_worker.serve)
    monkeypatch.setattr("sslcollapse.ablation.executors.local.PRELOAD", ())
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path)
