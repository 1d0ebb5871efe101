"""A run from recipe to result, and the directory that it leaves behind."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny import tiny_recipe

import sslcollapse
from sslcollapse import cli
from sslcollapse.core.errors import RecipeError, RunError
from sslcollapse.probes.evaluate import build_probes, run_probes
from sslcollapse.rank.measure import measure, represent
from sslcollapse.rank.spectrum import effective_rank_from_singular_values
from sslcollapse.recipe import identify, override, recipe_hash, resolve
from sslcollapse.runs.export import load_encoder
from sslcollapse.training.build import build_domain, build_encoder, build_module
from sslcollapse.training.checkpoint import load_latest_checkpoint
from sslcollapse.training.dry_run import COLOURED, dry_run
from sslcollapse.training.evaluate import evaluate_run
from sslcollapse.training.trainer import train

RECIPE = tiny_recipe(
    "tiny",
    seed=0,
    regularizers=dict(werank=dict(type="werank", coefficient={"convs.0": 0.01})),
    optim=dict(type="adamw", lr=1e-2, warmup_steps=2),
    train=dict(steps=6, log_every=2, checkpoint_every=3),
    monitor=dict(every=3),
    evaluate=dict(
        public=dict(type="logistic", split="public"),
        random=dict(type="logistic", split="random", repeats=2, fractions=[0.3, 0.3, 0.4]),
    ),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(RECIPE, out=tmp_path_factory.mktemp("runs"), command=["sslcollapse", "train", "tiny.py"])


def read(run, name="result.json"):
    return json.loads((run / name).read_text())


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_every_file_of_the_contract_and_no_temporary_one(run):
    recipe = resolve(RECIPE)
    assert run.parts[-3:] == ("tiny", recipe_hash(recipe), "seed0")
    assert {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} == {
        "recipe.json",
        "environment.json",
        "metrics.jsonl",
        "train.log",
        "splits.npz",
        "result.json",
        "encoder.json",
        "encoder.safetensors",
        *(f"spectra/{step:08d}.npz" for step in (0, 3, 6)),
        *(f"checkpoints/step{step:08d}.{end}" for step in (3, 6) for end in ("pt", "sha256")),
    }
    assert read(run, "recipe.json") == recipe
    assert (
        max(path.stat().st_mtime_ns for path in run.rglob("*.*") if path.suffix != ".log")
        == (run / "result.json").stat().st_mtime_ns
    )


def test_the_environment_says_what_ran_where(run):
    environment = read(run, "environment.json")
    assert environment["command"] == ["sslcollapse", "train", "tiny.py"]
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0] or environment["packages"]["torch"]
    assert (environment["packages"]["sslcollapse"], environment["plugins"]) == (sslcollapse.__version__, {})
    assert (environment["world_size"], environment["threads"]) == (1, 1)
    assert environment["device"]


def test_the_result_has_evaluation_ranks_and_penalties_by_name(run):
    result = read(run)
    assert (result["status"], result["hash"], result["seed"], result["steps"]) == (
        "finished",
        recipe_hash(resolve(RECIPE)),
        0,
        6,
    )
    assert set(result["evaluation"]) == set(result["untrained"]) == {"public", "random"}
    accuracy = result["evaluation"]["random"]["test_accuracy"]
    assert len(accuracy["values"]) == 2
    assert accuracy["mean"] == pytest.approx(sum(accuracy["values"]) / 2)
    assert result["evaluation"]["public"]["solver"] == "newton"
    assert list(result["rank"]["layers"]) == ["convs.0", "convs.1", "predictor.layers.0", "predictor.layers.1"]
    penalty = result["regularizers"]["werank"]
    assert (penalty["convs.0"]["coefficient"], penalty["convs.1"]["coefficient"]) == (0.01, 0.0)
    assert penalty["convs.0"]["floor"] == pytest.approx(2.0)  # [16, 12]: √(16 − 12)
    assert penalty["convs.0"]["excess"] == pytest.approx(penalty["convs.0"]["penalty"] - 2.0)


def test_metrics_have_one_line_a_logged_step_with_every_part_of_the_loss(run):
    lines = [record for record in metrics(run) if "loss" in record]
    assert [record["step"] for record in lines] == [2, 3, 4, 6]
    for record in lines:
        weighted = record["regularizer/werank/convs.0/weighted"]
        assert record["loss"] == pytest.approx(record["objective/bgrl"] + weighted)
        assert weighted == pytest.approx(0.01 * record["regularizer/werank/convs.0/penalty"])
    assert lines[0]["lr"] == pytest.approx(0.005)


def test_monitor_steps_have_ranks_and_the_penaltys_gradient_beside_the_objectives(run):
    lines = [record for record in metrics(run) if "rank/representation/effective_rank" in record]
    assert [record["step"] for record in lines] == [0, 3, 6]
    assert {"gradient/convs.0/norm_ratio", "gradient/convs.0/cosine"} <= lines[1].keys()
    assert "gradient/convs.1/norm_ratio" not in lines[1]  # not regularised
    assert -1 <= lines[2]["gradient/convs.0/cosine"] <= 1


def test_the_logged_rank_is_that_of_the_saved_spectrum(run):
    (last,) = [record for record in metrics(run) if record["step"] == 6 and "rank/representation/n" in record]
    with np.load(run / "spectra/00000006.npz") as spectra:
        assert spectra["n"] == 120
        for part in ("representation", "prediction"):
            rank = effective_rank_from_singular_values(torch.from_numpy(spectra[part]))
            assert last[f"rank/{part}/effective_rank"] == pytest.approx(rank)
        weight = effective_rank_from_singular_values(torch.from_numpy(spectra["weight/convs.1"]))
    assert last["rank/layers/convs.1/weight/effective_rank"] == pytest.approx(weight)
    assert read(run)["rank"]["layers"]["convs.1"]["weight"]["effective_rank"] == pytest.approx(weight)


def test_the_splits_evaluated_on_are_saved_and_disjoint(run):
    with np.load(run / "splits.npz") as splits:
        for prefix in ("public/0", "random/0", "random/1"):
            parts = [set(splits[f"{prefix}/{part}"].tolist()) for part in ("train", "validation", "test")]
            assert all(parts)
            assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(run, tmp_path):
    again, other = train(RECIPE, out=tmp_path), train({**RECIPE, "seed": 1}, out=tmp_path)
    assert metrics(again) == metrics(run)
    assert (again / "encoder.safetensors").read_bytes() == (run / "encoder.safetensors").read_bytes()
    assert (other / "encoder.safetensors").read_bytes() != (run / "encoder.safetensors").read_bytes()
    for key in ("evaluation", "untrained", "rank"):
        assert read(again)[key] == read(run)[key]
    with np.load(run / "splits.npz") as ours, np.load(other / "splits.npz") as theirs:
        assert np.array_equal(ours["random/0/test"], theirs["random/0/test"])  # splits have a seed of their own


def test_measuring_more_often_changes_nothing_learnt(run, tmp_path):
    recipe = override(RECIPE, ["monitor.every=1", "train.log_every=1", "train.checkpoint_every=1"])
    other = train(recipe, out=tmp_path)
    assert other.parts[-3:] == run.parts[-3:]
    assert (other / "encoder.safetensors").read_bytes() == (run / "encoder.safetensors").read_bytes()


def test_the_exported_encoder_is_the_trained_one_and_loads_without_the_recipe_file(run):
    encoder, description = load_encoder(run)
    state = load_latest_checkpoint(run / "checkpoints")["module"]
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, state[f"encoder.{name}"]), name
    assert (description["in_shape"], description["out_dim"], description["step"]) == ([12], 8, 6)
    assert not encoder.training
    torch.testing.assert_close(load_encoder(run / "encoder.safetensors")[0].state_dict(), encoder.state_dict())


def test_the_result_is_that_of_the_last_steps_parameters(run):
    state = load_latest_checkpoint(run / "checkpoints")
    recipe = resolve(RECIPE)
    domain = build_domain(recipe)
    module, probe_set = build_module(recipe, domain), domain.probe_set()
    untrained = measure(module.encoder, probe_set.views, predictor=module.predictor).ranks
    module.load_state_dict(state["module"])
    ranks = measure(module.encoder, probe_set.views, predictor=module.predictor).ranks
    evaluation, _ = run_probes(build_probes(recipe["evaluate"]), represent(module.encoder, probe_set.views), probe_set)
    result = read(run)
    assert state["step"] == result["steps"] == read(run, "encoder.json")["step"] == recipe["train"]["steps"]
    measured = {name: value for name, value in result["rank"].items() if not name.startswith("shared")}
    assert json.loads(json.dumps(ranks)) == measured != json.loads(json.dumps(untrained))
    assert json.loads(json.dumps(evaluation)) == result["evaluation"]


def test_evaluating_a_run_again_gives_its_result(run, capsys):
    again = evaluate_run(run)
    assert again["evaluation"] == read(run)["evaluation"]
    assert again["untrained"] == read(run)["untrained"]
    assert cli.main(["evaluate", str(run), "--probe", "public"]) == 0
    shown = capsys.readouterr().out
    assert f"{100 * read(run)['evaluation']['public']['test_accuracy']['mean']:.2f}" in shown


def test_a_probe_that_the_recipe_lacks_is_refused(run):
    with pytest.raises(RecipeError, match=r"--probe pubic: not in this recipe; did you mean 'public'\?"):
        evaluate_run(run, ["pubic"])


def test_an_absent_or_mismatched_export_is_refused(run, tmp_path):
    with pytest.raises(RunError, match="no readable exported encoder"):
        load_encoder(tmp_path)
    with pytest.raises(RunError, match=r"/nothing: no such run directory or encoder\.safetensors"):
        load_encoder(tmp_path / "nothing")
    description = read(run, "encoder.json")
    description["encoder"]["hidden"] = [16, 9]
    (tmp_path / "encoder.json").write_text(json.dumps(description))
    (tmp_path / "encoder.safetensors").write_bytes((run / "encoder.safetensors").read_bytes())
    with pytest.raises(RunError, match=r"encoder.safetensors does not fit encoder.json"):
        load_encoder(tmp_path)


def test_the_untrained_encoder_is_the_one_that_training_started_from(run):
    recipe = resolve(RECIPE)
    module = build_module(recipe, build_domain(recipe))
    torch.manual_seed(1)
    again = build_module(recipe, build_domain(recipe))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    (first,) = [record for record in metrics(run) if record["step"] == 0]
    weight = torch.linalg.svdvals(module.encoder.convs[0].weight.detach().double())
    expected = effective_rank_from_singular_values(weight)
    assert first["rank/layers/convs.0/weight/effective_rank"] == pytest.approx(expected)


def test_bf16_trains_with_finite_losses_and_float32_parameters_in_the_process_of_other_runs(tmp_path):
    run = train(override(RECIPE, ["train.precision=bf16", "train.steps=3", "evaluate={}"]), out=tmp_path)
    losses = [record["loss"] for record in metrics(run) if "loss" in record]
    assert losses
    assert np.isfinite(losses).all()
    assert all(v.dtype == torch.float32 for v in load_encoder(run)[0].state_dict().values() if v.is_floating_point())


def test_a_precision_that_an_accelerator_of_the_process_lacks_is_refused_with_both_and_nothing_is_written(tmp_path):
    Accelerator(cpu=True)
    with pytest.raises(RunError, match=r"train.precision is 'bf16', and this .* mixed_precision='no'.*another process"):
        train(override(RECIPE, ["train.precision=bf16"]), out=tmp_path)
    assert not list(tmp_path.iterdir())
    assert train(override(RECIPE, ["train.steps=1"]), out=tmp_path).exists()


def test_trackers_of_accelerate_receive_the_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    run = train(override(RECIPE, ['train.trackers=["tensorboard"]', "evaluate={}"]), out=tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    readers = [EventAccumulator(str(path)).Reload() for path in run.rglob("events.out.tfevents*")]
    (reader,) = [reader for reader in readers if "objective/bgrl" in reader.Tags()["scalars"]]
    logged = {event.step: event.value for event in reader.Scalars("objective/bgrl")}
    assert logged == pytest.approx({r["step"]: r["objective/bgrl"] for r in metrics(run) if "loss" in r}, rel=1e-5)


def test_the_log_has_progress_the_closing_tables_and_where_the_result_is(run):
    log = (run / "train.log").read_text()
    for part in ("tiny  seed 0", "step 6/6  loss", "untrained", "trained", "effective rank / attainable", "convs.1"):
        assert part in log
    assert "N = 120 samples" in log
    assert str(run / "result.json") in log


@pytest.mark.parametrize(("name", "left"), [("trackio", "*.db"), ("wandb", "wandb/offline-run-*/run-*.wandb")])
def test_trackers_that_are_installed_receive_them_too_without_a_network(name, left, tmp_path, monkeypatch):
    for variable in ("TRACKIO_DIR", "WANDB_DIR"):  # Trackio reads its own when it is imported
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    pytest.importorskip(name)
    train(override(RECIPE, [f'train.trackers=["{name}"]', "evaluate={}"]), out=tmp_path / "runs")
    (file,) = tmp_path.glob(left)
    assert b"rank/representation/effective_rank" in file.read_bytes()


def test_a_layer_below_the_threshold_and_a_coefficient_too_high_are_warned_about_once_each(tmp_path):
    recipe = override(copy.deepcopy(RECIPE), ["monitor.rank_warning=0.99", "monitor.every=1", "evaluate={}"])
    recipe["regularizers"]["werank"]["coefficient"] = 100.0
    log = (train(recipe, out=tmp_path) / "train.log").read_text()
    assert log.count("convs.1 output: effective rank") == 1
    assert "is below 0.99 of the attainable 8; rank is lost here" in log
    assert log.count("convs.0: the penalty's gradient is") == 1


def test_the_dry_run_shows_recipe_layers_parameters_and_data_and_writes_nothing(tmp_path, capsys):
    recipe = tmp_path / "tiny.json"
    recipe.write_text(json.dumps(RECIPE))
    assert cli.main(["train", str(recipe), "--dry-run", "--out", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().out
    for part in ('"weight_decay": 1e-05', "16 × 12", "attainable rank", "parameters: encoder", "120 nodes"):
        assert part in shown
    (row,) = [line for line in shown.splitlines() if "convs.0" in line and "16 × 12" in line]
    assert "12" in row.split("│")[3]
    assert row.split("│")[4].strip() == "0.01"
    assert not (tmp_path / "runs").exists()


def test_an_exported_encoder_whose_description_lacks_a_field_is_refused_by_its_name(run, tmp_path):
    for name in ("encoder.safetensors", "encoder.json"):
        shutil.copy(run / name, tmp_path)
    description = json.loads((tmp_path / "encoder.json").read_text())
    del description["in_shape"]
    (tmp_path / "encoder.json").write_text(json.dumps(description))
    with pytest.raises(RunError, match=r"encoder\.json: has no 'in_shape'"):
        load_encoder(tmp_path)


def test_a_dry_run_of_a_very_long_recipe_is_not_coloured_which_would_take_minutes(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    many = {f"r{k}": dict(type="werank", coefficient={"*" * n: 0.1 for n in range(1, 60)}) for k in range(60)}
    recipe, hash_ = identify({**RECIPE, "regularizers": many})
    dry_run(recipe, hash_)
    printed = capsys.readouterr().out
    text = printed[: printed.index("\n}\n") + 2]
    assert len(text) > COLOURED
    assert json.loads(text) == recipe
    dry_run(*identify(RECIPE))
    assert "\x1b[" in capsys.readouterr().out.partition("\n}\n")[0]


def test_evaluation_says_what_it_does_before_it_begins(run):
    log = (run / "train.log").read_text()
    said = log.index("evaluating the trained and the untrained encoder: public on 1 split, random on 2 splits")
    assert log.index("step 6/6") < said < log.index("evaluation (test)")


def test_a_rank_that_was_measured_earlier_is_shown_with_its_step(run):
    (rank,) = [r["rank/representation/effective_rank"] for r in metrics(run) if r["step"] == 3 and "loss" not in r]
    assert f" rank {rank:.1f} (at step 3) " in (run / "train.log").read_text()


@pytest.mark.parametrize("domain", [RECIPE["domain"], dict(type="toy", dim=12, batch_size=64)])
def test_a_number_of_samples_beyond_the_data_ends(domain, tmp_path):
    encoder, objective = dict(type="mlp", hidden=[16, 8]), dict(type="simsiam", projector=[8, 8], predictor_hidden=7)
    recipe = dict(RECIPE, domain=domain, encoder=encoder, objective=objective, regularizers={}, evaluate={})
    ranks = read(train(override(recipe, ["monitor.samples=1000000000000", "train.steps=2"]), out=tmp_path))["rank"]
    assert ranks["shared"]["n"] <= 4096 + 120
    assert ranks["shared_input"]["n"] == ranks["shared"]["n"]


def test_the_closing_table_has_no_row_that_the_docs_do_not_explain(run):
    assert "shared" in read(run)["rank"]
    assert "shared" not in (run / "train.log").read_text()


def test_the_encoder_alone_is_built_as_with_all_the_rest_of_the_recipe():
    recipe = resolve(override(RECIPE, ["regularizers.flat={'type': 'sigreg', 'on': ['representation']}"]))
    domain = build_domain(recipe)
    alone, whole = build_encoder(recipe, domain), build_module(recipe, domain).encoder
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), whole.parameters(), strict=True))
    assert len(list(alone.parameters())) > 2
