"""A run that ends by itself because a layer has collapsed, and how it goes on."""

import json
import shutil

import pytest
from tiny import tiny_recipe

from sslcollapse import cli
from sslcollapse.core.errors import RunError
from sslcollapse.recipe import recipe_hash, resolve
from sslcollapse.training.trainer import train

FALLING = """
import torch

from sslcollapse import ENCODERS, layer_map
from sslcollapse.encoders.gcn import GCN


@ENCODERS.register("falling")
class Falling(GCN):
    \"\"\"Its first weight has rank one from the sixth step on; a step runs it twice.\"\"\"

    def __init__(self, in_shape, *, hidden=(16, 8)):
        super().__init__(in_shape, hidden=hidden)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, view):
        if self.training:
            self.count += 1
            if self.count > 10:
                layer_map(self)["convs.0"].parameter.data.fill_(1.0)
        return super().forward(view)


"""
RECIPE = tiny_recipe(
    "falling",
    optim=dict(type="adamw", lr=1e-3),
    train=dict(steps=14, log_every=1, checkpoint_every=2, keep_checkpoints=1),
    monitor=dict(every=2, on_collapse="stop", below=0.15, patience=2),
    evaluate={},
) | dict(encoder=dict(type="falling"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, own_components):
    """Folder of a run that has stopped, and its exit code."""
    folder = tmp_path_factory.mktemp("falling")
    (folder / "falling.py").write_text(f"{FALLING}\nrecipe = {RECIPE!r}\n")
    return folder, cli.main(["train", str(folder / "falling.py"), "--out", str(folder / "runs")])


@pytest.fixture
def command(stopped, tmp_path):
    """Calls ``train`` on a copy of the stopped run with more words; its exit code."""
    folder = shutil.copytree(stopped[0], tmp_path / "copy")
    return lambda *words: cli.main(["train", str(folder / "falling.py"), "--out", str(folder / "runs"), *words])


def run_of(folder):
    """The one run directory below a folder."""
    (path,) = folder.glob("**/seed0")
    return path


def kept(run):
    return sorted(int(path.stem.removeprefix("step")) for path in (run / "checkpoints").glob("*.pt"))


def collapse(run):
    return json.loads((run / "collapse.json").read_text())


def test_a_collapse_ends_the_run_with_a_code_of_its_own_a_checkpoint_and_the_last_healthy_one(stopped):
    folder, code = stopped
    run = run_of(folder)
    assert code == 79
    assert kept(run) == [4, 8]  # one is kept, and the healthy one besides
    found = collapse(run)
    assert (found["step"], found["layer"], found["kind"], found["since"]) == (8, "convs.0", "weight", 6)
    assert found["last_healthy"] == {"step": 4, "checkpoint": "checkpoints/step00000004.pt"}
    assert (found["action"], found["stopped"]) == ("stop", True)
    assert [point["step"] for point in found["layers"][0]["ranks"]] == [4, 6, 8]
    assert len(found["layers"][0]["spectrum"]) == 12
    log = (run / "train.log").read_text()
    assert "stopped after step 8, which is saved: the weight of convs.0 has collapsed" in log
    assert "the last healthy checkpoint is checkpoints/step00000004.pt" in log
    assert not (run / "result.json").exists()


def test_resuming_it_says_what_happened_and_goes_on_only_when_asked(command, tmp_path, capsys):
    assert command("--resume") == 79
    said = capsys.readouterr().err
    assert "this run was stopped after step 8: the weight of convs.0 has collapsed" in said
    assert "add --past-collapse to --resume, or change monitor.on_collapse" in said
    run = run_of(tmp_path)
    assert kept(run) == [4, 8]
    assert command("--resume", "--past-collapse") == 79  # low twice more
    assert "going on" in capsys.readouterr().err
    assert (collapse(run)["step"], kept(run)) == (12, [4, 12])
    assert command("--resume", "monitor.on_collapse=warn") == 0
    assert (run / "result.json").exists()
    assert not collapse(run)["stopped"]


def test_a_damaged_record_of_a_collapse_lets_a_run_go_on_only_when_asked(command, tmp_path, capsys):
    path = run_of(tmp_path) / "collapse.json"
    damage = path.read_text()[:100]
    path.write_text(damage)
    assert command("--resume") == 2
    assert "cannot be read" in capsys.readouterr().err
    assert (path.read_text(), kept(path.parent)) == (damage, [4, 8])  # nothing was done
    assert command("--resume", "monitor.on_collapse=warn") == 0


def test_a_setting_that_is_changed_lets_it_go_on_to_a_collapse_in_the_last_step_which_ends_nothing(command, tmp_path):
    assert command("--resume", "monitor.patience=3") == 0  # low at steps 10, 12 and 14
    run = run_of(tmp_path)
    assert (run / "result.json").exists()
    assert (collapse(run)["step"], collapse(run)["stopped"]) == (14, False)
    assert "warning step 14: collapse of the weight of convs.0" in (run / "train.log").read_text()


def test_a_warning_stops_nothing_and_what_controllers_read_is_looked_at_too(stopped, tmp_path):
    monitor = dict(every=0, on_collapse="warn", below=0.15, patience=2)
    floor = dict(type="rank_floor", of="weight", every=1)
    recipe = RECIPE | dict(monitor=monitor, regularizers=dict(werank=dict(type="werank", coefficient=floor)))
    run = train(recipe, out=tmp_path)
    found = collapse(run)
    assert (found["layer"], found["kind"], found["since"], found["step"]) == ("convs.0", "weight", 5, 6)
    assert found["last_healthy"]["step"] == 4
    recipe["monitor"] = monitor | dict(on_collapse="stop")
    (tmp_path / "stop.py").write_text(f"recipe = {recipe!r}\n")
    assert cli.main(["train", str(tmp_path / "stop.py"), "--out", str(tmp_path / "stops")]) == 79
    assert kept(run_of(tmp_path / "stops")) == [4, 6, 7]  # 6 is planned, and 7 is where it stopped


def test_going_past_a_collapse_without_resuming_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"--past-collapse is for a run.*together with --resume"):
        train(RECIPE, out=tmp_path, past_collapse=True)


def test_what_is_done_about_a_collapse_changes_no_hash():
    plain = {**tiny_recipe("plain", optim=dict(type="adamw", lr=1e-3), train=dict(steps=1), evaluate={})}
    watched = plain | dict(monitor=dict(on_collapse="stop", below=0.5, patience=1))
    assert recipe_hash(resolve(watched)) == recipe_hash(resolve(plain))
