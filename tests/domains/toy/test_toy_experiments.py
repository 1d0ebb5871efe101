"""The two toy experiments of Jing et al. 2022, shortened by a higher learning rate: the directions of their effects."""

import json
from pathlib import Path

import pytest
import torch

from sslcollapse.core.types import Context
from sslcollapse.recipe import load, override, resolve
from sslcollapse.training.build import build_domain, build_module
from sslcollapse.training.trainer import train

RECIPES = Path(__file__).parents[3] / "recipes"


def trained(name, *settings, steps=150, lr=0.01):
    """First layer's weight before and after plain SGD steps on a recipe's own parts."""
    settings = [f"train.steps={steps}", "domain.batch_size=64", *settings]
    recipe = resolve(override(load(RECIPES / f"{name}.py"), settings))
    domain = build_domain(recipe)
    module = build_module(recipe, domain)
    weight = module.encoder.layers[0].weight
    before = weight.detach().clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=lr)
    batches = domain.batches(0, Context(recipe["seed"]))
    for step in range(steps):
        optimizer.zero_grad()
        module(next(batches), step)["loss"].backward()
        optimizer.step()
    return before, weight.detach()


def test_strong_noise_shrinks_the_dimensions_that_it_is_in_and_weak_noise_does_not():
    ratios = {}
    for noise in (0.1, 1.5):
        _, weight = trained("toy_noise", f"domain.views.noise={noise}")
        columns = weight.norm(dim=0)
        ratios[noise] = float(columns[8:].mean() / columns[:8].mean())
    assert ratios[0.1] > 0.9
    assert ratios[1.5] < 0.4


def test_with_two_layers_small_singular_values_grow_least_and_werank_makes_them_grow():
    before, weight = trained("toy_depth", lr=0.05)
    start, end = torch.linalg.svdvals(before), torch.linalg.svdvals(weight)
    assert (end - start)[3:8].min() > 0.2
    assert (end - start)[-2:].abs().max() < 0.05
    _, ranked = trained("toy_werank_depth", "regularizers.werank.coefficient=1.0", lr=0.05)
    assert torch.linalg.svdvals(ranked)[-1] > 10 * end[-1]


@pytest.mark.parametrize("coefficient", [0.0, 1.0])
def test_neither_objective_nor_werank_repairs_rank_that_one_layer_has_lost_exactly(coefficient):
    werank = f"regularizers.werank.coefficient={coefficient}"
    _, weight = trained("toy_werank_noise", "encoder.initial_rank=8", "encoder.bias=False", werank)
    assert torch.linalg.svdvals(weight)[7] > 0.1
    assert torch.equal(weight[8:], torch.zeros(8, 16))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A straight run of a toy recipe, and one that was resumed from its half."""
    short = ["train.steps=20", "train.checkpoint_every=10", "monitor.every=0"]
    recipe = override(load(RECIPES / "toy_werank_noise.py"), short)
    straight = train(recipe, out=tmp_path_factory.mktemp("straight"))
    resumed = train(recipe, out=tmp_path_factory.mktemp("resumed"))
    (resumed / "result.json").unlink()
    (resumed / "checkpoints/step00000020.pt").unlink()
    train(recipe, out=resumed.parents[2], resume=True)
    return straight, resumed


def test_a_resumed_toy_run_ends_as_the_one_that_ran_through(runs):
    straight, resumed = (run / "encoder.safetensors" for run in runs)
    assert straight.read_bytes() == resumed.read_bytes()


def test_a_run_without_labels_and_probes_has_ranks_and_what_views_share(runs):
    result = json.loads((runs[0] / "result.json").read_text())
    assert result["evaluation"] == result["untrained"] == {}
    assert result["rank"]["shared"]["n"] == result["rank"]["shared_input"]["n"] == 4096
    assert result["rank"]["shared_input"]["effective_rank"] > 15.5
    # Eight dimensions share all of their variance 1, eight share 1 of 1 + 1.5².
    assert result["rank"]["shared_input"]["overlap"] == pytest.approx(16 / (8 + 8 * 3.25), abs=0.02)
    assert "shared" not in (runs[0] / "train.log").read_text()  # rows of a table that nothing on the page explains
