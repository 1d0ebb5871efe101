import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from sslcollapse import effective_rank
from sslcollapse.integrations.lightning import CollapseCallback
from sslcollapse.layers.map import LayerError

sys.path.insert(0, str(Path(__file__).parent))
import lightning_modules

DATA = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))


class Module(pl.LightningModule):
    """Calls its parts and ``forward`` directly, so that no hook of the whole runs."""

    def __init__(self, fail_at=None, checkpointed=False):
        super().__init__()
        self.backbone, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.fail_at, self.checkpointed = fail_at, checkpointed
        self.outputs, self.logged = [], []

    def forward(self, x):
        return self.backbone(x).relu()

    def training_step(self, x, index):
        if self.fail_at == self.global_step:
            self.backbone(x)
            raise RuntimeError("as asked")
        h = self.forward(x)
        if self.checkpointed:
            h = torch.utils.checkpoint.checkpoint(self.forward, x, use_reentrant=False)
        self.outputs.append(self.backbone(x).detach())
        return self.head(h).square().mean()

    def validation_step(self, x, index):
        self.backbone(100 * x)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def log_dict(self, values, **how):
        self.logged.append(dict(values))
        super().log_dict(values, **how)


def fit(callback, epochs=2, validate=False, **how):
    torch.manual_seed(0)
    module = Module(**how)
    loader = torch.utils.data.DataLoader(DATA, batch_size=8)
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[] if callback is None else [callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader, loader if validate else None)
    return module, trainer


def hooks(module):
    return [part for part in module.modules() if part._forward_hooks or part._forward_pre_hooks]


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
]


def test_ranks_of_each_epochs_measured_steps_and_of_weights_are_logged():
    module, trainer = fit(CollapseCallback(every=2, layers=["backbone", "head"]), validate=True)
    assert len(module.logged) == 2
    names = {f"effective_rank/{kind}/{layer}" for kind in ("weight", "output") for layer in ("backbone", "head")}
    assert set(module.logged[0]) == names <= set(trainer.callback_metrics)
    # Steps 0, 2 and 4 of six are measured, and a step runs the backbone twice on the same batch.
    for logged, steps in zip(module.logged, [(0, 2), (4,)], strict=True):
        expected = effective_rank(torch.cat([module.outputs[step] for step in steps]))
        assert logged["effective_rank/output/backbone"] == pytest.approx(expected, rel=1e-5)
    assert module.logged[1]["effective_rank/weight/head"] == pytest.approx(effective_rank(module.head.weight))
    assert trainer.callback_metrics["effective_rank/weight/head"] == pytest.approx(effective_rank(module.head.weight))


def test_an_epoch_without_a_measured_step_logs_nothing():
    module, _ = fit(CollapseCallback(every=5), epochs=3)  # steps 0 and 5 of nine
    assert len(module.logged) == 2


def test_training_is_the_same_to_the_bit_and_leaves_the_module_as_it_was():
    alone, _ = fit(None)
    callback = CollapseCallback(every=1)
    watched, _ = fit(callback)
    assert all(
        torch.equal(a, b) for a, b in zip(alone.state_dict().values(), watched.state_dict().values(), strict=True)
    )
    assert not hooks(watched)
    assert {row.step for row in callback.monitor.history} == {3, 6}


def test_what_checkpointing_runs_again_is_not_counted_twice():
    callback = CollapseCallback(every=1, layers="backbone")
    fit(callback, epochs=1, checkpointed=True)
    assert [row.n for row in callback.monitor.history if row.kind == "output"] == [3 * 24]


def test_the_module_is_left_as_it_was_when_training_fails():
    seen = []

    class Keeping(CollapseCallback):
        def on_train_start(self, trainer, pl_module):
            super().on_train_start(trainer, pl_module)
            seen.append((pl_module, len(hooks(pl_module))))

    with pytest.raises(RuntimeError, match="as asked"):
        fit(Keeping(every=1), fail_at=1)
    ((module, attached),) = seen
    assert attached
    assert not hooks(module)


