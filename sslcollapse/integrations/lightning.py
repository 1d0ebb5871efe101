"""Ranks of all layers in the log of a Lightning training."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcollapse.core.errors import CollapsedError
from sslcollapse.nn.wrappers import check_count
from sslcollapse.rank.alarm import BELOW, PATIENCE, Collapse, CollapseAlarm, OnCollapse, check_action
from sslcollapse.rank.covariance import MAX_ROWS
from sslcollapse.rank.monitor import EVERY, CollapseMonitor


def _lightning() -> Any:
    """Whichever of Lightning's two packages there is; of both, the one that the program uses."""
    for name in sorted(("lightning.pytorch", "pytorch_lightning"), key=lambda name: name not in sys.modules):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ImportError(
        "sslcollapse.integrations.lightning needs Lightning, which is not installed: pip install lightning. In a loop "
        "of your own use sslcollapse.CollapseMonitor"
    )


if TYPE_CHECKING:
    from pytorch_lightning import Callback
else:
    Callback = _lightning().Callback


class CollapseCallback(Callback):
    """Logs the effective rank of layers' weights and outputs at the end of each training epoch.

        Trainer(callbacks=[CollapseCallback()])

    Every ``every``-th training step is measured from its beginning to its first backward, whatever parts of the module
    ``training_step`` calls and however. Through ``log_dict`` of the module go ``effective_rank/weight/<layer>``, as the
    weight then is, and ``effective_rank/output/<layer>``, of the outputs measured since the last time, not centred,
    merged over processes. An epoch without a measured step logs nothing. When training ends or fails, the module is
    left as it was.

    With ``on_collapse`` a checkpoint is written after each healthy measurement, ``healthy.ckpt``, in place of the one
    before. ``"stop"`` writes another one, ``collapsed.ckpt``, and ends the training after the epoch as
    ``EarlyStopping`` does, on all processes; ``collapse`` then says what was found.

    Args:
        every: training steps from one that is measured to the next; the first is measured.
        layers: name or glob of the layers, or several of them. Names are those of the LightningModule:
            ``"backbone.*"``.
        max_rows: rows taken from one output, evenly spaced; samples, pixels and tokens are rows.
        on_collapse: see ``CollapseMonitor``; by default nothing.
        below: see ``CollapseMonitor``.
        patience: epochs in a row with a low rank that make a collapse.
        folder: of the checkpoints and of ``collapse.json``; by default the trainer's ``default_root_dir``.

    Attributes:
        monitor: the ``CollapseMonitor`` of the latest training, with ``history`` and ``plot``; None before the first.

    Raises:
        ValueError: for an ``every``, ``max_rows`` or ``patience`` that is no whole number of at least 1, a ``below``
            outside of (0, 1], or another ``on_collapse``.
        LayerError: when training starts: a glob matches nothing; the message lists the layers.
    """

    def __init__(
        self,
        every: int = EVERY,
        layers: str | Sequence[str] = "*",
        *,
        max_rows: int = MAX_ROWS,
        on_collapse: OnCollapse = None,
        below: float = BELOW,
        patience: int = PATIENCE,
        folder: str | Path | None = None,
    ) -> None:
        check_count("every", every)
        check_count("max_rows", max_rows)
        check_action(on_collapse)
        CollapseAlarm(below, patience)  # refuses wrong ones
        self.on_collapse, self.below, self.patience, self.folder = on_collapse, below, patience, folder
        self._alarm: Mapping[str, Any] | None = None
        self.every, self.layers, self.max_rows = every, layers, max_rows
        self.monitor: CollapseMonitor | None = None
        self._step = ExitStack()
        self._logged = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach a monitor."""
        self._close()
        self.monitor = CollapseMonitor(
            pl_module,
            self.layers,
            every=self.every,
            max_rows=self.max_rows,
            on_collapse=self.on_collapse,
            below=self.below,
            patience=self.patience,
            folder=self._folder(trainer),
        )
        if self._alarm is not None:
            alarm, healthy = self.monitor.alarm, self._folder(trainer) / "healthy.ckpt"
            alarm.load_state_dict(self._alarm)
            if alarm.healthy is not None and healthy.exists():  # of the training that goes on here
                alarm.saved(str(healthy), alarm.healthy)
        self._logged = 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Measure from here."""
        self._step.close()  # another callback may have skipped the rest of the step before
        self._step.enter_context(self._attached().step())

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Measure until here, so that what checkpointing runs again in the backward does not count twice."""
        self._step.close()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Measure until here, where there was no backward."""
        self._step.close()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log what was measured."""
        self._step.close()
        monitor = self._attached()
        if monitor.measured == self._logged:
            return
        self._logged = monitor.measured
        try:
            monitor.summary(step=trainer.global_step, all_reduce=True)
        except CollapsedError as error:
            trainer.should_stop = True
            trainer.save_checkpoint(self._folder(trainer) / "collapsed.ckpt")
            if trainer.is_global_zero:
                warnings.warn(f"training stops: {error}", stacklevel=2)
        pl_module.log_dict(monitor.flat(["effective_rank"]), on_step=False, on_epoch=True)
        healthy = self.on_collapse is not None and monitor.alarm.healthy == trainer.global_step
        if trainer.strategy.broadcast(healthy):
            path = self._folder(trainer) / "healthy.ckpt"
            trainer.save_checkpoint(path)
            monitor.saved(path)

    @property
    def collapse(self) -> Collapse | None:
        """What was found in the latest training; None if nothing was."""
        return None if self.monitor is None else self.monitor.collapse

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has of the alarm."""
        watched = self.on_collapse is not None and self.monitor is not None
        return {"alarm": self._attached().alarm.state_dict()} if watched else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the alarm of a checkpoint."""
        self._alarm = state_dict.get("alarm")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Detach."""
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Detach."""
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Detach."""
        self._close()

    def _folder(self, trainer: Any) -> Path:
        return Path(trainer.default_root_dir if self.folder is None else self.folder)

    def _attached(self) -> CollapseMonitor:
        if self.monitor is None:
            raise RuntimeError("the callback is attached in on_train_start; call that of the superclass")
        return self.monitor

    def _close(self) -> None:
        self._step.close()
        if self.monitor is not None:
            self.monitor.close()
