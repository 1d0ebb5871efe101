"""A domain, an encoder, an objective, a penalty and a probe that this package has never seen, from start to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import text_parts
from torch import nn

from sslcollapse import ENCODERS, cli
from sslcollapse.core.errors import DataError, RecipeError, RunError
from sslcollapse.runs.quantities import CUT_SHORT
from sslcollapse.training.evaluate import evaluate_run
from sslcollapse.training.trainer import train


@pytest.fixture(scope="module", autouse=True)
def _registered(own_components):
    text_parts.register()
    ENCODERS.register("silent_about_kinds")(SilentAboutKinds)


class SilentAboutKinds(nn.Sequential):
    """Reads tensors, and does not say so."""

    out_dim = 4

    def __init__(self, in_shape):
        super().__init__(nn.Linear(*in_shape, 4))

    def reset_parameters(self):
        self[0].reset_parameters()


@pytest.fixture(scope="module")
def run(_registered, tmp_path_factory):
    return train(text_parts.text_recipe("text"), out=tmp_path_factory.mktemp("text"))


def result(run):
    return json.loads((run / "result.json").read_text())


def test_a_third_kind_of_view_is_trained_measured_exported_and_evaluated_to_the_end(run):
    found = result(run)
    assert (found["status"], found["warnings"]) == ("finished", [])
    assert found["rank"]["representation"]["n"] == text_parts.SENTENCES
    assert found["rank"]["shared"]["attainable"] == 8
    assert "shared_input" not in found["rank"]  # the domain does not say what of a view can be measured
    assert found["regularizers"]["small"]["linear"]["penalty"] > 0
    assert (run / "encoder.safetensors").exists()


def test_a_probe_with_a_call_alone_is_evaluated_beside_others(run):
    found = result(run)
    assert found["evaluation"]["means"]["solver"] == "means"
    assert 0.5 < found["evaluation"]["means"]["test_accuracy"]["mean"] <= 1
    assert set(found["untrained"]) == {"means", "knn"}


def test_evaluating_again_loads_the_data_and_gives_the_same_results(run):
    again = evaluate_run(run)
    assert {name: result(run)[name] for name in ("evaluation", "untrained", "baselines", "baseline_ranks")} == again


def in_a_process(code: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def test_a_process_that_is_killed_by_what_is_optional_leaves_a_result_that_says_so(tmp_path):
    code = f"""
import os
from pathlib import Path
import text_parts
from sslcollapse.training.trainer import train
text_parts.register()
text_parts.UnmeasurableText.measurable = lambda self, view: os._exit(9)
train(text_parts.text_recipe("text", domain=dict(type="unmeasurable_text")), out=Path({str(tmp_path)!r}))
"""
    assert in_a_process(code).returncode == 9
    (run,) = tmp_path.glob("text/*/seed0")
    found = result(run)
    assert found["evaluation"]["knn"]
    assert found["warnings"] == [CUT_SHORT]


def test_evaluating_needs_neither_objective_nor_regularizer_nor_probes_that_are_not_asked_for(run):
    code = f"""
