"""A rank floor in whole runs: in every domain, resumed, with the monitor off, and where nothing is to be controlled."""

import json
import shutil

import pytest
import torch
from tiny import tiny_recipe

from sslcollapse import cli
from sslcollapse.recipe import assign, recipe_hash, resolve
from sslcollapse.runs.directory import RunDirectory, read_metrics
from sslcollapse.training.build import build_domain, build_module
from sslcollapse.training.checkpoint import load_latest_checkpoint
from sslcollapse.training.trainer import train

FLOOR = dict(type="rank_floor", every=4, target=1.0, start=1e-2, max=2e-2, smoothing=0.25)
RECIPE = tiny_recipe(
    "floored",
    regularizers=dict(werank=dict(type="werank", coefficient=FLOOR)),
    optim=dict(type="adamw", lr=1e-2),
    train=dict(steps=24, log_every=1, checkpoint_every=10, keep_checkpoints=9),
    monitor=dict(every=12),
    evaluate={},
)
IMAGES = dict(
    RECIPE,
    name="floored_images",
    domain=dict(type="vision", dataset=dict(type="digits"), views=dict(strength=0.2), batch_size=64),
    encoder=dict(type="resnet_narrow", width=4),
    objective=dict(type="simclr", projector=[8, 6]),
    train=dict(RECIPE["train"], steps=4, accumulate=2, accumulate_coupled=["simclr"]),
)


def steered(run):
    """Step → what the controller logged."""
    records = ({k: v for k, v in r.items() if k == "step" or k.startswith("control/")} for r in metrics(run))
    return {record.pop("step"): record for record in records if len(record) > 1}


def metrics(run):
    return read_metrics(run / "metrics.jsonl")[0]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return train(RECIPE, out=tmp_path_factory.mktemp("straight"))


def test_the_readings_and_what_follows_from_them_are_logged_at_the_steps_that_are_due(straight):
    logged = steered(straight)
    assert list(logged) == [1, 4, 8, 12, 16, 20, 24]
    for layer in ("convs.0", "convs.1"):
        smoothed = coefficient = None
        for entry in logged.values():
            value = {
                key: entry[f"control/werank/{layer}/{key}"] for key in ("rank", "smoothed", "target", "coefficient")
            }
            if smoothed is None:
                smoothed, coefficient, initial = value["rank"], 1e-2, value["rank"]
            else:
                smoothed = 0.25 * smoothed + 0.75 * value["rank"]
                coefficient *= 2.0 if smoothed < initial else 0.95
            coefficient = min(coefficient, 2e-2)
            assert value == pytest.approx(
                {"rank": value["rank"], "smoothed": smoothed, "target": initial, "coefficient": coefficient}
            )


def test_a_step_is_made_with_the_coefficient_that_the_readings_before_it_left(straight):
    left = steered(straight)
    for record in metrics(straight):
        if "loss" not in record:
            continue
        before = [entry for step, entry in left.items() if step < record["step"]]
        expected = before[-1]["control/werank/convs.1/coefficient"] if before else 1e-2
        weighted, penalty = (record[f"regularizer/werank/convs.1/{part}"] for part in ("weighted", "penalty"))
        assert weighted / penalty == pytest.approx(expected, rel=1e-5)
    last = json.loads((straight / "result.json").read_text())["regularizers"]["werank"]["convs.1"]["coefficient"]
    assert last == left[20]["control/werank/convs.1/coefficient"]
    monitored = [r for r in metrics(straight) if "regularizer/werank/convs.1/coefficient" in r]
    assert monitored[1]["regularizer/werank/convs.1/coefficient"] == left[8]["control/werank/convs.1/coefficient"]


def test_a_floor_out_of_reach_is_warned_about_once_a_layer(tmp_path):
    coefficient = dict(FLOOR, relative_to="attainable")
    recipe = assign(RECIPE, {"regularizers.werank.coefficient": coefficient, "train.steps": 16})
    log = (train(recipe, out=tmp_path) / "train.log").read_text()
    assert log.count("werank on convs.1: the rank floor is out of reach") == 1


@pytest.mark.parametrize("step", [10, 20])
def test_a_run_resumed_between_or_at_readings_is_bit_identical_to_one_that_ran_through(straight, tmp_path, step):
    run = RunDirectory.of(resolve(RECIPE), tmp_path).path
    shutil.copytree(straight, run)
    (run / "result.json").unlink()
    for path in (run / "checkpoints").glob("step*.pt"):
        if int(path.stem.removeprefix("step")) > step:
            path.unlink()
    train(RECIPE, out=tmp_path, resume=True)
    assert metrics(run) == metrics(straight)
    assert (run / "encoder.safetensors").read_bytes() == (straight / "encoder.safetensors").read_bytes()
    ours, theirs = (load_latest_checkpoint(path / "checkpoints")["module"] for path in (run, straight))
    assert ours["controllers.werank._extra_state"] == theirs["controllers.werank._extra_state"]


def test_without_the_monitor_the_run_is_the_same(straight, tmp_path):
    quiet = train(assign(RECIPE, {"monitor.every": 0}), out=tmp_path)
    assert steered(quiet) == steered(straight)
    assert (quiet / "encoder.safetensors").read_bytes() == (straight / "encoder.safetensors").read_bytes()


def test_images_with_accumulated_batches_have_a_floor_as_graphs_do(tmp_path):
    run = train(IMAGES, out=tmp_path)
    logged = steered(run)
    assert list(logged) == [1, 4]
    names = {key.split("/")[2] for key in logged[1]}
    assert "stages.2.0.downsample.0" in names
    assert all(value > 0 for entry in logged.values() for value in entry.values())


def test_features_have_a_floor_of_their_own_rank(tmp_path):
    variance = dict(type="variance", on=["representation", "prediction"], coefficient=dict(FLOOR, target=0.5))
    recipe = assign(RECIPE, {"regularizers.werank": None, "regularizers.variance": variance, "train.steps": 4})
    run = train(recipe, out=tmp_path)
    assert {key.split("/")[2] for key in steered(run)[4]} == {"representation", "prediction"}
    assert (
        json.loads((run / "result.json").read_text())["regularizers"]["variance"]["prediction"]["coefficient"] == 1e-2
    )


def test_the_layers_of_a_floor_count_as_regularised_and_the_dry_run_shows_where_it_may_move(tmp_path, capsys):
    recipe = resolve(RECIPE)
    module = build_module(recipe, build_domain(recipe))
    assert module.regularized_layers() == {"convs.0", "convs.1"}
    path = tmp_path / "floored.json"
    path.write_text(json.dumps(RECIPE))
    assert cli.main(["train", str(path), "--dry-run", "--out", str(tmp_path)]) == 0
    assert "0.01 in 1e-05 … 0.02" in capsys.readouterr().out


def test_a_run_without_a_controller_has_the_state_and_the_hash_that_it_had_before():
    recipe = resolve(assign(RECIPE, {"regularizers.werank.coefficient": 1e-2}))
    module = build_module(recipe, build_domain(recipe))
    assert not any("controller" in name or "extra" in name for name in module.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in module.state_dict().values())
    assert recipe_hash(recipe) == "c1e3a011"
