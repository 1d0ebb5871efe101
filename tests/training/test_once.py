"""What a run does once: resolve its recipe, hash it, build its networks."""

import functools
import json
from collections import Counter

import pytest
from tiny import tiny_recipe

from sslcollapse import cli
from sslcollapse.encoders.gcn import GCN
from sslcollapse.recipe import identity, recipe
from sslcollapse.training.module import SSLModule
from sslcollapse.training.trainer import train

PROBES = dict(public=dict(type="logistic", split="public"))
ONCE = dict(resolved=1, hashed=1, modules=1, encoders=3)
"""The encoders: the one that is trained, the plan that says whether an export can be loaded, and the untrained one."""


@pytest.fixture
def counts(monkeypatch):
    """How often a recipe is resolved and hashed, and how often a module is built; all of it is really done."""
    found = Counter()

    def counted(name, function):
        @functools.wraps(function)
        def call(*arguments, **options):
            found[name] += 1
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(recipe, "check", counted("resolved", recipe.check))
    monkeypatch.setattr(identity, "digest", counted("hashed", identity.digest))
    monkeypatch.setattr(SSLModule, "__init__", counted("modules", SSLModule.__init__))
    monkeypatch.setattr(GCN, "__init__", counted("encoders", GCN.__init__))
    return found


def short(**fields):
    return tiny_recipe("once", train=dict(steps=2), optim=dict(type="adamw", lr=1e-2), evaluate=PROBES, **fields)


def test_a_run_resolves_and_hashes_its_recipe_and_builds_its_module_once(tmp_path, counts):
    train(short(), out=tmp_path)
    assert counts == ONCE


def test_the_command_resolves_and_hashes_once_with_its_overrides_and_hands_both_over(tmp_path, counts, capsys):
    file = tmp_path / "once.json"
    file.write_text(json.dumps(short()))
    assert cli.main(["train", str(file), "seed=3", "train.steps=3", "--out", str(tmp_path / "runs")]) == 0
    assert counts == ONCE
    (result,) = (tmp_path / "runs" / "once").glob("*/seed3/result.json")
    made = json.loads(result.read_text())
    assert made["recipe"]["train"]["steps"] == 3
    assert made["hash"] == result.parents[1].name == identity.recipe_hash(made["recipe"])
    assert json.loads((result.parent / "encoder.json").read_text())["hash"] == made["hash"]


def test_a_resumed_run_counts_as_one_run(tmp_path, counts):
    run = train(short(), out=tmp_path)
    (run / "result.json").unlink()
    counts.clear()
    train(short(), out=tmp_path, resume=True)
    assert counts == ONCE


def test_the_untrained_encoder_is_built_for_its_probes_alone(tmp_path, counts):
    result = json.loads((train({**short(), "evaluate": {}}, out=tmp_path) / "result.json").read_text())
    assert counts == {**ONCE, "encoders": 2}
    assert result["evaluation"] == result["untrained"] == {}
