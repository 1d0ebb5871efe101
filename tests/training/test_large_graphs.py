"""Whole runs on sampled neighbourhoods: BGRL, GRACE and CCA-SSG, measured on the full graph, resumed to the bit."""

import json
import shutil
from pathlib import Path

import pytest
from tiny import tiny_recipe

from sslcollapse import testing
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.types import Context
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.mapped import MappedFeatures, MappedStructure
from sslcollapse.encoders.sage import SAGE
from sslcollapse.probes.evaluate import build_probes, run_probes
from sslcollapse.rank.measure import measure, represent
from sslcollapse.rank.views import measure_shared
from sslcollapse.recipe import assign, resolve
from sslcollapse.runs.directory import RunDirectory, read_metrics
from sslcollapse.runs.export import load_encoder
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


EVALUATED = assign(
    RECIPE,
    {
        "evaluate": {"public": dict(type="logistic", c_step=10), "nearest": dict(type="knn", k=5)},
        "monitor": {"every": 4, "timed": ["nearest"], "timed_every": 8, "samples": 50},
        "encoder": dict(type="sage", hidden=[8, 8], norm="layer", residual=False),
    },
)


def test_a_sampled_run_never_makes_a_forward_pass_over_all_nodes(tmp_path, monkeypatch):
    passed, forward = [], SAGE.forward

    def watched(self, view):
        passed.append(view.num_nodes if view.sample_rows is None else -1)
        return forward(self, view)

    monkeypatch.setattr(SAGE, "forward", watched)
    run = train(EVALUATED, out=tmp_path)
    assert set(passed) == {-1}
    result = json.loads((run / "result.json").read_text())
    assert result["warnings"] == []
    assert result["rank"]["representation"]["n"] == 50
    assert set(result["baselines"]) == {"same_spectrum", "X", "AX", "AAX"}
    monkeypatch.undo()
    whole = build_domain(resolve(assign(EVALUATED, {"domain.batching": {"type": "full"}})))
    probe_set, probes = whole.probe_set(), build_probes(resolve(EVALUATED)["evaluate"])
    encoder, _ = load_encoder(run)
    found, _ = run_probes(probes, represent(encoder, probe_set.views), probe_set)
    for name in probes:
        assert result["evaluation"][name]["test_accuracy"] == found[name]["test_accuracy"]
    views, rows = probe_set.measured(50)
    expected = measure(encoder, views, rows=rows).ranks["layers"]
    for layer, parts in expected.items():
        found = result["rank"]["layers"][layer]["output"]
        assert found["effective_rank"] == pytest.approx(parts["output"]["effective_rank"], rel=1e-5)
    x = run_probes(probes, whole.baselines()["AX"](probe_set.views[0]), probe_set)[0]
    assert result["baselines"]["AX"]["public"]["test_accuracy"] == x["public"]["test_accuracy"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The graph of the recipe on disk."""
    folder = tmp_path_factory.mktemp("packed") / "graph"
    build_domain(resolve(RECIPE)).pack(folder, features="float32", memory=2**24, progress=lambda line: None)
    return {"domain.dataset": {"type": "stored", "path": str(folder)}}


def test_a_run_on_a_graph_on_disk_is_measured_and_evaluated_without_ever_having_all_of_it(
    packed, tmp_path, monkeypatch
):
    monkeypatch.setattr(MappedStructure, "edge_index", property(lambda self: pytest.fail("all edges were made")))
    monkeypatch.setattr(MappedFeatures, "_x", property(lambda self: pytest.fail("all features were made")))
    run = train(assign(EVALUATED, packed | {"monitor.samples": None}), out=tmp_path)
    result = json.loads((run / "result.json").read_text())
    assert result["warnings"] == []
    assert result["rank"]["representation"]["n"] == 120
    assert set(result["baselines"]) == {"same_spectrum", "X", "AX", "AAX"}
    assert len(result["course"]["test_accuracy"]) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": dict(type="mlp", hidden=[8, 8])}, "encoder: MLP needs the whole graph in memory"),
        ({"monitor.smoothness": True}, "monitor.smoothness: is measured in one forward pass over all nodes"),
    ],
)
def test_what_needs_one_pass_over_a_graph_on_disk_is_refused_before_the_first_step(packed, changes, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        train(assign(RECIPE, packed | changes), out=tmp_path)
    assert not list(tmp_path.glob("**/metrics.jsonl"))


def test_smoothness_of_a_sampled_run_is_measured_in_one_pass_where_the_graph_is_in_memory(tmp_path):
    run = train(assign(RECIPE, {"monitor.smoothness": True}), out=tmp_path)
    assert "mad" in json.loads((run / "result.json").read_text())["rank"]["layers"]["convs.0"]["output"]


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
