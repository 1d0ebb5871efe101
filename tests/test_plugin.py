"""A plug-in as it is written from the guide alone: its views are plain Python objects, and it touches nothing here."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sslcollapse import DOMAINS, ENCODERS, OBJECTIVES, REGISTRIES, RecipeError, cli, testing, train
from sslcollapse.core.types import Batch, Context
from sslcollapse.recipe import override, resolve
from sslcollapse.training.module import SSLModule

ROOT = Path(__file__).parents[1]
SOURCE = Path(__file__).parent / "plugin/word_lists.py"
ENTRY_POINTS = """
[sslcollapse.registry]
word_dataset = word_lists:WORD_DATASETS
[sslcollapse.domain]
word_lists = word_lists:WordLists
[sslcollapse.encoder]
word_bag = word_lists:WordBag
[sslcollapse.objective]
agree_more = word_lists:Agree
"""
RECIPE = dict(
    name="words",
    domain=dict(type="word_lists", dataset=dict(type="pets")),
    encoder=dict(type="word_bag"),
    objective=dict(type="agree_more"),
    regularizers=dict(werank=dict(type="werank", coefficient=1e-3)),
    optim=dict(type="adamw", lr=1e-2),
    train=dict(steps=6, log_every=1, checkpoint_every=2, keep_checkpoints=3),
    monitor=dict(every=3, samples=50),
    evaluate=dict(public=dict(type="knn", k=3, metric="accuracy")),
)
ORIGIN = "word-lists 0.3"


@pytest.fixture(scope="module")
def installed(own_components, tmp_path_factory):
    """The folder where the plug-in is installed: its module, and what a package manager writes beside it."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(SOURCE, site)
    metadata = site / "word_lists-0.3.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: word-lists\nVersion: 0.3\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    known = dict(REGISTRIES._known)
    readers = [REGISTRIES, *REGISTRIES.values()]
    sys.path.insert(0, str(site))
    for reader in readers:
        reader._entry_points_read = False
    yield site
    sys.path.remove(str(site))
    sys.modules.pop("word_lists", None)
    REGISTRIES._known, REGISTRIES._places = known, {}


@pytest.fixture(scope="module")
def run(installed, tmp_path_factory):
    return train(RECIPE, out=tmp_path_factory.mktemp("words"))


def result(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def test_the_plug_in_is_eighty_lines_and_imports_no_room_of_this_package():
    source = SOURCE.read_text()
    assert len(source.splitlines()) <= 80
    imported = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.startswith("sslcollapse")} == {"sslcollapse"}


def test_its_components_keep_their_contracts(installed):
    domain = DOMAINS.build(RECIPE["domain"], Path())
    testing.check_domain(domain)
    view = next(domain.batches(0, Context())).views[0]
    assert [type(view), type(view[0])] == [list, dict]
    testing.check_encoder(ENCODERS.build(RECIPE["encoder"], domain.in_shape), view, 16)
    testing.check_objective(OBJECTIVES.build(RECIPE["objective"]))


def test_its_own_kind_of_component_is_listed_with_its_arguments(installed, capsys):
    assert cli.main(["list"]) == 0
    assert "word_dataset\n  pets  Made-up sentences about cats and dogs." in capsys.readouterr().out
    assert cli.main(["list", "word_dataset", "pets"]) == 0
    assert "sentences: an int >= 20; default 80" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("domain.dataset.sentences=3", r"domain.dataset.sentences: must be >= 20, got 3"),
        ("domain.dataset.sentence=30", r"unknown argument of 'pets'; did you mean 'sentences'"),
        ("domain.dataset.type=pet", r"domain.dataset.type: unknown word_dataset 'pet'; did you mean 'pets'"),
        ("domain.deletion=2", r"domain.deletion: must be in \[0, 1\], got 2"),
    ],
)
def test_recipes_of_its_own_kind_are_checked_before_anything_is_read(installed, change, message):
    with pytest.raises(RecipeError, match=message):
        override(RECIPE, [change])


def test_it_is_trained_measured_and_evaluated_on_as_many_samples_as_the_recipe_says(run):
    found = result(run)
    assert (found["status"], found["warnings"]) == ("finished", [])
    assert found["rank"]["representation"]["n"] == 50
    assert found["regularizers"]["werank"]["linear"]["penalty"] > 0
    assert found["rank"]["shared"]["attainable"] == 6
    assert 0 <= found["evaluation"]["public"]["test_accuracy"]["mean"] <= 1


