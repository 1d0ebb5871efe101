"""Runs with views that hide nodes: they learn, resume to the same bits with dropout, and a wrong pair is refused."""

from __future__ import annotations

import json
import shutil

import pytest
from tiny import tiny_recipe

from sslcollapse.core.errors import RecipeError
from sslcollapse.recipe import assign
from sslcollapse.training.trainer import train

RECIPE = assign(
    tiny_recipe(
        "masked",
        optim=dict(type="adamw", lr=1e-2),
        train=dict(steps=30, log_every=1, checkpoint_every=20, keep_checkpoints=9),
        monitor=dict(every=30),
        evaluate=dict(public=dict(type="logistic", split="public")),
    ),
    {
        "domain.views": dict(type="chain", views=[[dict(type="node_mask", p=0.5, replace=0.1)]]),
        "encoder": dict(type="gat", hidden=[16, 16], heads=2, dropout=0.1, attention_dropout=0.1),
        "objective": dict(type="graphmae"),
    },
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(RECIPE, out=tmp_path_factory.mktemp("run"))


def losses(path):
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_a_run_makes_hidden_features_ever_better_and_has_the_ranks_of_its_encoder(run):
    values = losses(run)
    assert len(values) == 30
    assert sum(values[-5:]) < 0.95 * sum(values[:5])
    result = json.loads((run / "result.json").read_text())
    assert set(result["rank"]["layers"]) == {"convs.0.lin", "convs.1.lin"}
    assert result["rank"]["representation"]["n"] == 120


def test_a_run_resumed_from_a_checkpoint_draws_the_same_masks_and_the_same_dropout(run, tmp_path):
    other = tmp_path / run.relative_to(run.parents[2])
    shutil.copytree(run, other)
    for name in ("result.json", "encoder.safetensors", "encoder.json", "splits.npz", "checkpoints/step00000030.pt"):
        (other / name).unlink()
    again = train(RECIPE, out=tmp_path, resume=True)
    assert losses(again) == losses(run)
    assert (again / "encoder.safetensors").read_bytes() == (run / "encoder.safetensors").read_bytes()


def test_an_objective_for_graphs_is_refused_with_images_before_data_are_read(tmp_path):
    recipe = dict(
        name="wrong",
        domain=dict(type="vision", dataset=dict(type="digits"), batch_size=16),
        encoder=dict(type="resnet_narrow"),
        objective=dict(type="graphmae"),
        optim=dict(type="adamw", lr=1e-3),
        train=dict(steps=1),
    )
    with pytest.raises(RecipeError, match=r"objective.type: 'graphmae' reads views of kind graph, .* of kind image"):
        train(recipe, out=tmp_path)
