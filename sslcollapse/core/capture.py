"""A function on fixed tensors as one CUDA graph: hundreds of kernels that the host starts with one call.

What a graph does is fixed when it is captured: the kernels, the addresses that they read and write, and every number
that the host gave them. Whatever changes from call to call has to stand in a tensor that is written before.
"""

from __future__ import annotations

import gc
import random
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WARM_UP = 3
"""Calls before the one that is captured: libraries make their handles in the first, optimizers their state."""

WAITS = "synchronizing CUDA operation"
"""What torch says of an operation that makes the host wait."""


class Captured:
    """A function of nothing, captured after a few calls and replayed from then on; each call does its work once.

    The first calls run the function as it is, on the stream that it is captured on. The last of them is watched. A
    function in which the host waits for the device, gives it numbers of its own, or remembers something, is not
    captured: the host might decide, or give, something else the next time. Where a capture fails, the function goes on
    being run as it is.

    Args:
        function: of fixed tensors on one device, which it may change; returns one.
        device: a CUDA device.
        owners: gives what may remember something from call to call: modules, or containers of tensors and numbers.

    Attributes:
        why_not: why it is not captured; None before that is tried, and where it is.
    """

    def __init__(
        self, function: Callable[[], Tensor], device: torch.device, owners: Callable[[], Any] = lambda: None
    ) -> None:
        self._function, self._device, self._owners = function, device, owners
        self._stream = _side_stream(torch.cuda.current_device() if device.index is None else device.index)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._output: Tensor | None = None
        self._calls = 0
        self.why_not: str | None = None

    @property
    def replays(self) -> bool:
        """Whether the next call replays a graph."""
        return self._graph is not None

    def __call__(self) -> Tensor:
        """What the function returns, in memory that the next call may write to."""
        if self.why_not is None and self._graph is None:
            if self._calls < WARM_UP:
                return self._warm_up()
            self._capture()
        if self._graph is None or self._output is None:
            return self._function()
        self._graph.replay()
        return self._output

    def close(self) -> None:
        """Give the memory of the graph back, after what it was last started for is done."""
        if self._graph is not None:
            torch.cuda.synchronize(self._device)
            self._graph = self._output = None

    def _warm_up(self) -> Tensor:
        self._calls += 1
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        found: list[str] = []
        watched = self._calls == WARM_UP
        watch: AbstractContextManager[None] = _watched(found, self._owners) if watched else nullcontext()
        with torch.cuda.stream(self._stream), watch:
            output = self._function()
        current.wait_stream(self._stream)
        self.why_not = found[0] if found else None
        return output

    def _capture(self) -> None:
        current = torch.cuda.current_stream(self._device)
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        gc.collect()  # what is left of a backward pass on another stream would draw that stream into the capture
        try:
            with torch.cuda.device(self._device), torch.cuda.graph(graph, pool, self._stream):
                output = self._function()
        except Exception as error:  # whatever cannot be captured raises, each in its way
            self.why_not = _first_cause(error)
            torch.cuda.set_stream(current)
            _leave_capture(self._device, pool)
            _side_stream.cache_clear()  # whether this one is still taken for capturing is not known
        else:
            self._graph, self._output = graph, output


@cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """The stream of a device that everything is captured on: cuBLAS keeps a workspace for each that it has seen."""
    return torch.cuda.Stream(device)


def _first_cause(error: BaseException) -> str:
    """The error that came first, in one line: that the capture cannot be ended is only what follows from it."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _leave_capture(device: torch.device, pool: Any) -> None:
    """Put in order what torch leaves as if the capture were under way, where it could not even be ended.

    These are the current stream, which the caller puts back, the allocator, and, in versions before 2.13, the default
    generator, which then refuses every draw.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    with suppress(RuntimeError, AttributeError):  # raised where the capture has been ended
        cuda: Any = torch._C
        cuda._cuda_endAllocateToPool(index, pool)
        cuda._cuda_releasePool(index, pool)
    default = torch.cuda.default_generators[index]
    default.graphsafe_set_state(default.clone_state())


