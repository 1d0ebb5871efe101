"""How a network is looked at and left as it was: hooks on its layers and around its forward passes, modes put back.

The one place that hooks a network to measure what its layers put out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.types import Point
from sslcollapse.layers.map import Layer
from sslcollapse.rank.covariance import (
    StreamingCovariance,
    activation_rows,
    is_plain,
    output_rows,
    shows_product,
    unread,
)

_CALL = "_compiled_call_impl"
"""Where ``nn.Module.compile`` keeps what is called in place of a module; copies and pickles leave it out."""


class EagerSwitch:
    """Has compiled networks run eagerly while anybody measures, since compiled code skips hooks that are set after it.

    The stance of ``torch.compile`` belongs to the process, so one count does for all who measure: the first to hold it
    sets the stance, the last to release it puts back what there was. One that somebody else has set since stays.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._ours: Any = None

    def hold(self) -> None:
        """Eager from here on; to be followed by one ``release``."""
        with self._lock:
            if not self._holders:
                self._ours = torch.compiler.set_stance("force_eager")
            self._holders += 1

    def release(self) -> None:
        """One holder less."""
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
            ours, self._ours = self._ours, None
            found = torch.compiler.set_stance("default")  # the one way to learn the stance is to set another
            (ours if found.prev is ours.stance else found).__exit__(None, None, None)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Eager within."""
        self.hold()
        try:
            yield
        finally:
            self.release()


EAGER = EagerSwitch()
"""The switch of this process."""


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Eval mode without gradients, then exactly as before; compiled networks run eagerly.

    A module with a ``train`` or ``eval`` of its own, which may merge an adapter, say, is switched by it there and back,
    and its tensors are put back to the bit.
    """
    training = {part: part.training for module in modules for part in module.modules()}
    kept: dict[Tensor, Tensor] = {}
    own = [part for part in training if _switches_itself(part)] if any(training.values()) else []
    for part in own:
        kept |= {tensor: tensor.detach().clone() for tensor in (*part.parameters(), *part.buffers())}
    try:
        if any(training.values()):
            for module in modules:
                module.eval()
        with torch.no_grad(), EAGER.held():
            yield
    finally:
        try:
            for part in own:  # parents first, since they switch their children
                part.train(training[part])
        finally:
            for part, mode in training.items():
                part.training = mode
            for tensor, value in kept.items():
                if not torch.equal(tensor, value):
                    tensor.data.copy_(value)


@contextmanager
def resting(*modules: nn.Module) -> Iterator[None]:
    """No gradients, and buffers such as those of a spectral norm stand still while weights are read.

    Nothing runs within, so that flags are enough and no module's own ``eval`` is called.
    """
    flagged = [part for module in modules for part in module.modules() if part.training]
    try:
        for part in flagged:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part in flagged:
            part.training = True


def _switches_itself(part: nn.Module) -> bool:
    methods = (type(part).train, type(part).eval)
    return any(not method.__module__.startswith("torch.") for method in methods)


