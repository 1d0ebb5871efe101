"""Whole runs on a device: trained, stopped, resumed, evaluated, diagnosed; and the monitor."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from on_device import DEVICE, assert_near, differences, on_gpu, there
from safetensors.torch import load_file
from tiny import tiny_recipe
from torch import nn

from sslcollapse import cli
from sslcollapse.encoders.resnet import NarrowResNet
from sslcollapse.rank.batch import ROUTES
from sslcollapse.rank.measure import measure
from sslcollapse.rank.monitor import CollapseMonitor
from sslcollapse.recipe import load, resolve
from sslcollapse.recipe.spec import TrainSpec
from sslcollapse.runs.directory import RunDirectory, device_name
from sslcollapse.training.trainer import train

pytestmark = on_gpu

ROOT = Path(__file__).parents[2]
STEPS = 12
POLICY = [False, *([True] if "deterministic" in {field.name for field in fields(TrainSpec)} else [])]
"""Values of ``train.deterministic``, where a recipe has it."""


def settings(precision="no", deterministic=False):
    return dict(
        regularizers=dict(werank=dict(type="werank", coefficient=1e-2)),
        optim=dict(type="adamw", lr=1e-3, warmup_steps=2),
        train=dict(
            steps=STEPS,
            log_every=1,
            checkpoint_every=6,
            precision=precision,
            **(dict(deterministic=True) if deterministic else {}),
        ),
        monitor=dict(every=6),
        evaluate=dict(public=dict(type="logistic", split="public")),
    )


def image_recipe(name, *policy):
    return dict(
        name=name,
        domain=dict(type="vision", dataset=dict(type="digits"), views=dict(preset="simclr", flip=0.0), batch_size=64),
        encoder=dict(type="resnet_narrow", width=8),
        objective=dict(type="simclr", projector=[32, 16]),
        **settings(*policy),
    )


def graph_recipe(name, *policy):
    return tiny_recipe(name, **settings(*policy))


MADE = {"images": image_recipe, "graph": graph_recipe}


def learnt(run):
    """Metrics by step and name, and the weights of the encoder."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    values = {f"{key} after step {x['step']}": v for x in lines for key, v in x.items() if isinstance(v, float)}
    weights = {f"weight {name}": value for name, value in load_file(run / "encoder.safetensors").items()}
    return {**{key: torch.tensor(v, dtype=torch.float64) for key, v in values.items()}, **weights}


def said(found, wanted):
    """What differs between two runs, the first and the largest ones."""
    apart = {name: value for name, value in differences(found, wanted).items() if value}
    largest = sorted(apart.items(), key=lambda item: -item[1])[:5]
    return f"{len(apart)} of {len(wanted)} values differ; first {next(iter(apart), None)!r}; largest " + ", ".join(
        f"{name} {value:.1e}" for name, value in largest
    )


def must_repeat(kind, deterministic):
    """Whether two runs have to be equal to the last bit: sparse products may add in another order each time."""
    return deterministic or (kind == "images" and POLICY == [False])  # these tests choose deterministic convolutions


@pytest.mark.parametrize("deterministic", POLICY)
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("kind", MADE)
def test_two_runs_of_one_seed_learn_the_same(kind, precision, deterministic, tmp_path, record_property):
    recipe = MADE[kind]("twice", precision, deterministic)
    first, second = (learnt(train(recipe, out=tmp_path / name)) for name in "ab")
    same = all(torch.equal(first[name], value) for name, value in second.items())
    record_property("difference of two runs", "none" if same else said(second, first))
    assert same or not must_repeat(kind, deterministic), said(second, first)
    bound = 1e-3 if precision == "no" else 5e-2
    near = differences(second, first)
    assert max(near.values()) <= bound, said(second, first)


@pytest.mark.parametrize("deterministic", POLICY)
@pytest.mark.parametrize("kind", MADE)
def test_a_run_that_was_stopped_and_resumed_learns_what_one_without_a_stop_learns(
    kind, deterministic, tmp_path, record_property
):
    recipe = MADE[kind]("resumed", "no", deterministic)
    straight = train(recipe, out=tmp_path / "straight")
    run = RunDirectory.of(resolve(recipe), tmp_path / "stopped").path
    shutil.copytree(straight, run)
    for name in ("result.json", "encoder.safetensors", "encoder.json", "checkpoints/step00000012.pt"):
        (run / name).unlink()
    assert (run / "checkpoints/step00000006.pt").exists()
    assert train(recipe, out=tmp_path / "stopped", resume=True) == run
    assert "resuming after step 6" in (run / "train.log").read_text()
    found, wanted = learnt(run), learnt(straight)
    same = all(torch.equal(found[name], value) for name, value in wanted.items())
    record_property("difference after resuming", "none" if same else said(found, wanted))
    assert same or not must_repeat(kind, deterministic), said(found, wanted)
    assert max(differences(found, wanted).values()) <= 1e-3, said(found, wanted)