def test_two_processes_log_the_rank_of_all_rows_as_the_metric_has_it():
    module = lightning_modules.Still()
    expected = effective_rank(module.backbone(DATA))
    trainer = pl.Trainer(
        max_epochs=1,
        callbacks=[CollapseCallback(every=1)],
        accelerator="cpu",
        devices=2,
        strategy="ddp_spawn",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with mock.patch.dict(os.environ):  # Lightning leaves its port in there
        trainer.fit(module, torch.utils.data.DataLoader(DATA, batch_size=4))
    assert trainer.callback_metrics["effective_rank/output/backbone"].item() == pytest.approx(expected, rel=1e-5)
    assert trainer.callback_metrics["metric"].item() == pytest.approx(expected, rel=1e-5)


def test_a_glob_that_matches_nothing_is_told_with_the_layers():
    with pytest.raises(LayerError, match="backbone"):
        fit(CollapseCallback(layers="encoder.*"))


@pytest.mark.parametrize("name", ["every", "max_rows"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        CollapseCallback(**{name: 0})


def test_without_lightning_the_import_says_what_to_install(monkeypatch):
    for name in ("pytorch_lightning", "lightning", "lightning.pytorch"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "sslcollapse.integrations.lightning")
    with pytest.raises(ImportError, match="pip install lightning"):
        importlib.import_module("sslcollapse.integrations.lightning")


class Falling(Module):
    """Its head has rank one from the third epoch on."""

    def on_train_epoch_start(self):
        if self.current_epoch >= 2:
            self.head.weight.data.fill_(1.0)


def fall(folder, action, epochs=6, ckpt=None, patience=2):
    """The callback and the trainer of a module that collapses."""
    torch.manual_seed(0)
    callback = CollapseCallback(every=1, on_collapse=action, below=0.5, patience=patience, folder=folder)
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Falling(), torch.utils.data.DataLoader(DATA, batch_size=8), ckpt_path=ckpt)
    return callback, trainer


@pytest.fixture(scope="module")
def fallen(tmp_path_factory):
    """Folder, callback and trainer of a training that a collapse has ended."""
    folder = tmp_path_factory.mktemp("fallen")
    with pytest.warns(UserWarning, match=r"training stops: step 12: the weight of head has collapsed"):
        callback, trainer = fall(folder, "stop")
    return folder, callback, trainer


def test_a_collapse_ends_the_training_after_the_epoch_with_a_checkpoint_and_the_last_healthy_one(fallen):
    folder, callback, trainer = fallen
    assert trainer.current_epoch == 4  # epochs 0 and 1 are healthy, 2 and 3 are low
    found = json.loads((folder / "collapse.json").read_text())
    assert (found["layer"], found["since"], found["action"]) == ("head", 9, "stop")
    assert found["last_healthy"] == {"step": 6, "checkpoint": str(folder / "healthy.ckpt")}
    healthy, collapsed = (torch.load(folder / f"{name}.ckpt", weights_only=False) for name in ("healthy", "collapsed"))
    assert (healthy["global_step"], collapsed["global_step"]) == (6, 12)
    assert callback.collapse.step == 12


def test_a_training_that_goes_on_from_its_checkpoint_has_the_counts_of_its_alarm(fallen, tmp_path):
    callback, trainer = fall(tmp_path, "stop", ckpt=fallen[0] / "collapsed.ckpt")
    assert trainer.current_epoch == 6  # it was told of this collapse before
    assert callback.collapse is None
    assert callback.monitor.alarm.healthy == 6


def test_a_warning_ends_nothing_and_without_on_collapse_nothing_is_written(tmp_path):
    with pytest.warns(UserWarning, match="the weight of head has collapsed"):
        _, trainer = fall(tmp_path / "warned", "warn", epochs=4)
    assert trainer.current_epoch == 4
    assert (tmp_path / "warned/collapse.json").exists()
    callback, _ = fall(tmp_path / "not", None, epochs=3)
    assert callback.collapse is None
    assert not (tmp_path / "not").exists()


def test_a_training_that_goes_on_in_its_folder_knows_its_last_healthy_checkpoint(fallen, tmp_path):
    for name in ("healthy.ckpt", "collapsed.ckpt"):
        shutil.copy(fallen[0] / name, tmp_path / name)
    callback, _ = fall(tmp_path, "stop", ckpt=tmp_path / "collapsed.ckpt")
    assert callback.monitor.alarm.checkpoint == str(tmp_path / "healthy.ckpt")
