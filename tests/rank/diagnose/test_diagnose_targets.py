import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny import tiny_recipe
from torch import nn

from sslcollapse.cli import main
from sslcollapse.encoders.timm import Timm
from sslcollapse.rank.diagnose.state_dict import TargetError
from sslcollapse.rank.diagnose.targets import load_target
from sslcollapse.training.trainer import train

SMALL_VIT = "test_vit"


def recipe() -> dict:
    return tiny_recipe(
        "diagnosed",
        train=dict(steps=2, log_every=1, checkpoint_every=1),
        optim=dict(type="adamw", lr=1e-3),
        monitor=dict(every=0),
        evaluate={},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train(recipe(), out=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def data(tmp_path) -> str:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(recipe()))
    return str(path)


def record(*words: str, path: Path) -> dict:
    assert main(["diagnose", *words, "--json", str(path)]) in (0, 1)
    return json.loads(path.read_text())


def layers(report: dict) -> dict:
    return {layer["name"]: layer for layer in report["layers"]}


def test_a_run_and_its_exported_encoder_have_the_layers_of_the_encoder(run, tmp_path):
    of_run = record(str(run), path=tmp_path / "run.json")
    of_file = record(str(run / "encoder.safetensors"), path=tmp_path / "file.json")
    assert list(layers(of_run)) == ["convs.0", "convs.1"]
    assert of_run["layers"] == of_file["layers"]
    assert of_run["verdict"] == "healthy"


def test_an_unfinished_run_is_read_from_its_newest_checkpoint(run, tmp_path):
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run, unfinished)
    for name in ("encoder.safetensors", "encoder.json", "result.json"):
        (unfinished / name).unlink()
    assert "checkpoint of step 2" in load_target(str(unfinished)).title
    ours, exported = (load_target(str(path)).matrices for path in (unfinished, run))
    for one, other in zip(ours, exported, strict=True):
        assert torch.equal(one.weight, other.weight)


def test_with_data_outputs_are_those_of_the_runs_result(run, data, tmp_path):
    report = record(str(run), "--data", data, path=tmp_path / "report.json")
    expected = json.loads((run / "result.json").read_text())["rank"]
    for name, layer in layers(report).items():
        for part in ("weight", "output"):
            ours, theirs = layer[part]["effective_rank"], expected["layers"][name][part]["effective_rank"]
            assert ours == pytest.approx(theirs, rel=1e-6)
        assert layer["output"]["n"] == 120
    assert report["representation"]["effective_rank"] == pytest.approx(expected["representation"]["effective_rank"])


def test_of_the_recipe_of_the_data_only_the_domain_need_be_known(run, data, tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({**recipe(), "objective": {"type": "of_a_recipe_that_is_not_here"}}))
    reports = [record(str(run), "--data", name, path=tmp_path / "report.json") for name in (data, str(path))]
    assert reports[0]["layers"] == reports[1]["layers"]
    assert layers(reports[1])["convs.0"]["output"]["n"] == 120


def test_with_data_the_reference_is_the_untrained_network(run, data, tmp_path):
    report = record(str(run), "--data", data, path=tmp_path / "report.json")
    whole = report["representation"]
    # Two steps at a small rate change little; without statistics of the data the reference would be 22 % too low.
    assert whole["reference"] != whole["effective_rank"]
    assert whole["reference"] == pytest.approx(whole["effective_rank"], rel=0.15)


def test_diagnosing_leaves_the_random_state_as_it_was(run):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    load_target(str(run)).networks((12,))
    load_target(f"timm:{SMALL_VIT}")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_timm_model_has_the_names_of_its_own_state_dict_with_qkv_apart():
    target = load_target(f"timm:{SMALL_VIT}")
    assert "random initialisation" in target.title
    names = [matrix.name for matrix in target.matrices]
    assert names[:4] == ["patch_embed.proj", "blocks.0.attn.qkv.q", "blocks.0.attn.qkv.k", "blocks.0.attn.qkv.v"]


def test_the_state_dict_of_a_timm_model_gives_the_same_layers_as_the_model(tmp_path):
    model = Timm((3, 160, 160), model=SMALL_VIT).model
    torch.save(model.state_dict(), tmp_path / "vit.pt")
    of_file, of_model = load_target(str(tmp_path / "vit.pt")), load_target(f"timm:{SMALL_VIT}")
    assert [m.name for m in of_file.matrices] == [m.name for m in of_model.matrices]
    assert [m.depth for m in of_file.matrices] == [m.depth for m in of_model.matrices]


def test_a_timm_model_runs_on_the_images_of_a_recipe(tmp_path):
    images = dict(
        name="images",
        domain=dict(type="vision", dataset=dict(type="digits"), size=16, batch_size=64, feed="resident"),
        encoder=dict(type="resnet_narrow", width=4),
        objective=dict(type="simclr", projector=[8, 8]),
        optim=dict(type="adamw", lr=1e-3),
        train=dict(steps=1),
    )
    path = tmp_path / "images.json"
    path.write_text(json.dumps(images))
    words = ["--data", str(path), "--samples", "40", "--fail-on", "never"]
    report = record(f"timm:{SMALL_VIT}", *words, path=tmp_path / "report.json")
    assert report["representation"]["n"] == 40
    assert layers(report)["blocks.0.attn.qkv.q"]["output"]["effective_rank"] > 0
    assert "images" in report["data"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere", "nowhere: no such file or folder; a target is a run directory"),
        ("timm:resnet5", "timm:resnet5: .*did you mean 'resnet5"),
        ("timm:", "timm has no model ''"),
        (".", "no run directory"),
    ],
)
def test_a_wrong_target_is_answered_with_what_a_target_is(tmp_path, monkeypatch, target, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TargetError, match=message):
        load_target(target)


def test_pretrained_is_for_timm_only(run):
    with pytest.raises(TargetError, match="--pretrained: is for timm:MODEL"):
        load_target(str(run), pretrained=True)


def test_data_need_an_architecture(tmp_path, data, capsys):
    torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "model.pt")
    assert main(["diagnose", str(tmp_path / "model.pt"), "--data", data]) == 2
    assert "tensors without an architecture" in capsys.readouterr().err


def test_data_of_another_shape_are_refused(run, tmp_path, capsys):
    other = recipe()
    other["domain"]["dataset"]["features"] = 13
    path = tmp_path / "other.json"
    path.write_text(json.dumps(other))
    assert main(["diagnose", str(run), "--data", str(path)]) == 2
    assert "its samples have shape [13], the encoder reads [12]" in capsys.readouterr().err


def test_an_export_without_its_description_is_refused(run, tmp_path, capsys):
    shutil.copy(run / "encoder.safetensors", tmp_path)
    (tmp_path / "encoder.json").write_text("{}")
    assert main(["diagnose", str(tmp_path)]) == 2
    assert "encoder.json: has no 'encoder', 'in_shape'" in capsys.readouterr().err