@contextmanager
def _watched(found: list[str], owners: Callable[[], Any]) -> Iterator[None]:
    """A context that adds to ``found`` what the host does in each call, if anything; other warnings are given on."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with HostMemory(owners) as memory, HostNumbers() as numbers:
                yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for warning in caught:
        if WAITS in str(warning.message):
            found.append(f"the host waits for the device at {warning.filename}:{warning.lineno}")
        elif "ynchronization debug mode" not in str(warning.message):  # which torch calls a prototype
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    found += [f"the host gives the device numbers at {place}" for place in numbers.places]
    found += memory.changed


class HostNumbers(TorchDispatchMode):
    """A context that lists where tensors of the host are copied to a device, or are operands beside tensors of one.

    A number of Python is none of them: as a rule it is written in the program, and the same in each call.

    Attributes:
        places: ``file:line`` of each, outside of torch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            self._note([args[0].device, kwargs.get("device")])
        elif func is not torch.ops.aten.copy_.default:
            self._note([each.device for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)])
        elif args[0].device.type != "cpu":
            self._note([args[1].device, args[0].device])
        return func(*args, **kwargs)

    def _note(self, devices: list[torch.device | None]) -> None:
        on_host = {device.type == "cpu" for device in devices if device is not None}
        if len(on_host) == 2:
            self.places.append(_caller())


class HostMemory:
    """A context that lists what the host remembers of a call, and a replay would not change.

    That are random streams of the host, and what is not in the memory that a tensor had before: a number of Python, a
    tensor that takes the place of another one.

    Args:
        owners: gives modules, or containers of tensors and numbers, that are looked at.

    Attributes:
        changed: one sentence for each; known at the end.
    """

    def __init__(self, owners: Callable[[], Any]) -> None:
        self._owners = owners
        self.changed: list[str] = []

    def __enter__(self) -> HostMemory:
        self._before = self._found()
        return self

    def __exit__(self, *error: object) -> None:
        before, after = self._before, self._found()
        for name in {**before, **after}:
            was, now = before.get(name), after.get(name)
            if was is None or now is None or was[0] != now[0]:
                self.changed.append(f"a step changes {name}, which a replay does not")

    def _found(self) -> dict[str, tuple[Any, Any]]:
        """Name → what is compared, and what has to stay alive, so that nothing else gets its address meanwhile."""
        numpys: Any = np.random.get_state(legacy=False)["state"]
        return {
            "torch's random numbers of the host": (torch.get_rng_state().numpy().tobytes(), None),
            "Python's random numbers": (random.getstate(), None),
            "NumPy's random numbers": ([np.asarray(each).tolist() for each in numpys.values()], None),
            **dict(_remembered(self._owners(), "")),
        }


DEEPEST = 5
"""Containers within containers that are looked at."""


def _remembered(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(Name, (what is compared, the value)) of what a value has in it; functions and other objects are left out."""
    if isinstance(value, Tensor):
        place = value.data_ptr() if value.layout == torch.strided else 0
        yield name, ((id(value), place), value)
    elif value is None or isinstance(value, (bool, int, float, str)):
        yield name, (repr(value), None)
    elif depth == DEEPEST:
        return
    elif isinstance(value, nn.Module):
        for place, module in value.named_modules():
            inside = ".".join(filter(None, (name, place)))
            for key, each in vars(module).items():
                if key != "_modules":
                    plain = key in ("_parameters", "_buffers")
                    yield from _remembered(each, inside if plain else f"{inside}.{key}".strip("."), depth + 1)
    elif isinstance(value, (Mapping, list, tuple, deque)):
        for key, each in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _remembered(each, f"{name}.{key}".strip("."), depth + 1)


def _caller() -> str:
    """The innermost line of Python that is neither torch's nor of this file."""
    own, frame = str(Path(torch.__file__).parent), sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((own, __file__)):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