import text_parts
from sslcollapse.training.evaluate import evaluate_run
from sslcollapse.core.registry import OBJECTIVES, REGULARIZERS
text_parts.register_evaluation_parts()
assert "agree" not in OBJECTIVES.names() and "small" not in REGULARIZERS.names()
print(evaluate_run({str(run)!r}, ["knn"])["evaluation"]["knn"]["test_accuracy"]["mean"])
"""
    process = in_a_process(code)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split()[-1] == str(result(run)["evaluation"]["knn"]["test_accuracy"]["mean"])


def test_what_only_the_recipes_file_registers_is_named_with_what_to_do(run, tmp_path):
    for name in ("encoder.safetensors", "encoder.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    description = json.loads((tmp_path / "encoder.json").read_text())
    description["recipe"]["domain"]["type"] = "prose"
    (tmp_path / "encoder.json").write_text(json.dumps(description))
    with pytest.raises(
        RunError, match=r"unknown domain 'prose'.*if a recipe file registers it, name that file: --recipe FILE"
    ):
        evaluate_run(tmp_path)


def test_a_measurement_that_fails_after_training_is_a_warning_and_the_run_is_finished(tmp_path, capsys):
    recipe = tmp_path / "text.json"
    recipe.write_text(json.dumps(text_parts.text_recipe("text", domain=dict(type="unmeasurable_text"))))
    assert cli.main(["train", str(recipe), "--out", str(tmp_path / "runs")]) == 0
    (run,) = tmp_path.glob("runs/text/*/seed0")
    found = result(run)
    assert found["status"] == "finished"
    assert found["warnings"] == ["what two views share is not measured: RuntimeError: [no] rows here"]
    assert found["evaluation"]["knn"]
    assert "shared" not in found["rank"]
    assert "RuntimeError: [no] rows here; the traceback is in train.log" in capsys.readouterr().out
    assert "in measurable" in (run / "train.log").read_text()


def test_a_probe_that_fails_after_training_loses_neither_the_encoder_nor_the_training(tmp_path):
    mended, runs = tmp_path / "mended", tmp_path / "runs"
    recipe = text_parts.text_recipe("text", evaluate=dict(means=dict(type="nearest_mean", needs=str(mended))))
    with pytest.raises(RunError, match=r"evaluate.means: the probe failed with KeyError: 'margin'.*train --resume"):
        train(recipe, out=runs)
    (run,) = runs.glob("text/*/seed0")
    assert (run / "encoder.safetensors").exists()
    assert list((run / "checkpoints").glob("step00000004.pt"))
    assert not (run / "result.json").exists()
    mended.touch()
    train(recipe, out=runs, resume=True)
    assert result(run)["seconds"]["steps_trained"] == 0


def test_a_set_whose_labels_a_probe_cannot_use_is_refused_before_there_is_a_run(tmp_path):
    recipe = text_parts.text_recipe("text", domain=dict(type="text", one_topic=True))
    with pytest.raises(DataError, match=r"evaluate.knn: split 0 of 'public': all 30 rows of the training part"):
        train(recipe, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_is_not_pooled_is_refused_before_the_first_step(tmp_path):
    recipe = text_parts.text_recipe("text", encoder=dict(type="bag_of_words", pool=False))
    with pytest.raises(RecipeError, match=r"encoder: it returned shape \[32, 12, 8\] for a view, where \[N, 8\]"):
        train(recipe, out=tmp_path)
    assert not list(tmp_path.rglob("*.json*"))


def test_an_encoder_that_cannot_read_the_views_is_refused_before_the_first_step(tmp_path):
    recipe = text_parts.text_recipe("text", encoder=dict(type="silent_about_kinds"))
    with pytest.raises(RecipeError, match=r"encoder: cannot read the views of this domain \(Tokens\): "):
        train(recipe, out=tmp_path)


def test_an_encoder_of_another_kind_of_input_is_refused_by_name_before_data_are_read(tmp_path):
    recipe = text_parts.text_recipe("text", encoder=dict(type="mlp", hidden=[8, 4]))
    message = "'mlp' reads views of kind graph, image, vector, and those of the domain 'text' are of kind sequence"
    with pytest.raises(RecipeError, match=message):
        train(recipe, out=tmp_path)


@pytest.mark.parametrize("start", [0, 3])
def test_a_penalty_that_cannot_read_the_features_is_refused_before_the_first_step_however_late_it_starts(
    start, tmp_path
):
    late = dict(type="schedule", base=1.0, start=start)
    penalties = dict(pairs=dict(type="pairs", coefficient=late))
    with pytest.raises(RecipeError, match=r"regularizers.pairs: cannot read the representation of a batch.*ValueError"):
        train(text_parts.text_recipe("text", regularizers=penalties), out=tmp_path)
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_a_penalty_that_is_off_at_all_steps_need_not_read_anything(tmp_path):
    penalties = dict(pairs=dict(type="pairs", coefficient=0.0))
    assert result(train(text_parts.text_recipe("text", regularizers=penalties), out=tmp_path))["steps"] == 4
