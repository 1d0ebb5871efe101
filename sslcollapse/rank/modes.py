"""What measuring changes for a while in a network and in the process, and puts back exactly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


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
