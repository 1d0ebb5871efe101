"""A process that makes run after run, each of which finds it as it was before the first."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import site
import sys
import sysconfig
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState

from sslcollapse.core.files import PACKAGE
from sslcollapse.core.precision import put_back
from sslcollapse.core.registry import REGISTRIES

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
SETTINGS: tuple[tuple[Any, Any], ...] = (
    (os.getcwd, os.chdir),
    (random.getstate, lambda state: random.seed()),  # as a new process has it: unlike any other
    (np.random.get_state, np.random.set_state),
    (np.geterr, lambda how: np.seterr(**how)),
    (torch.get_rng_state, torch.set_rng_state),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    (lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
    (lambda: torch.is_autocast_enabled("cuda"), lambda on: torch.set_autocast_enabled("cuda", on)),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
)
"""How what holds for a process is asked for, and how it is put back."""
FIRST_SEED = 67280421310721
"""What torch's generators of GPUs begin with."""


class Beginning:
    """A context around each run of a process, at whose end the process is again as this object found it.

    Put back are environment variables, the folder, the search path and standard streams; signals, warnings and the
    root logger; random states; torch's and NumPy's settings, precision and determinism; what Accelerate knows of the
    process, and what torch has compiled. Modules of users are read anew, with what they register. What a program
    changes inside a library is not found.
    """

    def __init__(self) -> None:
        self._values = [get() for get, _ in SETTINGS]
        self._variables, self._path, self._modules = dict(os.environ), list(sys.path), set(sys.modules)
        self._streams = sys.stdin, sys.stdout, sys.stderr
        self._hooks = sys.excepthook, sys.unraisablehook
        self._signals = {number: signal.getsignal(number) for number in SIGNALS}
        root = logging.getLogger()
        self._log = root.level, list(root.handlers), logging.root.manager.disable
        self._kinds = set(REGISTRIES.known())
        self._libraries = library_folders()
        self._frozen = False

    def __enter__(self) -> Beginning:
        self._stack = ExitStack()
        # Also forgets which warnings were shown once, so that the next run shows them again.
        self._stack.enter_context(warnings.catch_warnings())
        self._stack.enter_context(put_back())
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        os.environ.clear()
        os.environ.update(self._variables)
        sys.path[:] = self._path
        sys.stdin, sys.stdout, sys.stderr = self._streams
        sys.excepthook, sys.unraisablehook = self._hooks
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._signals.items():
            if signal.getsignal(number) != handler:
                signal.signal(number, handler)
        for (_, put), value in zip(SETTINGS, self._values, strict=True):
            put(value)
        self._forget_logging()
        self._forget_modules()
        self._forget_libraries()
        gc.collect()
        if not self._frozen:  # what the first run has imported stays, and need not be looked at each time
            gc.freeze()
            self._frozen = True

    def _forget_logging(self) -> None:
        level, handlers, disabled = self._log
        root = logging.getLogger()
        for handler in [handler for handler in root.handlers if handler not in handlers]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
        logging.disable(disabled)

    def _forget_modules(self) -> None:
        """Let what a user's files have defined and registered be read again."""
        new = {name: sys.modules[name] for name in sys.modules.keys() - self._modules}
        gone = {name for name, module in new.items() if self._is_users(getattr(module, "__file__", None))}
        for name in gone:
            del sys.modules[name]
        REGISTRIES.forget(self._kinds, gone, self._is_users)

    def _is_users(self, file: str | None) -> bool:
        """Whether it is a source file of neither this package nor a library."""
        return file is not None and file.endswith(".py") and not file.startswith(self._libraries)

    @staticmethod
    def _forget_libraries() -> None:
        """What torch and Accelerate remember in their modules."""
        torch.set_default_device(None)
        torch.set_flush_denormal(False)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(FIRST_SEED)
        torch._dynamo.reset()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


def library_folders() -> tuple[str, ...]:
    """Folders of what a process imports once: modules from elsewhere are a user's, and are read again for each run."""
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages(), str(PACKAGE)}
    folders |= {folder for folder in sys.path if next(Path(folder).glob("*.dist-info"), None) is not None}
    return tuple(os.path.join(folder, "") for folder in folders)