@pytest.mark.skipif(DEVICE.type == "cpu" and shutil.which("g++") is None, reason="needs a C++ compiler on a CPU")
def test_compiled_networks_of_images_in_half_precision_and_channels_last_learn_what_plain_ones_learn(tmp_path):
    recipe = image_recipe("fast", "bf16")
    fast = recipe | {"train": recipe["train"] | {"channels_last": True, "compile": True}}
    plain, compiled = (learnt(train(each, out=tmp_path / name)) for name, each in (("a", recipe), ("b", fast)))
    losses = [name for name in plain if name.startswith("loss ")]
    assert len(losses) == STEPS
    apart = differences({name: compiled[name] for name in losses}, {name: plain[name] for name in losses})
    assert max(apart.values()) <= 5e-2, apart


def test_a_monitor_measures_the_ranks_of_the_cpu():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16))
    batches = [torch.randn(64, 20) for _ in range(4)]
    rows = []
    for network, place in ((model, "cpu"), (there(model), DEVICE)):
        with CollapseMonitor(network, every=2) as monitor:
            for batch in batches:
                network(batch.to(place))
            rows.append(monitor.summary())
            spectra = dict(monitor.spectra)
        rows[-1] = {
            **{f"{row.kind} {row.layer} rank": torch.tensor(row.effective_rank) for row in rows[-1]},
            **{f"{name} spectrum": values for name, values in spectra.items()},
        }
    assert len(rows[0]) >= 8
    assert_near(rows[1], rows[0])


RECIPES = {"quickstart": ("recipes/quickstart.py", 40), "images": ("recipes/simclr_werank_digits.py", 20)}


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("kind", RECIPES)
def test_a_recipe_trains_is_evaluated_and_diagnosed(kind, precision, tmp_path, capsys):
    path, steps = RECIPES[kind]
    changes = [f"train.steps={steps}", "optim.warmup_steps=2", "monitor.every=0", f"train.precision={precision}"]
    assert cli.main(["train", str(ROOT / path), *changes, "--out", str(tmp_path)]) == 0
    (run,) = tmp_path.glob("*/*/seed0")
    result = json.loads((run / "result.json").read_text())
    environment = json.loads((run / "environment.json").read_text())
    assert environment["device"] == device_name(DEVICE)
    assert result["status"] == "finished"
    assert result["steps"] == steps
    untrained, trained = (result[key]["public"]["test_accuracy"]["mean"] for key in ("untrained", "evaluation"))
    assert 0.3 < untrained <= 1
    assert 0.3 < trained <= 1
    assert result["rank"]["representation"]["effective_rank"] > 1
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert all(torch.isfinite(torch.tensor(losses)))
    assert cli.main(["evaluate", str(run), "--probe", "public"]) == 0
    report = tmp_path / "diagnosis.json"
    assert (
        cli.main(["diagnose", str(run), "--data", str(ROOT / path), "--json", str(report), "--fail-on", "never"]) == 0
    )
    layers = json.loads(report.read_text())
    assert layers
    assert load(ROOT / path)["name"] in str(run)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("route", ROUTES)
def test_the_ranks_of_a_network_are_those_of_the_cpu_by_every_route(route):
    torch.manual_seed(0)
    network, images = NarrowResNet((3, 16, 16), width=16), torch.randn(64, 3, 16, 16)
    wanted = {row.point: row for row in measure(network, [images]).rows}
    found = {row.point: row for row in measure(there(network), [there(images)], route=route).rows}
    assert found.keys() == wanted.keys()
    for point, row in found.items():
        assert row.effective_rank == pytest.approx(wanted[point].effective_rank, rel=1e-3), point
        assert row.stable_rank == pytest.approx(wanted[point].stable_rank, rel=1e-3), point