def test_a_record_says_where_each_part_of_a_recipe_comes_from_also_one_inside_another(run):
    assert json.loads((run / "environment.json").read_text())["plugins"] == {
        "domain word_lists": ORIGIN,
        "word_dataset pets": ORIGIN,
        "encoder word_bag": ORIGIN,
        "objective agree_more": ORIGIN,
    }


def test_the_objective_reads_the_step_that_it_is_called_for(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines if "objective/apart" in line} == set(range(1, 7))
    module = sys.modules["word_lists"]
    torch.manual_seed(0)
    network = SSLModule(module.WordBag((8,)), module.Agree(), total_steps=4)
    views = [[{"words": [word]} for word in words] for words in (["cat", "dog"], ["milk", "bone"])]
    batch = Batch(views, torch.arange(2), None, False)
    first, last = (float(network(batch, step)["objective/apart"].detach()) for step in (0, 3))
    assert last == pytest.approx(1.75 * first)


def test_resuming_it_ends_as_the_run_that_went_through(run, tmp_path):
    half = tmp_path / run.relative_to(run.parents[2])
    shutil.copytree(run, half)
    for name in ("result.json", "encoder.safetensors", "checkpoints/step00000006.pt", "checkpoints/step00000004.pt"):
        (half / name).unlink()
    train(RECIPE, out=tmp_path, resume=True)
    assert result(half)["seconds"]["steps_trained"] == 4
    assert (half / "encoder.safetensors").read_bytes() == (run / "encoder.safetensors").read_bytes()
    assert result(half)["evaluation"] == result(run)["evaluation"]


def test_two_processes_share_its_batches_and_finish(installed, tmp_path):
    recipe = tmp_path / "words.json"
    recipe.write_text(json.dumps(RECIPE))
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    path = os.pathsep.join([str(installed), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(
        [*command, str(ROOT / "tools/train.py"), str(recipe), "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert process.returncode == 0, process.stderr
    (run,) = tmp_path.glob("words/*/seed0")
    assert result(run)["status"] == "finished"
    assert json.loads((run / "environment.json").read_text())["world_size"] == 2


def test_evaluating_it_again_gives_the_same_numbers(run, capsys):
    assert cli.main(["evaluate", str(run)]) == 0
    before = result(run)["evaluation"]["public"]["test_accuracy"]["mean"]
    assert f"{100 * before:.2f}" in capsys.readouterr().out


def test_it_is_ablated_and_a_report_shows_it(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("words.json").write_text(json.dumps(RECIPE))
    options = ["--grid", "domain.deletion=0.1,0.5", "--seeds", "1", "--executor", "debug", "train.steps=2"]
    assert cli.main(["ablate", "words.json", *options, "--out", "runs", "--results", "results"]) == 0
    (records,) = Path("results").glob("*/runs.jsonl")
    found = [json.loads(line) for line in records.read_text().splitlines()]
    assert [record["plugins"]["word_dataset pets"] for record in found] == [ORIGIN] * 2
    assert cli.main(["report", str(run), "--out", "page"]) == 0
    assert list(Path("page").glob("*.html"))


def test_it_is_diagnosed_on_its_own_data_and_refused_on_that_of_another_kind(run, tmp_path, capsys):
    recipe = tmp_path / "words.json"
    recipe.write_text(json.dumps(RECIPE))
    command = ["diagnose", str(run), "--fail-on", "never", "--data"]
    assert cli.main([*command, str(recipe), "--samples", "40"]) == 0
    assert "N = 40" in capsys.readouterr().out
    assert cli.main([*command, str(ROOT / "recipes/quickstart.py")]) == 2
    assert "its views are of kind graph, and the encoder reads words" in capsys.readouterr().err


def test_its_views_are_drawn(installed, tmp_path):
    recipe, sheet = tmp_path / "words.json", tmp_path / "sheet.png"
    recipe.write_text(json.dumps(RECIPE))
    assert cli.main(["views", str(recipe), "--out", str(sheet), "--samples", "3"]) == 0
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_the_recipe_resolves_with_the_arguments_of_its_data_set(installed):
    assert resolve(RECIPE)["domain"]["dataset"] == {"type": "pets", "sentences": 80}
