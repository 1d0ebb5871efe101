"""CollapseMonitor: the rank of every layer's weight and output while a network trains in anyone's own loop."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from torch import nn

from sslcollapse.core.distributed import world_size
from sslcollapse.core.precision import device_of
from sslcollapse.core.types import Point
from sslcollapse.layers.map import Layer, by_tensor
from sslcollapse.nn.wrappers import check_count, check_model, coverage_of, layers_of, unwrap, warn_of_unread
from sslcollapse.rank.alarm import (
    BELOW,
    PATIENCE,
    Collapse,
    CollapseAlarm,
    OnCollapse,
    answer,
    check_action,
    said_by_rank_0,
)
from sslcollapse.rank.batch import Route
from sslcollapse.rank.covariance import MAX_ROWS, StreamingCovariance, shows_product
from sslcollapse.rank.history import MonitorError, SummaryHistory, SummaryRecord
from sslcollapse.rank.record import LayerRank, RankBatch
from sslcollapse.rank.recorder import Recorder, Watch, resting

EVERY = 100
"""Training forwards from one that is measured to the next, by default."""


class CollapseMonitor(SummaryHistory):
    """Watches which layers lose rank while a network trains.

        with CollapseMonitor(model) as monitor:
            train(model)
            monitor.summary()

    On every ``every``-th training forward the outputs of layers go into streaming covariances (float64, O(d²) a layer,
    on the layer's device, without waiting for it). The other forwards cost two empty calls. Eigenvalues are computed by
    ``summary`` only. The network is left as it was: hooks are there until ``close``, nothing else is changed, no random
    number is drawn, and a copy or a pickle of the network is not watched. A forward never fails because it is watched:
    an output that cannot be read (inside ``torch.func``, say) has no row, and ``summary`` warns of it once. Forwards in
    several threads are measured one by one.

    A summary covers the measured forwards since the summary before, so that calling it once an epoch gives a history.
    With two forwards a step (two views) an even ``every`` measures the first view only; an odd one both in turn.

    A network sharded by FSDP2's ``fully_shard`` is brought together layer by layer: every rank must call ``summary``.

    ``torch.compile``: give the compiled network. Measured forwards then run eagerly, because compiled code would skip
    the hooks; their rounding, and the random numbers of dropout under inductor, are those of eager code. A network that
    is compiled after this monitor was attached works as well, with a graph break at its beginning and end. One compiled
    and used *before* a monitor was attached to the network inside cannot be seen: ``summary`` then says so.

    With ``on_collapse`` every summary is asked whether layers have collapsed by it, and ``collapse.json`` says which,
    since when, with their ranks and spectra, and which checkpoint was the last healthy one, of those that ``saved`` was
    told.

    Args:
        model: the network, or the same wrapped by DistributedDataParallel or ``torch.compile``: what the loop calls.
        layers: name or glob of the layers, or several of them.
        every: training forwards from one that is measured to the next; the first is measured. On a small network a
            measured forward costs about as much as a training step, which the default keeps near a hundredth.
        max_rows: rows taken from one output, evenly spaced; samples, pixels and tokens are rows.
        on_collapse: what is done when a layer has collapsed: ``"warn"``; ``"stop"``, which raises ``CollapsedError``
            from ``summary``; or a function that is given the ``Collapse``. By default nothing.
        below: share of the reachable rank below which a weight or an output is low.
        patience: low summaries in a row that make a collapse.
        folder: where ``collapse.json`` is written.

    Attributes:
        layers: name → ``Layer`` of what is watched, ordered by depth.
        alarm: what knows the last healthy step and checkpoint.
        collapse: the latest ``Collapse``; None so far.
        forwards: training forwards seen so far.
        measured: forwards measured so far.

    Raises:
        LayerError: a glob matches nothing; the message lists the layers.
        MonitorError: for ``nn.DataParallel``.
        SSLCollapseError: for a network whose weights are nowhere as a whole (FSDP1, DeepSpeed's stage 3).
        ValueError: for an ``every``, ``max_rows`` or ``patience`` that is no whole number of at least 1, a ``below``
            outside of (0, 1], or another ``on_collapse``.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] = "*",
        *,
        every: int = EVERY,
        max_rows: int = MAX_ROWS,
        on_collapse: OnCollapse = None,
        below: float = BELOW,
        patience: int = PATIENCE,
        folder: str | Path = ".",
    ) -> None:
        super().__init__()
        check_model(model, "CollapseMonitor")
        if isinstance(model, nn.DataParallel):
            raise MonitorError("nn.DataParallel runs copies of the network; use DistributedDataParallel, or no wrapper")
        check_count("every", every)
        check_count("max_rows", max_rows)
        check_action(on_collapse)
        self.alarm = CollapseAlarm(below, patience)
        self.collapse: Collapse | None = None
        self.on_collapse, self.folder = on_collapse, Path(folder)
        self.layers: dict[str, Layer] = layers_of(model, layers)
        warn_of_unread(model, layers, "CollapseMonitor")
        self.every, self.max_rows = every, max_rows
        self.forwards = self.measured = 0
        self._network = unwrap(model)
        self._summarized = self._by_steps = False
        self._forced = self._told = 0
        self._thread = threading.local()  # .measuring: whether the forward that this thread is in is measured
        self._running = 0  # measured forwards and steps under way, in all threads
        outputs = {Point("output", name): layer for name, layer in self.layers.items()}
        self._recorder = Recorder(outputs, max_rows=max_rows, tolerant=True, listens=self._listens)
        self._lock = self._recorder.lock
        self._watch = Watch(model, self._before, self._after)

    def __enter__(self) -> CollapseMonitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def observe(self) -> Iterator[None]:
        """Within it every forward is measured, in eval mode as well; ``forwards`` does not count them."""
        with self._lock:
            self._forced += 1
        try:
            yield
        finally:
            with self._lock:
                self._forced -= 1

    @contextmanager
    def step(self) -> Iterator[None]:
        """A training step that counts as one forward, for loops that call parts of the network and never the whole.

        What runs within it is measured, if it is this step's turn. After the first one, forwards outside steps and
        ``observe`` do not count.
        """
        with self._lock:
            self._by_steps = True
            self._end()
            self._begin(self._is_due())
        try:
            yield
        finally:
            self._end()

    def summary(
        self, step: int | None = None, *, all_reduce: bool = False, route: Route | None = None
    ) -> list[LayerRank]:
        """A row for each layer's weight, as it is now, and output, since the summary before; also kept in ``history``.

        Until the next measured forward it gives the same again. Layers that did not run have no row for the output, nor
        has ``nn.MultiheadAttention``, which shows the product of none of its weights.

        Args:
            step: what the rows are called; by default the number of training forwards seen.
            all_reduce: merge the outputs of all ranks. Every rank must then call this.
            route: how eigenvalues are computed (see ``rank.batch``); by default as is usual for the device.

        Raises:
            MonitorError: no forward was seen; or several processes are to stop, and do not summarise together.
            CollapsedError: with ``on_collapse="stop"``, on every rank.
        """
        if self.on_collapse == "stop" and world_size() > 1 and not all_reduce:
            raise MonitorError(
                "several processes stop at the same step only if they see the same ranks: with on_collapse='stop' "
                "every rank calls summary(all_reduce=True)"
            )
        if not self.measured:
            raise MonitorError(
                "the monitor saw no forward pass of the model in training mode. Attach it to what the loop calls: to "
                "the wrapper if there is one, and to the compiled network if it ran before the monitor was attached. "
                "Forward passes in eval mode are seen within monitor.observe()"
            )
        self._end()
        with self._lock:
            rows, new = self._summary(self.forwards if step is None else step, all_reduce, route)
        if new and self.on_collapse is not None:
            self._look(all_reduce)
        return rows

    def saved(self, checkpoint: str | Path) -> None:
        """A checkpoint of the network as it is now was written; the last healthy one is ``alarm.checkpoint``."""
        self.alarm.saved(str(checkpoint), self.forwards)

    def _summary(self, step: int, all_reduce: bool, route: Route | None) -> tuple[list[LayerRank], bool]:
        self._tell_unread()
        asked = RankBatch(device_of(self._network), step=step, route=route)
        for group in by_tensor(self.layers):  # a weight that several share is computed, or gathered, once
            asked.ask_weights(group)
        for name, layer in self.layers.items():
            stream = self._stream_of(name, layer, all_reduce)
            if stream is not None and stream.n:
                asked.ask_rows(Point("output", name), stream, layer.shape, depth=layer.depth)
        with resting(self._network):
            found = asked.found()
        order = {name: number for number, name in enumerate(self.layers)}
        found.sort(key=lambda entry: (order[entry[0].layer], entry[0].kind == "output"))
        again = bool(self._records) and self._records[-1].measured == self.measured
        if again:
            self._records.pop()
        spectra = {row.point.key: sigma for row, sigma in found}
        self._records.append(SummaryRecord(self.measured, step, [row for row, _ in found], spectra))
        self._summarized = True
        return self._records[-1].rows, not again

    def _look(self, all_reduce: bool) -> None:
        """Ask the alarm about the latest summary, and do what is to be done."""
        _, step, rows, spectra = self._records[-1]
        found = self.alarm.observe(step, rows, spectra, at=self.forwards)
        if all_reduce:  # rounding of a linear algebra library may set ranks apart, and rank 0 has the say
            found = said_by_rank_0(found)
        if found is None:
            return
        self.collapse = found
        answer(found, self.on_collapse, self.folder)

    @property
    def unmeasured(self) -> dict[str, str]:
        """Name of a part of the network, or of a layer whose outputs have no rank → why.

        Parts that are no layers, such as embeddings and recurrent ones, have no rank of a weight either.
        """
        found = {part.name: part.reason for part in coverage_of(self._network).uncovered}
        for name, layer in self.layers.items():
            if not shows_product(layer):
                found[name] = "its module puts out no product of this weight alone; the weight is measured"
            elif self.measured and Point("output", name) not in self._recorder.streams:
                found[name] = "it did not run in a measured forward; the weight is measured"
        return found | self.unread

    @property
    def unread(self) -> dict[str, str]:
        """Name of a layer → why an output of it could not be read."""
        return {point.name: reason for point, reason in self._recorder.unread.items()}

    def reset(self) -> None:
        """Forget outputs, counts and history; the monitor stays attached, and the next training forward is measured."""
        self._end()
        with self._lock:
            self._recorder.streams, self._recorder.unread, self._records = {}, {}, []
            self.forwards = self.measured = self._told = 0
            self._summarized, self._logged, self.collapse = False, 0, None
            self.alarm = CollapseAlarm(self.alarm.below, self.alarm.patience)

    def close(self) -> None:
        """Take every hook off the network; what was seen can still be summarised. Closing twice does nothing."""
        with self._lock:
            self._detach()
            self._watch.remove()

    def _before(self) -> None:
        if self._by_steps and not self._forced:
            return
        with self._lock:
            self._end()  # a forward that raised inside compiled code may have left its hooks
            self._begin(bool(self._forced) or (self._network.training and self._is_due()))

    def _after(self) -> None:
        if not self._by_steps or self._forced:
            self._end()

    def _is_due(self) -> bool:
        """Count a training forward; whether it is one of those that are measured."""
        self.forwards += 1
        return (self.forwards - 1) % self.every == 0

    def _begin(self, measuring: bool) -> None:
        """This thread's forward, or step, begins."""
        self._thread.measuring = measuring
        if not measuring:
            return
        if self._summarized:
            self._recorder.streams, self._summarized = {}, False
        self.measured += 1
        self._running += 1
        if self._running == 1:
            self._recorder.attach()

    def _end(self) -> None:
        """This thread's forward, or step, is over, if it is in one."""
        measuring, self._thread.measuring = getattr(self._thread, "measuring", None), None
        if measuring:
            with self._lock:
                self._running = max(self._running - 1, 0)
                if not self._running:
                    self._detach()

    def _detach(self) -> None:
        self._running = 0
        self._recorder.detach()

    def _listens(self) -> bool:
        """Whether this thread's forward counts: not where another thread's is measured and this one's is not."""
        return getattr(self._thread, "measuring", None) is not False

    def _tell_unread(self) -> None:
        unread = self.unread
        if len(unread) <= self._told:
            return
        self._told = len(unread)
        name, reason = next(reversed(unread.items()))
        warnings.warn(
            f"CollapseMonitor leaves out an output of layer {name!r}: {reason}. monitor.unread has the layers of which "
            f"something was left out ({self._told})",
            stacklevel=4,
        )

    def _stream_of(self, name: str, layer: Layer, all_reduce: bool) -> StreamingCovariance | None:
        stream = self._recorder.streams.get(Point("output", name))
        if not all_reduce:
            return stream
        # On every rank for every layer, since all ranks must take part, and on a copy, which is not counted again.
        device = layer.parameter.device
        stream = StreamingCovariance(layer.shape[0], device) if stream is None else stream.copy()
        if layer.parameter.is_complex():
            stream.become_complex()
        stream.all_reduce()
        return stream
