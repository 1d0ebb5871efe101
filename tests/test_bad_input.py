"""Each mistake, through the command line: one paragraph that says what to do, exit code 2, nothing half-written."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from sslcollapse import cli
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.registry import Registry
from sslcollapse.optim.adamw import AdamW
from sslcollapse.recipe import load, override
from sslcollapse.training import trainer

sys.path.insert(0, str(Path(__file__).parent / "domains/graph"))
from raw_files import write_npz, write_planetoid

ROOT = Path(__file__).parents[1]
QUICKSTART = str(ROOT / "recipes/quickstart.py")
CORA = str(ROOT / "recipes/bgrl_werank_cora.py")
PHOTO = str(ROOT / "recipes/bgrl_photo.py")
SHORT = ["train.steps=2", "optim.warmup_steps=0", "monitor.every=0", "evaluate={}"]
CSBM = [
    'domain.dataset={"type": "csbm", "nodes": 60, "features": 12, "train_per_class": 3, "validation_per_class": 3}',
    "encoder.hidden=[8, 6]",
]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mistake(capsys, *words: str, out: Path) -> str:
    """The error of a training command that must fail and leave ``out`` as it was."""
    before = files(out)
    assert cli.main(["train", *words, "--out", str(out)]) == 2
    assert files(out) == before
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["encodr.hidden=[8]"], "encodr"),
        (["encoder.type=gnc"], "encoder.type: unknown encoder 'gnc'; did you mean 'gcn'? (known: gat, gcn, linear, "),
        (
            ["regularizers.werank.coeficient=1"],
            "regularizers.werank.coeficient: unknown argument of 'werank'; did you mean 'coefficient'?",
        ),
        (["train.steps=many"], "train.steps: expected an int, got 'many'"),
        (["encoder.hidden=[0]"], "encoder.hidden[0]: must be >= 1, got 0"),
        (["encoder.hidden=[]"], "encoder: hidden must be a non-empty list of positive widths, got []"),
        (
            ['domain.dataset={"type": "csbm", "degree": -1}'],
            "domain.dataset.degree: must be > 0, got -1",
        ),
        (["domain.views.strength=2"], "domain.views.strength: must be in [0, 1], got 2"),
        (
            ['regularizers.werank.coefficient={"conv.*": 1}'],
            "regularizers.werank.coefficient: coefficient 'conv.*' matches no layer; did you mean 'convs.1'? "
            "(layers: convs.0, convs.1)",
        ),
        (
            ['regularizers.werank.coefficient={"convs.*": 1, "*.0": 2}'],
            "both match layer 'convs.0'; name the layer exactly",
        ),
        (["monitor.evry.x=3"], "monitor.evry"),
        (["domain.batch_size=3"], "domain.batch_size: 3 is more than the 1 pre-training graph of "),
        (
            ['regularizers.werank.networks=["projector"]'],
            "regularizers.werank.networks: ['projector'] has no layer to regularise with BGRL; "
            "the networks here are encoder, predictor",
        ),
        (["optim.betas=[0.9]"], "optim: betas must be two numbers in [0, 1), got [0.9]"),
        (["optim.betas=[0.9, 1.5]"], "optim.betas[1]: must be in [0, 1), got 1.5"),
        (["optim.eps=-1"], "optim.eps: must be >= 0, got -1"),
        (["seed=99999999999999999999"], "seed: must be <= 9223372036854775807, got 99999999999999999999"),
        (
            ['train.trackers=["tensorbord"]'],
            "train.trackers: unknown tracker 'tensorbord'; did you mean 'tensorboard'? (known: aim, all, ",
        ),
        (["encoder.norm_momentum=5"], "encoder.norm_momentum: must be in [0, 1], got 5"),
        (["encoder.initial_rank=1000000000"], "encoder: initial_rank must be in [1, "),
        (
            ['regularizers.werank.networks=["encoder", "encoder"]'],
            "regularizers.werank.networks: 'encoder' is there twice",
        ),
        (["regularizers.werank.coefficient={}"], "regularizers.werank.coefficient: {} gives no layer a coefficient"),
        (
            ['regularizers.x={"type": "ldreg", "k": 1000000000}'],
            "regularizers.x.k: must be in [2, 65536], got 1000000000",
        ),
        (['regularizers.x={"type": "sigreg", "directions": 1000000000}'], "regularizers.x.directions: must be in [1, "),
        ([f"optim.lr={'9' * 400}"], "optim.lr: must be finite, got 9999"),
        ([f"train.steps={'9' * 400}"], "train.steps: must be <= 9223372036854775807, got 9999"),
        (["encoder={[]}"], "encoder: expected a dict with the 'type' and the arguments of the encoder, got '{[]}'"),
        (['regularizers={"keys": {"type": "werank"}}'], "regularizers.keys: PyTorch's modules have 'keys' already"),
        (["optim.lr=1e400"], "optim.lr: must be finite, got inf"),
        ([f"name={'a' * 256}"], "name: has 256 letters, at most 200 make a folder"),
        (["train.precision=fp8"], "train.precision: expected one of 'no', 'bf16', 'fp16', 'auto', got 'fp8'"),
    ],
)
def test_a_mistake_in_a_recipe_is_quoted_with_its_path_before_anything_is_written(tmp_path, capsys, words, message):
    out = tmp_path / "runs"
    assert message in mistake(capsys, QUICKSTART, *words, out=out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("tracker", "command"),
    [("tensorboard", 'pip install "sslcollapse[trackers]"'), ("comet_ml", "pip install comet-ml")],
)
def test_a_tracker_that_is_not_installed_is_refused_with_the_command(tmp_path, capsys, monkeypatch, tracker, command):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    out = tmp_path / "runs"
    error = mistake(capsys, QUICKSTART, *CSBM, *SHORT, f'train.trackers=["{tracker}"]', out=out)
    assert f"train.trackers: '{tracker}' is not installed; install it with: {command}" in error
    assert not out.exists()


def test_the_largest_seed_trains(tmp_path):
    assert cli.main(["train", QUICKSTART, *CSBM, *SHORT, f"seed={2**63 - 1}", "--out", str(tmp_path)]) == 0


def test_an_optimizer_that_cannot_be_built_leaves_no_directory(tmp_path, monkeypatch):
    def refuse(self, module):
        raise RecipeError("optim: refused")

    monkeypatch.setattr(AdamW, "build", refuse)
    with pytest.raises(RecipeError, match="refused"):
        trainer.train(override(load(QUICKSTART), [*CSBM, *SHORT]), out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_missing_dataset_without_network_names_files_place_and_a_recipe_without(tmp_path, capsys, no_network):
    out = tmp_path / "runs"
    error = mistake(capsys, CORA, f"data_root={tmp_path / 'data'}", out=out)
    for part in ("ind.cora.x", str(tmp_path / "data/graph/Planetoid/Cora/raw"), "recipes/quickstart.py"):
        assert part in error
    assert not out.exists()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("size", [100, 0])
def test_a_truncated_raw_file_is_named_and_left_alone(tmp_path, capsys, no_network, size):
    raw = tmp_path / "graph/Amazon/Photo/raw/amazon_electronics_photo.npz"
    write_npz(raw, 745)
    raw.write_bytes(raw.read_bytes()[:size])
    error = mistake(capsys, PHOTO, f"data_root={tmp_path}", out=tmp_path / "runs")
    assert "amazon_electronics_photo.npz" in error
    assert raw.stat().st_size == size
    assert not (tmp_path / "runs").exists()


def test_a_truncated_planetoid_file_is_named(tmp_path, capsys, no_network):
    write_planetoid(tmp_path)
    raw = tmp_path / "graph/Planetoid/Cora/raw/ind.cora.allx"
    raw.write_bytes(raw.read_bytes()[:200])
    assert "ind.cora.allx" in mistake(capsys, CORA, f"data_root={tmp_path}", out=tmp_path / "runs")


def damaged_photo(root: Path, **changes: np.ndarray) -> None:
    raw = root / "graph/Amazon/Photo/raw/amazon_electronics_photo.npz"
    write_npz(raw, 745)
    with np.load(raw) as archive:
        arrays = {**archive, **changes}
    np.savez(raw, **arrays)


def test_a_graph_without_edges_is_refused(tmp_path, capsys, no_network):
    nothing = {"adj_data": np.zeros(0), "adj_indices": np.zeros(0, int), "adj_indptr": np.zeros(6, int)}
    damaged_photo(tmp_path, **nothing)
    error = mistake(capsys, PHOTO, f"data_root={tmp_path}", out=tmp_path / "runs")
    assert "the graph has no edges" in error


def test_a_nan_feature_is_located(tmp_path, capsys, no_network):
    damaged_photo(tmp_path, attr_data=np.array([2.0, 1.0, 0.0, np.nan, 1.0, -1.5, 4.0]))
    error = mistake(capsys, PHOTO, f"data_root={tmp_path}", out=tmp_path / "runs")
    assert "1 NaN or infinite features, first nan at node 2, column 5" in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate.public.split=pubic"], "no split 'pubic'; did you mean 'public'? (known: public, random)"),
        (["evaluate.public.metric=roc_auc"], "metric='roc_auc' needs two classes, but this set has 5"),
        (["evaluate.public.split=random", "evaluate.public.fractions=[0.001, 0.1, 0.8]"], "none may be empty"),
        (['evaluate={"public": {"type": "knn", "split": "pubic"}}'], "no split 'pubic'"),
        (['evaluate={"public": {"type": "linear", "metric": "roc_auc"}}'], "needs two classes"),
    ],
)
def test_a_split_or_metric_that_does_not_fit_the_data_is_refused_before_training(tmp_path, capsys, words, message):
    out = tmp_path / "runs"
    error = mistake(capsys, QUICKSTART, *CSBM, "train.steps=2", *words, out=out)
    assert error.startswith("error: evaluate.public: ")
    assert message in error
    assert not out.exists()


def test_a_non_finite_loss_names_part_and_step_and_keeps_the_last_good_checkpoint(tmp_path, capsys):
    schedule = {"type": "schedule", "base": 1e308, "start": 3}
    words = [*CSBM, "train.log_every=1", "train.checkpoint_every=2", "optim.warmup_steps=0", "evaluate={}"]
    words += [f"regularizers.werank.coefficient={json.dumps(schedule)}", "train.steps=8", "--out", str(tmp_path)]
    assert cli.main(["train", QUICKSTART, *words]) == 2
    error = capsys.readouterr().err
    assert "step 4: regularizer/werank/convs.0/weighted is inf" in error
    assert "Lower optim.lr or the regularizer's coefficient" in error
    (run,) = tmp_path.glob("quickstart/*/seed0")
    assert [path.name for path in (run / "checkpoints").glob("*.pt")] == ["step00000002.pt"]
    assert not (run / "result.json").exists()
    losses = [json.loads(line).get("loss", 0.0) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite(losses).all()


DIVERGING = [*CSBM, "optim.warmup_steps=0", "optim.schedule=constant", "monitor.every=0", "evaluate={}"]


def test_a_first_step_that_diverges_names_the_parameter_and_leaves_no_checkpoint(tmp_path, capsys):
    words = [*DIVERGING, "train.steps=1", "optim.lr=1e38", "--out", str(tmp_path)]
    assert cli.main(["train", QUICKSTART, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: step 1: encoder.convs.0.weight has NaN or infinite entries after the update. ")
    assert "No checkpoint was written. Lower optim.lr" in error
    assert "last checkpoint" not in error
    (run,) = tmp_path.glob("quickstart/*/seed0")
    assert list((run / "checkpoints").iterdir()) == []
    assert not (run / "result.json").exists()


@pytest.mark.parametrize("monitor", [0, 1])
def test_finite_weights_whose_outputs_overflow_are_neither_saved_nor_measured(tmp_path, capsys, monitor):
    words = [*DIVERGING, f"monitor.every={monitor}", "train.steps=1", "optim.lr=1e25", "--out", str(tmp_path)]
    assert cli.main(["train", QUICKSTART, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: step 1: ranks cannot be measured, ")
    assert "No checkpoint was written" in error
    assert not list(tmp_path.glob("quickstart/*/seed0/checkpoints/*"))


class DivergesLate(AdamW):
    """AdamW whose learning rate jumps at step 5."""

    def lr_at(self, step, total):
        return 1e39 if step == 4 else self.lr


def test_the_last_good_checkpoint_stays_the_newest_and_resumes_to_the_same_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sslcollapse.training.trainer.OPTIMIZERS", Registry("optimizer", {}))
    trainer.OPTIMIZERS.register("adamw")(DivergesLate)
    words = [*DIVERGING, "train.steps=8", "train.checkpoint_every=1", "train.keep_checkpoints=1"]
    command = ["train", QUICKSTART, *words, "--out", str(tmp_path)]
    for resume in ([], ["--resume"]):
        assert cli.main([*command, *resume]) == 2
        error = capsys.readouterr().err
        assert "step 5: encoder.convs.0.weight has NaN" in error
        assert "of step 4, is from before" in error
        (run,) = tmp_path.glob("quickstart/*/seed0")
        assert [path.name for path in (run / "checkpoints").glob("*.pt")] == ["step00000004.pt"]
    assert cli.main([*command, "optim.lr=1e-5", "--resume"]) == 2  # another recipe, so another run
    assert "no unfinished run at" in (error := capsys.readouterr().err)
    assert "differs in: optim.lr: 1e-05 here, 0.001 there" in error


def test_an_unwritable_place_is_refused_before_training(tmp_path, capsys):
    place = tmp_path / "file"
    place.write_text("kept")
    assert cli.main(["train", QUICKSTART, *CSBM, *SHORT, "--out", str(place)]) == 2
    error = capsys.readouterr().err
    assert f"{place}/quickstart" in error
    assert "choose another folder with --out" in error
    assert place.read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path, capsys):
    place = tmp_path / "locked"
    place.mkdir(mode=0o500)
    assert "choose another folder with --out" in mistake(capsys, QUICKSTART, *CSBM, *SHORT, out=place)


def test_resuming_a_run_that_does_not_exist_leaves_the_others_alone(tmp_path, capsys):
    assert cli.main(["train", QUICKSTART, *CSBM, *SHORT, "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    error = mistake(capsys, QUICKSTART, *CSBM, *SHORT, "seed=1", "--resume", out=tmp_path)
    assert "no unfinished run at" in error
    assert "differs in: seed: 1 here, 0 there" in error


def test_a_finished_run_is_refused_and_untouched(tmp_path, capsys):
    assert cli.main(["train", QUICKSTART, *CSBM, *SHORT, "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    error = mistake(capsys, QUICKSTART, *CSBM, *SHORT, out=tmp_path)
    assert "this run is finished; use --overwrite to replace it or another seed (seed=1)" in error


def test_the_recipes_of_this_file_are_those_of_the_repository():
    assert load(PHOTO)["domain"]["dataset"] == {"type": "amazon", "name": "Photo"}