class Recorder:
    """Covariances of what layers and other modules put out, of all forward passes while it is attached.

    An output is only read: loss, gradients, buffers and random numbers are as without. Compiled networks run eagerly
    meanwhile, since compiled code skips hooks that are set after it.

    Args:
        sources: what is recorded: the product of a layer, which a module that mixes several does not show, or all that
            a module puts out, such as an encoder's representation.
        max_rows: rows taken from one output, evenly spaced; by default as ``activation_rows`` does.
        held: whether outputs wait, as copies, for ``take``, which says which of their rows count.
        tolerant: whether a forward pass goes on whatever is wrong with an output; ``unread`` then says what it was.
        listens: whether a forward pass counts, asked in its thread; by default every one does.
        also: takes every output as well, as it is put out.

    Attributes:
        streams: covariance of the rows so far, where there were any.
        unread: why an output could not be read.
        lock: held while the two change, since networks may run in several threads.
    """

    def __init__(
        self,
        sources: Mapping[Point, Layer | nn.Module],
        *,
        max_rows: int | None = None,
        held: bool = False,
        tolerant: bool = False,
        listens: Callable[[], bool] = lambda: True,
        also: Callable[[Point, Any], None] = lambda point, output: None,
    ) -> None:
        self.streams: dict[Point, StreamingCovariance] = {}
        self.unread: dict[Point, str] = {}
        self.lock = threading.RLock()
        self._max_rows, self._tolerant, self._listens, self._also = max_rows, tolerant, listens, also
        self._held: list[tuple[Point, Layer | None, Any]] | None = [] if held else None
        self._handles: list[Any] = []
        by_module: dict[nn.Module, dict[Point, Layer | None]] = {}
        for point, source in sources.items():
            if isinstance(source, nn.Module):
                by_module.setdefault(source, {})[point] = None
            elif shows_product(source):
                by_module.setdefault(source.module, {})[point] = source
        self._hooks = [(module, torch.compiler.disable(self._hook(wanted))) for module, wanted in by_module.items()]

    def attach(self) -> None:
        """Put the hooks on; to be followed by ``detach``."""
        if self._hooks and not self._handles:
            EAGER.hold()
            self._handles = [module.register_forward_hook(hook) for module, hook in self._hooks]

    def detach(self) -> None:
        """Take every hook off; the second time does nothing."""
        if self._handles:
            EAGER.release()
        while self._handles:
            self._handles.pop().remove()

    def take(self, own: Tensor, samples: int) -> None:
        """Add what is held: of outputs with one row a sample those rows, of others all.

        Args:
            own: numbers of rows.
            samples: so many went through.
        """
        held, self._held = self._held or [], []
        for point, layer, output in held:
            if isinstance(output, Tensor) and output.dim() and len(output) == samples:
                output = output[own]
            if not isinstance(output, Tensor) or output.numel():
                self._add(point, layer, output)

    def __enter__(self) -> Recorder:
        self.attach()
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()

    def see(self, point: Point, output: Any, layer: Layer | None = None) -> None:
        """Record an output as a hook does, of what no hook could be on."""
        self._also(point, output)
        if self._held is None:
            self._add(point, layer, output)
        else:
            self._held.append((point, layer, _kept(output)))

    def _hook(self, wanted: Mapping[Point, Layer | None]) -> Callable[..., None]:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            if torch._C._current_graph_task_id() >= 0 or not self._listens():
                return  # a backward pass runs it again, where activations are not kept
            for point, layer in wanted.items():
                try:
                    self.see(point, output, layer)
                except Exception as error:
                    if not self._tolerant:
                        raise
                    with self.lock:
                        self.streams.pop(point, None)  # half of an output may be in it
                        self.unread[point] = f"{type(error).__name__}: {error}"

        return record

    def _add(self, point: Point, layer: Layer | None, output: Any) -> None:
        # Outside inference mode, since what is created there could not be added to later.
        with torch.inference_mode(False), torch.no_grad():
            if layer is None:
                rows: Tensor | None = activation_rows(output.detach(), self._max_rows)
            else:
                rows = output_rows(layer, output, self._max_rows)
            with self.lock:
                if rows is None:
                    self.unread[point] = unread(output)
                    return
                if point not in self.streams:
                    self.streams[point] = StreamingCovariance(rows.shape[1], rows.device)
                stream = self.streams[point]
                stream.update(rows.to(stream.device))


def _kept(output: Any) -> Any:
    """An output as it is now: an activation may work in place."""
    if isinstance(output, tuple) and output:
        output = output[0]
    return output.detach().clone() if isinstance(output, Tensor) and is_plain(output) else output


class Watch:
    """Calls ``before`` and ``after`` around every forward pass of a module, until ``remove``.

    ``after`` is called at least once, also where the pass raised or was interrupted. A copy or a pickle of the module
    is not watched.
    """

    def __init__(self, model: nn.Module, before: Callable[[], None], after: Callable[[], None]) -> None:
        # On the outermost wrapper, so that they run outside compiled code; where they do not, they break the graph.
        self._handles = [
            model.register_forward_pre_hook(_Hook(torch.compiler.disable(before))),
            model.register_forward_hook(_Hook(torch.compiler.disable(after)), always_call=True),
        ]
        self._guard, self._after = _Guard.of(model), after
        self._guard.ends.append(after)

    def remove(self) -> None:
        """Take everything off the module; the second time does nothing."""
        if self._handles:
            self._guard.remove(self._after)
        while self._handles:
            self._handles.pop().remove()


class _Hook:
    """A hook that stays behind when its network is copied or pickled: the copy has one that does nothing."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> None:
        self._call()

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _no_hook, ()


class _Guard:
    """What is called in place of a watched module: the module, then what ends a measurement.

    A forward hook is not called where Ctrl-C, or anything else that is no ``Exception``, ends a forward pass.
    """

    def __init__(self, model: nn.Module) -> None:
        self.ends: list[Callable[[], None]] = []
        self.before = vars(model).get(_CALL)
        self._model = model
        vars(model)[_CALL] = self
        # Not compiled itself, while what it calls may be.
        self._call = torch.compiler.disable(self._guarded, recursive=False)

    @classmethod
    def of(cls, model: nn.Module) -> _Guard:
        """The guard of a module; there is one for all monitors."""
        found = vars(model).get(_CALL)
        return found if isinstance(found, cls) else cls(model)

    def remove(self, end: Callable[[], None]) -> None:
        """The last one takes the guard off the module, unless that was compiled in the meantime."""
        self.ends.remove(end)
        if not self.ends and vars(self._model).get(_CALL) is self:
            del vars(self._model)[_CALL]
            if self.before is not None:
                vars(self._model)[_CALL] = self.before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def _guarded(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return (self.before or self._model._call_impl)(*args, **kwargs)
        finally:
            for end in tuple(self.ends):
                end()

    def __reduce__(self) -> tuple[Callable[..., None], tuple[()]]:
        return _ignore, ()


def _no_hook() -> Callable[..., None]:
    return _ignore


def _ignore(*args: Any) -> None:
    pass
