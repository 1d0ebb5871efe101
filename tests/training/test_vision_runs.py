"""Whole runs on images: the same loop, files and words as on graphs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.probes.knn import KNNProbe
from sslcollapse.recipe import assign, recipe_hash, resolve
from sslcollapse.runs.export import load_encoder
from sslcollapse.training.build import build_domain, build_module
from sslcollapse.training.checkpoint import load_latest_checkpoint
from sslcollapse.training.evaluate import evaluate_run
from sslcollapse.training.trainer import train

SMALL = {
    "simclr": dict(projector=[16, 8]),
    "byol": dict(projector=[16, 8], predictor_hidden=16),
    "vicreg": dict(projector=[16, 16]),
}


def digits(objective="simclr", **train_settings) -> dict:
    return dict(
        name="digits",
        domain=dict(type="vision", dataset=dict(type="digits"), batch_size=64, feed="resident"),
        encoder=dict(type="resnet_narrow", width=4),
        objective=dict(type=objective, **SMALL[objective]),
        regularizers=dict(werank=dict(type="werank", coefficient=1e-2)),
        optim=dict(type="adamw", lr=1e-3),
        train=dict(steps=4, log_every=1, checkpoint_every=2) | train_settings,
        monitor=dict(every=2, samples=100),
        evaluate=dict(knn=dict(type="knn", k=20), public=dict(type="logistic")),
    )


def run(recipe: dict, out: Path, **options) -> Path:
    return train(recipe, out=out, **options)


def result(path: Path) -> dict:
    return json.loads((path / "result.json").read_text())


def metrics(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return run(digits(online_probe=True), tmp_path_factory.mktemp("digits"))


def test_a_run_on_images_leaves_what_a_run_on_graphs_leaves(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"recipe.json", "environment.json", "metrics.jsonl", "splits.npz", "result.json", "train.log"} <= names
    outcome = result(finished)
    assert set(outcome["evaluation"]) == {"knn", "public"} == set(outcome["untrained"])
    assert all(0 < outcome["evaluation"][name]["test_accuracy"]["mean"] <= 1 for name in ("knn", "public"))


def test_ranks_of_images_are_of_as_many_samples_as_asked_for(finished):
    ranks = result(finished)["rank"]
    assert ranks["representation"]["n"] == 100
    assert any("conv" in name for name in ranks["layers"])
    assert any(name.startswith("projector.") for name in ranks["layers"])


def test_werank_regularises_every_layer_of_the_encoder_and_none_of_a_head(finished):
    penalized = set(result(finished)["regularizers"]["werank"])
    layers = set(result(finished)["rank"]["layers"])
    assert penalized == {name for name in layers if not name.startswith("projector.")}


def test_the_online_probe_learns_beside_the_encoder_and_changes_nothing_in_it(finished, tmp_path):
    records = metrics(finished)
    assert all("online_probe/accuracy" in record for record in records if "loss" in record)
    without, _ = load_encoder(run(digits(), tmp_path))
    with_probe, _ = load_encoder(finished)
    for name, value in without.state_dict().items():
        assert torch.equal(value, with_probe.state_dict()[name]), name


def test_an_exported_image_encoder_is_evaluated_again_to_the_same_accuracy(finished):
    again = evaluate_run(finished, ["knn"])
    assert again["evaluation"]["knn"] == result(finished)["evaluation"]["knn"]


def test_saved_splits_divide_the_samples_into_three_disjoint_parts(finished):
    splits = np.load(finished / "splits.npz")
    parts = [splits[f"knn/0/{part}"] for part in ("train", "validation", "test")]
    assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts))


@pytest.mark.parametrize("feed", ["resident", "streamed"])
@pytest.mark.parametrize("objective", ["simclr", "byol"])
def test_a_run_stopped_after_a_checkpoint_ends_bit_identically(objective, feed, tmp_path):
    recipe = assign(digits(objective), {"domain.feed": feed, "domain.workers": 1})
    whole = run(recipe, tmp_path / "whole")
    halves = run(recipe, tmp_path / "halves")
    (halves / "result.json").unlink()
    max((halves / "checkpoints").glob("*.pt")).unlink()
    again = run(recipe, tmp_path / "halves", resume=True)
    ours, theirs = (load_latest_checkpoint(path / "checkpoints")["module"] for path in (whole, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert result(whole)["evaluation"] == result(again)["evaluation"]


def test_accumulated_batches_give_the_gradient_of_their_mean_where_samples_are_not_coupled(tmp_path):
    plain = assign(digits("byol"), {"objective.norm": "none", "encoder": dict(type="mlp", hidden=[8], norm="none")})
    one = assign(plain, {"domain.batch_size": 128, "domain.views.strength": 0.0, "train.steps": 1, "optim.lr": 1e-2})
    two = assign(one, {"domain.batch_size": 64, "train.accumulate": 2})
    paths = [run(recipe, tmp_path / str(k)) for k, recipe in enumerate((one, two))]
    joint, parts = (load_latest_checkpoint(path / "checkpoints")["module"] for path in paths)
    for name, value in joint.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)


def test_accumulation_is_refused_for_parts_that_couple_samples_unless_they_are_named():
    variance = {"variance": {"type": "variance", "coefficient": 1.0}}
    recipe = assign(digits(accumulate=2), {"regularizers": variance})
    with pytest.raises(RecipeError, match=r"train.accumulate: 2 batches are not one batch for 'simclr', 'variance'"):
        build_module(resolve(recipe), build_domain(resolve(recipe)))
    allowed = resolve(assign(recipe, {"train.accumulate_coupled": ["simclr", "variance"]}))
    build_module(allowed, build_domain(allowed))


def test_feature_penalties_take_every_form_of_coefficient_and_end_in_the_result(tmp_path):
    features = {
        "variance": {"type": "variance", "on": ["representation", "embedding"], "coefficient": {"embedding": 2.0}},
        "covariance": {"type": "covariance", "coefficient": {"type": "schedule", "base": 1.0, "start": 2}},
    }
    path = run(assign(digits(), {"regularizers": features}), tmp_path)
    steps = [record for record in metrics(path) if "loss" in record]
    assert "regularizer/variance/representation/penalty" not in steps[0]
    assert steps[0]["regularizer/variance/embedding/weighted"] == pytest.approx(
        2 * steps[0]["regularizer/variance/embedding/penalty"]
    )
    started = [any(key.startswith("regularizer/covariance") for key in record) for record in steps]
    assert started == [False, False, True, True]
    assert result(path)["regularizers"]["variance"]["embedding"]["coefficient"] == 2.0


def test_a_feature_penalty_on_a_prediction_that_nobody_makes_is_refused():
    recipe = assign(digits(), {"regularizers": {"spread": {"type": "variance", "on": ["prediction"]}}})
    with pytest.raises(RecipeError, match=r"regularizers.spread.on: SimCLR has no predictor"):
        build_module(resolve(recipe), build_domain(resolve(recipe)))


@pytest.mark.parametrize("settings", [{"channels_last": True}, {"precision": "bf16"}])
def test_memory_format_and_precision_train_to_a_finite_loss(settings, tmp_path):
    path = run(digits(steps=2, **settings), tmp_path)
    assert all(np.isfinite(record["loss"]) for record in metrics(path) if "loss" in record)


def test_an_option_at_its_default_leaves_the_hash_as_it_is_and_a_changed_one_does_not():
    plain = recipe_hash(resolve(digits()))
    assert recipe_hash(resolve(digits(accumulate=1, channels_last=False))) == plain
    assert recipe_hash(resolve(digits(channels_last=True))) != plain


def test_probes_that_run_during_training_write_accuracy_over_time_and_change_nothing_of_it(tmp_path):
    recipe = digits(steps=5)
    curve = assign(recipe, {"monitor.timed": ["knn"], "monitor.timed_every": 2, "monitor.every": 0})
    assert recipe_hash(resolve(curve)) == recipe_hash(resolve(recipe))
    path, without = run(curve, tmp_path / "curve"), run(recipe, tmp_path / "without")
    lines = [line for line in metrics(path) if "seconds" in line]
    assert [line["step"] for line in lines] == [2, 4, 5]
    names = {"timed/knn/test_accuracy", "timed/knn/validation_accuracy", "seconds", "seconds_probing"}
    assert all(line.keys() == {"step", *names} for line in lines)
    assert lines[-1]["timed/knn/test_accuracy"] == result(path)["evaluation"]["knn"]["test_accuracy"]["mean"]
    assert lines[0]["seconds_probing"] == 0
    trained = [line["seconds"] - line["seconds_probing"] for line in lines]
    assert 0 < trained[0] < trained[1] < trained[2] < result(path)["seconds"]["training"]
    assert lines[2]["seconds_probing"] > lines[1]["seconds_probing"] > 0
    ours, theirs = (load_encoder(each)[0].state_dict() for each in (path, without))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_probe_that_fails_during_training_is_a_warning_and_the_run_goes_on(tmp_path, monkeypatch):
    asked, outcomes = [], KNNProbe.outcomes

    def tired(self, *given):
        asked.append(given)
        if len(asked) == 1:
            raise FloatingPointError("too tired")
        return outcomes(self, *given)

    monkeypatch.setattr(KNNProbe, "outcomes", tired)
    changes = {"evaluate": {"late": {"type": "knn", "k": 5}}, "monitor.timed": ["late"], "monitor.timed_every": 2}
    path = run(assign(digits(), changes), tmp_path)
    assert ["timed/late/test_accuracy" in line for line in metrics(path) if "seconds" in line] == [False, True]
    log = (path / "train.log").read_text()
    assert "FloatingPointError: too tired" in log
    assert "step 2: monitor.timed: RunError" in " ".join(log.split())
    assert result(path)["status"] == "finished"


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_networks_train_as_others_do_and_are_measured_layer_by_layer(tmp_path):
    recipe = assign(digits("byol"), {"encoder": dict(type="mlp", hidden=[8]), "evaluate": {}})
    plain, compiled = (run(assign(recipe, {"train.compile": on}), tmp_path / str(on)) for on in (False, True))
    for one, other in zip(metrics(plain), metrics(compiled), strict=True):
        assert one.keys() == other.keys()
        if "loss" in one:
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert result(plain)["rank"]["layers"].keys() == result(compiled)["rank"]["layers"].keys()


def test_a_folder_of_which_validation_has_one_class_is_refused_before_there_is_a_run(tmp_path):
    for part, counts in (("train", (95, 5)), ("test", (5, 5))):
        for name, count in zip(("common", "rare"), counts, strict=True):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for k in range(count):
                Image.new("L", (8, 8), color=10 * (k % 20)).save(folder / f"{k}.png")
    dataset = dict(type="image_folder", train=str(tmp_path / "train"), test=str(tmp_path / "test"), size=8, mode="L")
    recipe = dict(
        name="rare",
        domain=dict(type="vision", dataset=dataset, views=dict(preset="weak"), batch_size=20),
        encoder=dict(type="mlp", hidden=[8, 4]),
        objective=dict(type="simsiam", projector=[8, 8], predictor_hidden=4),
        optim=dict(type="sgd", lr=0.1),
        train=dict(steps=1),
        evaluate=dict(first=dict(type="knn")),
    )
    with pytest.raises(DataError, match="split 0 of 'public': all 10 rows of the validation part are of class 0"):
        train(recipe, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    recipe["evaluate"]["first"]["metric"] = "accuracy"  # as the message says
    assert (train(recipe, out=tmp_path / "runs") / "result.json").exists()
