"""Ranks of all layers in the log of a Lightning training."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from sslcollapse.nn.wrappers import check_count
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

    Args:
        every: training steps from one that is measured to the next; the first is measured.
        layers: name or glob of the layers, or several of them. Names are those of the LightningModule:
            ``"backbone.*"``.
        max_rows: rows taken from one output, evenly spaced; samples, pixels and tokens are rows.

    Attributes:
        monitor: the ``CollapseMonitor`` of the latest training, with ``history`` and ``plot``; None before the first.

    Raises:
        ValueError: for an ``every`` or ``max_rows`` that is no whole number of at least 1.
        LayerError: when training starts: a glob matches nothing; the message lists the layers.
    """

    def __init__(self, every: int = EVERY, layers: str | Sequence[str] = "*", *, max_rows: int = MAX_ROWS) -> None:
        check_count("every", every)
        check_count("max_rows", max_rows)
        self.every, self.layers, self.max_rows = every, layers, max_rows
        self.monitor: CollapseMonitor | None = None
        self._step = ExitStack()
        self._logged = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach a monitor."""
        self._close()
        self.monitor = CollapseMonitor(pl_module, self.layers, every=self.every, max_rows=self.max_rows)
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
        rows = monitor.summary(step=trainer.global_step, all_reduce=True)
        ranks = {f"effective_rank/{row.kind}/{row.layer}": row.effective_rank for row in rows}
        pl_module.log_dict(ranks, on_step=False, on_epoch=True)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Detach."""
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Detach."""
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Detach."""
        self._close()

    def _attached(self) -> CollapseMonitor:
        if self.monitor is None:
            raise RuntimeError("the callback is attached in on_train_start; call that of the superclass")
        return self.monitor

    def _close(self) -> None:
        self._step.close()
        if self.monitor is not None:
            self.monitor.close()
