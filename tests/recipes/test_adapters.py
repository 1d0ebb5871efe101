"""A small recipe for each adapter trains, and goes on where it stopped, bit by bit."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sslcollapse.core.errors import PreemptedError
from sslcollapse.recipe import extend, load, override, resolve
from sslcollapse.training import trainer

RECIPES = sorted((Path(__file__).parents[2] / "recipes/adapters").glob("*.py"))
SHORT = [
    "train.steps=4",
    "optim.warmup_steps=1",
    "train.checkpoint_every=2",
    "monitor.every=0",
    "domain.batch_size=32",
    "monitor.samples=64",
]


def short(path: Path) -> dict:
    return resolve(override(load(path), [*SHORT, "evaluate={}", "encoder.width=4"]))


def test_every_adapter_of_ours_has_a_recipe():
    used = [resolve(load(path)) for path in RECIPES]
    assert any(recipe["objective"]["type"] == "lightly" for recipe in used)
    assert any(recipe["optim"]["type"] == "timm" for recipe in used)
    assert any(recipe["domain"]["views"].get("type") == "torchvision" for recipe in used)


def test_what_the_guide_shows_is_accepted_as_it_stands():
    text = (RECIPES[0].parents[2] / "docs/adapters.md").read_text()
    shown: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(block, shown)
    changes = {"objective": shown["objective"], "optim": shown["optim"], "domain": {"views": shown["views"]}}
    changed = resolve(extend(load(RECIPES[0].parents[1] / "simclr_digits.py"), changes))
    assert changed["optim"]["name"] == "muon"
    assert changed["domain"]["views"]["count"] == [2, 6]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_of_an_adapter_resumes_bit_by_bit(path, tmp_path, monkeypatch):
    assert load(path)["name"] == path.stem
    whole = trainer.train(short(path), out=tmp_path / "whole")
    step = trainer.Trainer._step

    def interrupted(self, number, *rest, **settings):
        if number == 2:
            raise PreemptedError("stopped after two steps")
        return step(self, number, *rest, **settings)

    monkeypatch.setattr(trainer.Trainer, "_step", interrupted)
    with pytest.raises(PreemptedError):
        trainer.train(short(path), out=tmp_path / "parted")
    monkeypatch.undo()
    parted = trainer.train(short(path), out=tmp_path / "parted", resume=True)
    expected, found = (load_file(run / "encoder.safetensors") for run in (whole, parted))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
