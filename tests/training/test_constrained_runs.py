"""Whole runs with constraints: resumed exactly, exported plainly, measured as they act."""

import json
import shutil

import pytest
import torch
from tiny import tiny_recipe
from torch import nn

from sslcollapse import cli
from sslcollapse.core.errors import RunError
from sslcollapse.encoders.gcn import GCN
from sslcollapse.layers.map import layer_map
from sslcollapse.recipe import assign, identify, resolve
from sslcollapse.runs.export import load_encoder, plain_state_dict
from sslcollapse.training.build import build_domain, build_encoder, build_module
from sslcollapse.training.checkpoint import load_latest_checkpoint
from sslcollapse.training.dry_run import dry_run
from sslcollapse.training.evaluate import evaluate_run
from sslcollapse.training.trainer import train

RECIPE = tiny_recipe(
    "constrained",
    constraints=dict(
        first=dict(type="orthogonal", on=["convs.0"]),
        second=dict(type="spectral_norm", on=["convs.1"]),
        head=dict(type="retraction", on=["predictor.*"]),
    ),
    regularizers=dict(
        werank=dict(type="werank", coefficient=1e-2),
        spread=dict(type="variance", on=["convs.*", "representation"], coefficient={"convs.1": 0.1}),
    ),
    optim=dict(type="adamw", lr=1e-2, weight_decay=0.1),
    train=dict(steps=8, log_every=1, checkpoint_every=4, precision="bf16"),
    monitor=dict(every=4),
    evaluate=dict(public=dict(type="logistic", split="public")),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(RECIPE, out=tmp_path_factory.mktemp("constrained"))


def result(run):
    return {key: value for key, value in json.loads((run / "result.json").read_text()).items() if key != "seconds"}


def test_a_run_resumed_from_its_middle_ends_with_the_same_bits(run, tmp_path):
    copy = tmp_path / run.relative_to(run.parents[2])
    shutil.copytree(run, copy)
    for name in ("result.json", "encoder.safetensors", "encoder.json", "checkpoints/step00000008.pt"):
        (copy / name).unlink()
    train(RECIPE, out=tmp_path, resume=True)
    assert "resuming after step 4" in (copy / "train.log").read_text()
    assert result(copy) == result(run)
    assert (copy / "encoder.safetensors").read_bytes() == (run / "encoder.safetensors").read_bytes()
    ours, theirs = (load_latest_checkpoint(each / "checkpoints")["module"] for each in (run, copy))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_compiled_networks_with_constraints_train_as_others_do_and_stay_in_their_sets(precision, tmp_path, monkeypatch):
    compile_ = nn.Module.compile
    # Traced and differentiated as by the default backend, without compiling C++, which takes most of a minute.
    monkeypatch.setattr(nn.Module, "compile", lambda network: compile_(network, backend="aot_eager"))
    changes = {"evaluate": {}, "monitor.every": 0, "train.precision": precision, "train.steps": 4}
    runs = [
        train(assign(RECIPE, {**changes, "train.compile": compiled}), out=tmp_path / str(compiled))
        for compiled in (False, True)
    ]
    plain, compiled = ([json.loads(line) for line in (r / "metrics.jsonl").read_text().splitlines()] for r in runs)
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4 if precision == "no" else 1e-2)
    layers = result(runs[1])["rank"]["layers"]
    assert layers["convs.0"]["weight"]["effective_rank"] == pytest.approx(12)
    assert layers["predictor.layers.0"]["weight"]["effective_rank"] == pytest.approx(7)
    ours, theirs = (layer_map(load_encoder(run)[0])["convs.1"].weight().detach() for run in runs)
    assert float(torch.linalg.matrix_norm(theirs, 2)) == pytest.approx(1.0, abs=0.1)
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4 if precision == "no" else 2e-2)


def test_half_precision_that_a_processor_has_not_is_refused_before_a_directory_is_made(tmp_path):
    with pytest.raises(RunError, match=r"train\.precision: 'fp16' needs a GPU; on a processor use 'bf16' or 'no'"):
        train(assign(RECIPE, {"train.precision": "fp16"}), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_ranks_are_those_of_the_weights_that_act(run):
    layers = result(run)["rank"]["layers"]
    assert layers["convs.0"]["weight"]["effective_rank"] == pytest.approx(12)
    assert layers["predictor.layers.0"]["weight"]["effective_rank"] == pytest.approx(7)
    assert layers["convs.1"]["weight"]["effective_rank"] < 7.9
    penalties = result(run)["regularizers"]
    assert penalties["werank"]["convs.0"]["excess"] < 1e-4
    assert penalties["spread"]["convs.1"]["penalty"] > 0


def test_the_export_loads_without_constraints_and_is_the_trained_network(run):
    encoder, _ = load_encoder(run)
    recipe = resolve(RECIPE)
    trained = build_module(recipe, build_domain(recipe))
    trained.load_state_dict(load_latest_checkpoint(run / "checkpoints")["module"])
    for name, layer in layer_map(encoder).items():
        assert torch.equal(layer.parameter, trained.layers[name].weight())
    plain = GCN(12, hidden=[16, 8])
    plain.load_state_dict(encoder.state_dict())
    assert torch.equal(plain_state_dict(run)["convs.0.lin.weight"], plain.convs[0].weight)
    assert evaluate_run(run)["evaluation"]["public"] == result(run)["evaluation"]["public"]


def test_the_untrained_encoder_is_the_one_before_the_first_step():
    recipe = resolve(RECIPE)
    untrained = build_encoder(recipe, build_domain(recipe))
    module = build_module(recipe, build_domain(recipe))
    for name, layer in layer_map(untrained).items():
        torch.testing.assert_close(layer.parameter, module.layers[name].weight())


def test_diagnose_reads_the_exported_weights_and_a_dry_run_names_the_constraints(run, capsys):
    assert cli.main(["diagnose", str(run)]) == 0
    assert "convs.0" in capsys.readouterr().out
    dry_run(*identify(RECIPE))
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("constraint", "first", "second", "head"))
