"""What a trained encoder is held against, in the result of a run, and added to that of an old one."""

import json
import shutil

import numpy as np
import pytest
import text_parts
import torch
from tiny import random_graph, tiny_recipe, tiny_view
from torch import nn

from sslcollapse import cli
from sslcollapse.domains.graph import domain as graph_domain
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView
from sslcollapse.encoders.gcn import GCN
from sslcollapse.encoders.mlp import MLP
from sslcollapse.layers.map import LayerError, layer_map
from sslcollapse.probes.evaluate import build_probes, run_probes
from sslcollapse.rank.measure import measure, represent
from sslcollapse.recipe import override, recipe_hash, resolve
from sslcollapse.runs.export import load_encoder
from sslcollapse.runs.quantities import EVIDENCE
from sslcollapse.training import baselines
from sslcollapse.training.baselines import FOLDER, same_spectrum
from sslcollapse.training.build import build_domain, build_encoder
from sslcollapse.training.evaluate import evaluate_run
from sslcollapse.training.trainer import train

RECIPE = tiny_recipe(
    "held",
    optim=dict(type="adamw", lr=1e-2),
    train=dict(steps=6),
    monitor=dict(every=3),
    evaluate=dict(public=dict(type="logistic", split="public"), near=dict(type="knn", k=5)),
)
NAMES = ["same_spectrum", "X", "AX", "AAX"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(RECIPE, out=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def copy(run, tmp_path):
    """The finished run in a folder of its own."""
    to = tmp_path / run.relative_to(run.parents[2])
    shutil.copytree(run, to)
    return to


def read(run):
    return json.loads((run / "result.json").read_text())


def trained_gcn():
    torch.manual_seed(0)
    encoder, view = GCN((12,), hidden=[16, 8]), random_graph()
    for _ in range(3):
        encoder(view)  # BatchNorm sees the data
    for norm in (module for module in encoder.modules() if isinstance(module, nn.BatchNorm1d)):
        nn.init.uniform_(norm.weight)
        nn.init.uniform_(norm.bias)
    return encoder.eval(), view


def test_random_weights_of_the_same_spectrum_have_its_singular_values_and_none_of_its_directions():
    encoder, view = trained_gcn()
    twin = same_spectrum(encoder, [view], seed=0)
    for name, layer in layer_map(encoder).items():
        own, other = (each.weight().detach().double() for each in (layer, layer_map(twin)[name]))
        torch.testing.assert_close(torch.linalg.svdvals(own), torch.linalg.svdvals(other), rtol=1e-5, atol=1e-6)
        cosine = float((own * other).sum() / (own.norm() * other.norm()))
        assert abs(cosine) < 0.4
    again, third = (same_spectrum(encoder, [view], seed=seed).convs[0].weight for seed in (0, 1))
    assert torch.equal(again, twin.convs[0].weight)
    assert not torch.allclose(third, again)


def test_random_weights_are_uniformly_distributed_whatever_the_trained_directions_are():
    encoder = MLP((6,), hidden=[4], norm="none")
    (name,) = layer_map(encoder)
    with torch.no_grad():
        layer_map(encoder)[name].assign(torch.diag(torch.tensor([3.0, 1, 0, 0])) @ torch.eye(4, 6))
    drawn = torch.stack([layer_map(same_spectrum(encoder, [], seed))[name].weight().detach() for seed in range(400)])
    energy = drawn.square().mean(0)  # ‖W‖² = 10 spread over 24 entries
    assert float((energy - 10 / 24).abs().max()) < 0.12
    assert float(drawn.mean(0).abs().max()) < 0.12


def test_everything_but_the_weights_of_layers_is_as_trained_and_statistics_are_measured_again():
    encoder, view = trained_gcn()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    twin = same_spectrum(encoder, [view], seed=0)
    after = twin.state_dict()
    replaced = {name for name in before if not torch.equal(before[name], after[name])}
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    assert replaced == {"convs.0.weight", "convs.1.weight"} | statistics
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    hidden = twin.convs[0](view.features, view.adjacency(graph_domain.gcn_matrix))
    torch.testing.assert_close(twin.norm_acts[0].norm.running_mean, hidden.mean(0), rtol=1e-4, atol=1e-5)


def test_a_weight_that_cannot_be_set_is_refused_by_name():
    encoder, view = GCN((12,), hidden=[16, 8], weight_standardization=True), random_graph()
    with pytest.raises(LayerError, match=r"layer 'convs.1': its weight is computed from what is stored"):
        same_spectrum(encoder, [view], seed=0)
    with pytest.raises(LayerError, match="the encoder has no layers"):
        same_spectrum(nn.Identity(), [view], seed=0)


@pytest.mark.parametrize("sparse", [False, True])
def test_node_features_are_propagated_by_the_normalised_adjacency_of_a_gcn(sparse):
    view = tiny_view(sparse=sparse)
    x = view.x
    a = torch.eye(7, dtype=x.dtype)
    for source, target in view.edge_index.t().tolist():
        if source != target:
            a[target, source] += 1
    scale = a.sum(1).rsqrt()
    a = scale[:, None] * a * scale
    offered = build_domain(resolve(RECIPE)).baselines()
    assert list(offered) == ["X", "AX", "AAX"]
    for name, expected in (("X", x), ("AX", a @ x), ("AAX", a @ a @ x)):
        torch.testing.assert_close(offered[name](view), expected)


def test_features_of_too_many_numbers_are_not_made_dense(monkeypatch):
    monkeypatch.setattr(graph_domain, "MAX_DENSE", 34)
    view = GraphView(GraphStructure(torch.zeros(2, 0, dtype=torch.long), 7), Features(torch.zeros(7, 5)))
    assert all(function(view) is None for function in build_domain(resolve(RECIPE)).baselines().values())


def test_a_result_has_every_probe_on_every_baseline_in_the_form_of_the_untrained_encoders(run):
    result = read(run)
    assert result["warnings"] == []
    assert list(result["baselines"]) == NAMES
    for probes in result["baselines"].values():
        for name, metrics in result["untrained"].items():
            assert probes[name].keys() == metrics.keys()
    domain = build_domain(resolve(RECIPE))
    probe_set = domain.probe_set()
    features = domain.baselines()["AAX"](probe_set.views[0]).float()
    expected, _ = run_probes(build_probes(resolve(RECIPE)["evaluate"]), features, probe_set)
    assert json.loads(json.dumps(expected)) == result["baselines"]["AAX"]


def test_ranks_of_baselines_are_uncentred_and_centred_and_measured_as_the_representations(run):
    result = read(run)
    assert set(result["baseline_ranks"]) == {"untrained", *NAMES}
    for entry in result["baseline_ranks"].values():
        assert entry["representation"].keys() == result["rank"]["representation"].keys()
        assert entry["representation"]["n"] == 120
    recipe = resolve(RECIPE)
    domain = build_domain(recipe)
    views = domain.probe_set().views
    untrained = measure(build_encoder(recipe, domain), views).ranks["representation"]
    assert result["baseline_ranks"]["untrained"]["representation"] == pytest.approx(untrained)
    features = baselines.ranks_of(domain.baselines()["X"](views[0]))
    assert result["baseline_ranks"]["X"]["representation"] == pytest.approx(features)


def test_the_baseline_of_the_same_spectrum_is_made_of_the_exported_encoder(run):
    result, probe_set = read(run), build_domain(resolve(RECIPE)).probe_set()
    twin = same_spectrum(load_encoder(run)[0], probe_set.views, seed=0)
    features = represent(twin, probe_set.views)
    expected, _ = run_probes(build_probes(resolve(RECIPE)["evaluate"]), features, probe_set)
    assert json.loads(json.dumps(expected)) == result["baselines"]["same_spectrum"]


def test_what_does_not_depend_on_the_run_is_computed_once_for_a_folder_of_runs(tmp_path):
    first = read(train(RECIPE, out=tmp_path))
    kept = sorted((tmp_path / FOLDER).glob("*.json"))
    assert len(kept) == 3
    for path in kept:  # so that it shows whether it was read
        entry = json.loads(path.read_text())
        entry["evaluation"]["public"]["marked"] = path.stem
        path.write_text(json.dumps(entry))
    other = read(train({**RECIPE, "seed": 1}, out=tmp_path))
    assert {other["baselines"][name]["public"]["marked"] for name in ("X", "AX", "AAX")} == {p.stem for p in kept}
    assert "marked" not in other["baselines"]["same_spectrum"]["public"]
    probes = dict(public=dict(type="logistic", split="public", c_step=5))
    changed = read(train({**RECIPE, "evaluate": probes}, out=tmp_path))
    assert "marked" not in changed["baselines"]["X"]["public"], "another probe"
    kept[0].write_text('{"evaluation": [')
    damaged = read(train({**RECIPE, "seed": 2}, out=tmp_path))
    assert damaged["baselines"].keys() == first["baselines"].keys()


def test_results_of_probes_that_a_recipe_registers_are_not_kept(own_components, tmp_path):
    text_parts.register()
    result = read(train(text_parts.text_recipe("text"), out=tmp_path))
    assert list(result["baselines"]) == ["same_spectrum"], "a domain of its own need not offer any"
    recipe = RECIPE | dict(evaluate=dict(means=dict(type="nearest_mean")))
    assert read(train(recipe, out=tmp_path))["baselines"]["X"]["means"]["solver"] == "means"
    assert not (tmp_path / FOLDER).exists()


def test_baselines_can_be_left_out_and_neither_they_nor_the_course_are_part_of_the_hash(run, tmp_path):
    recipe = override(RECIPE, ["monitor.baselines=False", "monitor.probe=False"])
    assert recipe_hash(resolve(recipe)) == run.parent.name
    other = train(recipe, out=tmp_path)
    assert "baselines" not in read(other)
    assert (other / "encoder.safetensors").read_bytes() == (run / "encoder.safetensors").read_bytes()
    assert "test_accuracy" not in read(other)["course"]


def test_baselines_that_fail_are_a_warning_and_the_run_is_finished(monkeypatch, tmp_path):
    def broken(self):
        return {"X": lambda view: view.there_is_no_such_thing}

    monkeypatch.setattr(graph_domain.GraphDomain, "baselines", broken)
    run = train(RECIPE, out=tmp_path)
    result = read(run)
    (line,) = result["warnings"]
    assert line.startswith("baselines are not measured: AttributeError: 'GraphView' object has no attribute")
    assert result["rank"]["shared"]
    assert result["baselines"].keys() == {"same_spectrum"}, "what was measured before is kept"
    assert "Traceback (most recent call last)" in (run / "train.log").read_text()


def test_a_baseline_that_would_take_long_is_left_out_with_what_adds_it(monkeypatch, tmp_path):
    monkeypatch.setattr(baselines, "LARGEST", 100)
    monkeypatch.setattr(baselines.Bench.__init__, "__defaults__", (None, 100))
    run = train(RECIPE, out=tmp_path)
    assert list(read(run)["baselines"]) == ["same_spectrum"]
    log = (run / "train.log").read_text()
    assert "no baseline AX: 120 × 12 numbers are many for a run to wait for; 'sslcollapse evaluate'" in log
    evaluate_run(run)
    assert list(read(run)["baselines"]) == NAMES


def test_evaluating_a_run_of_an_older_version_adds_what_it_lacks_and_changes_nothing_else(copy, capsys):
    whole = read(copy)
    old = {key: value for key, value in whole.items() if key not in EVIDENCE}
    (copy / "result.json").write_text(json.dumps(old))
    assert cli.main(["evaluate", str(copy), "--probe", "near"]) == 0
    shown = capsys.readouterr().out
    for name in ("baselines.AAX", "baseline_ranks.untrained", "course", "target"):
        assert name in shown
    assert list(read(copy)["baselines"]["X"]) == ["near"]
    evaluate_run(copy)
    now = read(copy)
    assert {key: now[key] for key in old} == old
    assert now["baselines"] == whole["baselines"]
    assert now["baseline_ranks"] == whole["baseline_ranks"]
    assert now["target"] == whole["target"]
    assert now["course"]["representation"] == whole["course"]["representation"]
    before = (copy / "result.json").read_bytes()
    capsys.readouterr()
    evaluate_run(copy)
    assert (copy / "result.json").read_bytes() == before
    assert "added" not in capsys.readouterr().out


def test_an_encoder_without_its_run_is_evaluated_with_baselines_and_nothing_is_written(run, tmp_path):
    for name in ("encoder.safetensors", "encoder.json"):
        shutil.copy(run / name, tmp_path)
    assert evaluate_run(tmp_path)["baselines"] == read(run)["baselines"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.json", "encoder.safetensors"]


def test_the_terminal_has_a_row_for_each_baseline_and_its_rank(run):
    log = (run / "train.log").read_text()
    table = log[log.index("evaluation (test)") : log.index("effective rank / attainable")]
    result = read(run)
    titles = ["X, no encoder", "AX, no encoder", "AAX, no encoder", "untrained", "random, same spectrum", "trained"]
    rows = [line for line in table.splitlines() if "│" in line]
    assert [row.split("│")[1].strip() for row in rows[-6:]] == titles
    (row,) = [row for row in rows if "AAX" in row]
    assert f"{100 * result['baselines']['AAX']['public']['test_accuracy']['mean']:.2f}" in row
    assert f"{result['baseline_ranks']['AAX']['representation']['effective_rank']:.1f} / 12" in row


def test_pixels_are_the_baseline_of_images(tmp_path):
    recipe = dict(
        name="pixels",
        domain=dict(type="vision", dataset=dict(type="digits"), batch_size=64),
        encoder=dict(type="mlp", hidden=[8]),
        objective=dict(type="simclr", projector=[8]),
        optim=dict(type="adamw", lr=1e-3),
        train=dict(steps=2),
        evaluate=dict(knn=dict(type="knn", k=5)),
    )
    result = read(train(recipe, out=tmp_path))
    assert list(result["baselines"]) == ["same_spectrum", "pixels"]
    assert result["baselines"]["pixels"]["knn"]["test_accuracy"]["mean"] > 0.8
    assert result["baseline_ranks"]["pixels"]["representation"]["attainable"] == 64
    assert "test_accuracy" not in result["course"], "inputs are made a batch at a time, so nobody encodes all at each"
    asked = read(train(override(recipe, ["monitor.probe=True", "monitor.every=1"]), out=tmp_path / "asked"))
    assert len(asked["course"]["test_accuracy"]) == 3
    assert np.isfinite(asked["course"]["test_accuracy"]).all()
