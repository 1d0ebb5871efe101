"""What tells a monitor that a forward pass of a network begins and ends, however it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_CALL = "_compiled_call_impl"
"""Where ``nn.Module.compile`` keeps what is called in place of a module; copies and pickles leave it out."""


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
