"""The course of accuracy and rank over steps, and what a target has left of its initialisation."""

import json

import pytest
import torch
from sklearn.linear_model import Ridge
from tiny import tiny_recipe

from sslcollapse.core.types import ProbeSet, Split
from sslcollapse.objectives.byol import BGRL
from sslcollapse.objectives.simsiam import SimSiam
from sslcollapse.probes.evaluate import build_probes
from sslcollapse.recipe import override, resolve
from sslcollapse.runs.quantities import CUT_SHORT, is_cut_short, thinned
from sslcollapse.runs.tables import target_line
from sslcollapse.training import course
from sslcollapse.training.build import build_domain, build_module
from sslcollapse.training.course import CourseProbe, course_of
from sslcollapse.training.target import initialization_left
from sslcollapse.training.trainer import train

RECIPE = tiny_recipe(
    "course",
    optim=dict(type="adamw", lr=1e-2),
    train=dict(steps=6, log_every=2),
    monitor=dict(every=2, baselines=False),
    evaluate=dict(public=dict(type="logistic", split="public")),
)


def read(run):
    return json.loads((run / "result.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(RECIPE, out=tmp_path_factory.mktemp("runs"))


def classes(rows, dims, train_rows):
    """A course probe on noisy classes, and their features."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (rows,), generator=rng)
    h = torch.randn(rows, dims, generator=rng) + 2 * torch.randn(4, dims, generator=rng)[labels]
    order = torch.randperm(rows, generator=rng).numpy()
    split = Split(order[:train_rows], order[train_rows : train_rows + 50], order[train_rows + 50 :])
    return CourseProbe("public", split, labels, 4), h


@pytest.mark.parametrize(("dims", "train_rows"), [(8, 60), (90, 40)])
def test_the_classifier_is_ridge_regression_with_an_intercept_in_both_forms(dims, train_rows, monkeypatch):
    probe, h = classes(300, dims, train_rows)
    monkeypatch.setattr(course, "PENALTIES", (1e-2,))
    x = torch.nn.functional.normalize(h.double())
    own = x[probe.split.train]
    largest = float(torch.linalg.svdvals(own - own.mean(0))[0]) ** 2
    targets = torch.nn.functional.one_hot(probe.labels[probe.split.train], 4).numpy()
    model = Ridge(alpha=1e-2 * largest).fit(own.numpy(), targets)
    for part in ("validation", "test"):
        rows = getattr(probe.split, part)
        expected = (model.predict(x[rows].numpy()).argmax(1) == probe.labels[rows].numpy()).mean()
        assert probe(h)[f"{part}_accuracy"] == pytest.approx(expected)


def test_the_penalty_is_chosen_on_validation_and_the_test_part_is_not_looked_at():
    probe, h = classes(300, 90, 40)
    best = probe(h)
    scores = []
    for penalty in course.PENALTIES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(course, "PENALTIES", (penalty,))
            scores.append(probe(h))
    assert best["validation_accuracy"] == max(score["validation_accuracy"] for score in scores)
    assert best == max(scores, key=lambda score: score["validation_accuracy"])


def test_there_is_none_of_several_labels_a_row_nor_where_it_is_not_wanted():
    splits = {"public": [Split(*(torch.arange(10 * k, 10 * k + 10).numpy() for k in range(3)))]}
    probes = build_probes(dict(public=dict(type="logistic", split="public")))
    single = ProbeSet([torch.zeros(30, 2)], torch.arange(30) % 3, 3, splits)
    several = ProbeSet([torch.zeros(30, 2)], torch.zeros(30, 3), 3, splits)
    assert CourseProbe.of(probes, single, None).name == "public"
    assert CourseProbe.of(probes, single, False) is None
    assert CourseProbe.of(probes, several, True) is None
    assert CourseProbe.of({}, single, None) is None


def test_a_result_has_accuracy_and_ranks_of_all_features_at_every_measured_step(run):
    found, result = read(run)["course"], read(run)
    assert found["step"] == [0, 2, 4, 6]
    assert (found["classifier"], found["split"]) == ("ridge", "the first of 'public'")
    for feature in ("representation", "embedding", "prediction"):
        for rank in ("effective_rank", "effective_rank_centred"):
            assert found[feature][rank][-1] == pytest.approx(result["rank"][feature][rank])
            assert len(found[feature][rank]) == 4
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [line["probe/test_accuracy"] for line in lines if "probe/test_accuracy" in line]
    assert found["test_accuracy"] == logged
    assert all(0 < accuracy <= 1 for accuracy in logged)


def test_a_resumed_run_has_the_course_of_one_that_was_not_stopped(run, tmp_path):
    again = train(override(RECIPE, ["train.checkpoint_every=3"]), out=tmp_path)
    (again / "result.json").unlink()
    for path in (again / "checkpoints").glob("step00000006.*"):
        path.unlink()
    train(override(RECIPE, ["train.checkpoint_every=3"]), out=tmp_path, resume=True)
    assert read(again)["course"] == read(run)["course"]


def test_a_course_that_fails_is_a_warning_and_training_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr(CourseProbe, "__call__", lambda self, h: h.no_such_thing)
    run = train(RECIPE, out=tmp_path)
    assert read(run)["status"] == "finished"
    assert (run / "train.log").read_text().count("the course of accuracy is not measured: AttributeError") == 1


def test_without_measurements_there_is_no_course():
    assert course_of([{"step": 1, "loss": 0.5}], "public") == {}


def test_a_record_keeps_a_course_at_evenly_spaced_steps_first_and_last_included():
    steps = list(range(0, 101))
    whole = {"step": steps, "classifier": "ridge", "representation": {"effective_rank": [2.0 * s for s in steps]}}
    few = thinned(whole, 21)
    assert few["step"] == list(range(0, 101, 5))
    assert few["representation"]["effective_rank"] == [2.0 * step for step in few["step"]]
    assert few["classifier"] == "ridge"
    assert thinned(few, 21) == few


def test_what_a_target_has_left_of_its_initialisation_is_the_product_of_momenta():
    assert initialization_left(BGRL(momentum=0.9, momentum_schedule="constant"), 50) == pytest.approx(0.9**50)
    assert initialization_left(BGRL(momentum=0.99), 200) == pytest.approx(0.36, abs=0.01)
    assert initialization_left(BGRL(momentum=0.95), 200) < 0.01
    assert initialization_left(SimSiam(), 50) is None


def test_it_is_what_all_updates_leave_of_the_targets_first_weights(run):
    recipe = resolve(RECIPE)
    module = build_module(recipe, build_domain(recipe))
    with torch.no_grad():
        for parameter in module.target.parameters():
            parameter.fill_(1.0)
        for parameter in module.encoder.parameters():
            parameter.zero_()
    for step in range(6):
        module.update_target(step)
    left = read(run)["target"]["initialization_left"]
    assert float(next(module.target.parameters()).detach().mean()) == pytest.approx(left)


def test_a_target_that_has_not_turned_over_is_named_after_training_and_another_is_not(run):
    assert "of its initialisation left, so it has not turned over (1 % or less)" in (run / "train.log").read_text()
    assert target_line({"target": {"initialization_left": 0.01}}) == ""
    assert target_line({"target": {}}) == target_line({}) == ""


def test_results_that_older_versions_cut_short_are_still_known_as_such(tmp_path):
    for line in (CUT_SHORT, "what two views share is not measured: the process ended before it"):
        (tmp_path / "result.json").write_text(json.dumps({"warnings": [line]}))
        assert is_cut_short(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps({"warnings": []}))
    assert not is_cut_short(tmp_path)


def test_fits_that_have_not_converged_are_said(tmp_path, capsys):
    probe = dict(public=dict(type="logistic", split="public", max_iter=1))
    made = read(train(resolve({**RECIPE, "evaluate": probe}), out=tmp_path))
    assert made["evaluation"]["public"]["unconverged"] > 0
    shown = capsys.readouterr()
    assert "warning evaluation.public: " in " ".join((shown.out + shown.err).split())
