"""Whole runs on sampled neighbourhoods: BGRL, GRACE and CCA-SSG, measured on the full graph, resumed to the bit."""

import json
import shutil
from pathlib import Path

import pytest
from tiny import tiny_recipe

from sslcollapse import testing
from sslcollapse.core.types import Context
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.rank.views import measure_shared
from sslcollapse.recipe import assign, resolve
from sslcollapse.runs.directory import RunDirectory, read_metrics
from sslcollapse.training.build import build_domain, build_module
from sslcollapse.training.trainer import train

NEIGHBOURS = dict(type="neighbours", batch_size=16, fanout=[4, 4])
RECIPE = tiny_recipe(
    "sampled",
    optim=dict(type="adamw", lr=1e-2),
    train=dict(steps=8, log_every=1, checkpoint_every=3, keep_checkpoints=9),
    monitor=dict(every=4),
    evaluate={},
)
RECIPE = assign(RECIPE, {"domain.batching": NEIGHBOURS})
OBJECTIVES = {
    "bgrl": dict(type="bgrl", predictor_hidden=7),
    "grace": dict(type="simclr", projector=[9, 6], norm="none"),
    "cca_ssg": dict(type="cca_ssg"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_trains_on_roots_and_is_measured_on_the_full_graph(name, tmp_path):
    recipe = assign(
        RECIPE, {"objective": OBJECTIVES[name], "regularizers": {"werank": dict(type="werank", coefficient=1e-2)}}
    )
    run = train(recipe, out=tmp_path)
    rank = json.loads((run / "result.json").read_text())["rank"]
    assert rank["representation"]["n"] == 120
    assert rank["shared"]["n"] == rank["shared_input"]["n"] == 4096
    assert "warning" not in (run / "train.log").read_text().lower()


@pytest.mark.parametrize("encoder", ["gcn", "sage", "mlp", "pyg"])
def test_samples_are_the_roots_alone_whatever_the_encoder(encoder):
    arguments = {"pyg": dict(module="GraphSAGE", out_dim=8, kwargs=dict(hidden_channels=8, num_layers=2))}
    recipe = resolve(assign(RECIPE, {"encoder": dict(type=encoder, **arguments.get(encoder, dict(hidden=[8, 8])))}))
    domain = build_domain(recipe)
    domain.load()
    batch, module = next(domain.batches(0, Context())), build_module(recipe, domain)
    view = batch.views[0]
    assert view.num_nodes > len(batch.index) == 16
    assert len(module.branch(view).h) == len(module.target(view).h) == len(domain.measurable(view)) == 16
    assert measure_shared(module.encoder, [batch], measurable=domain.measurable)["shared"]["n"] == 16


def test_a_resumed_run_is_bit_identical_to_one_that_ran_through(tmp_path):
    straight = train(RECIPE, out=tmp_path / "straight")
    run = RunDirectory.of(resolve(RECIPE), tmp_path / "resumed").path
    shutil.copytree(straight, run)
    (run / "result.json").unlink()
    for path in (run / "checkpoints").glob("step*.pt"):
        if int(path.stem.removeprefix("step")) > 3:
            path.unlink()
    train(RECIPE, out=tmp_path / "resumed", resume=True)
    assert read_metrics(run / "metrics.jsonl") == read_metrics(straight / "metrics.jsonl")
    assert (run / "encoder.safetensors").read_bytes() == (straight / "encoder.safetensors").read_bytes()


def test_the_domain_keeps_its_contract_with_sampled_neighbourhoods():
    dataset = dict(type="csbm", nodes=120, features=12, train_per_class=5, validation_per_class=5)
    testing.check_domain(GraphDomain(Path(), dataset=dataset, batching=NEIGHBOURS))
