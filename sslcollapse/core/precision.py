"""What numbers are computed in: float32 that is float32 where it matters, and one policy for a run.

Torch has two ways to compute less precisely than a program says: autocast, which turns operands to half precision, and
TF32, in which a GPU keeps 10 bits of what a float32 factor has. Penalties, ranks, probabilities and probes want
neither, whatever the network around them does: ``full_precision``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Environment variable without which torch refuses products of cuBLAS where all is to be deterministic."""

TENSOR_CORES = ("cuda",)
"""Types of devices that have TF32."""

CPUINFO = Path("/proc/cpuinfo")
"""Where Linux says what a processor can do."""

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""What it calls products of bf16 numbers there; the last is that of ARM."""

BACKENDS: Any = torch.backends
"""Switches of the libraries that torch calls; their types are written nowhere."""


def automatic() -> str:
    """The mixed precision that ``"auto"`` stands for here: bf16 where products in it are the hardware's own, else none.

    Without such instructions bf16 is slower than float32. A GPU without them is not given fp16, which needs a scaler.
    """
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    try:
        words = CPUINFO.read_text(encoding="utf-8", errors="replace").split()
    except OSError:  # another system than Linux
        return "no"
    return "bf16" if set(BF16_INSTRUCTIONS) & set(words) else "no"


def full_precision(device: torch.device, *, convolutions: bool = False) -> AbstractContextManager[Any]:
    """A context in which operations on a device compute in the type of their operands: no autocast, no TF32.

    On a CPU, and where neither is on, it costs next to nothing. In an autograd function both passes need one, since a
    backward pass runs with what is in force then.

    Args:
        device: of the operands.
        convolutions: whether those of cuDNN are meant too, and not matrix products alone: around whole networks.
    """
    if torch.compiler.is_compiling():  # a graph cannot change what holds for the process
        return torch.autocast(device.type, enabled=False)
    tensor_cores = device.type in TENSOR_CORES
    if tensor_cores and (_matmul_is_tf32() or (convolutions and BACKENDS.cudnn.conv.fp32_precision == "tf32")):
        return _exact(convolutions)
    # meta has no autocast, and refuses the question.
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def precisely(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``function(*inputs)`` in full precision, and its gradients too, of every order.

    The products of a backward pass are made after the context of the forward pass has ended, by what is in force then.
    An autograd function of our own has a ``full_precision`` of its own there; this is for what autograd differentiates.
    On a CPU it is the plain call.

    Args:
        function: of tensors; everything that has a gradient must be among its inputs.
        inputs: of the function.
    """
    device = inputs[0].device
    on_tensor_cores = device.type in TENSOR_CORES and not torch.compiler.is_compiling()
    if on_tensor_cores and torch.is_grad_enabled() and any(value.requires_grad for value in inputs):
        # Also where TF32 is off here, in the context of somebody else: it may be on in the backward pass.
        return _Precise.apply(lambda *values: (function(*values),), *inputs)[0]
    with full_precision(device):
        return function(*inputs)


class _Precise(torch.autograd.Function):
    """A function whose graph is kept inside, so that its backward pass runs where we say; → tuple of tensors."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        wanted = ctx.needs_input_grad[1:]
        with torch.enable_grad(), full_precision(inputs[0].device):
            own = [x.detach().requires_grad_(needed) for x, needed in zip(inputs, wanted, strict=True)]
            found = function(*own)
        ctx.function, ctx.own, ctx.found = function, own, found
        ctx.save_for_backward(*inputs)
        return tuple(value.detach() for value in found)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [index for index, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
        if torch.is_grad_enabled():  # to be differentiated again: the same once more, of the gradient
            slopes = _Precise.apply(partial(_slopes, ctx.function, wanted, len(ctx.own)), *ctx.saved_tensors, *grads)
        else:
            with full_precision(ctx.own[0].device):
                slopes = _gradients(ctx.found, [ctx.own[index] for index in wanted], grads)
        by_index = dict(zip(wanted, slopes, strict=True))
        return None, *(by_index.get(index) for index in range(len(ctx.own)))


def _slopes(
    function: Callable[..., tuple[Tensor, ...]], wanted: Sequence[int], count: int, *values: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of a function as a function of its inputs and of the gradients of what it puts out."""
    inputs, grads = values[:count], values[count:]
    return _gradients(function(*inputs), [inputs[index] for index in wanted], grads, create_graph=True)


def _gradients(
    found: Sequence[Tensor], inputs: Sequence[Tensor], grads: Sequence[Tensor], *, create_graph: bool = False
) -> tuple[Tensor, ...]:
    pairs = [(value, grad) for value, grad in zip(found, grads, strict=True) if value.requires_grad]
    if not pairs:
        return tuple(map(torch.zeros_like, inputs))
    return torch.autograd.grad(
        [value for value, _ in pairs],
        inputs,
        [grad for _, grad in pairs],
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )


def device_of(network: nn.Module) -> torch.device:
    """Where the parameters of a network are; the CPU for one without any."""
    return next(network.parameters(), torch.empty(0)).device


def _matmul_is_tf32() -> bool:
    return bool(BACKENDS.cuda.matmul.fp32_precision == "tf32")


@contextmanager
def _exact(convolutions: bool) -> Iterator[None]:
    """On a GPU without autocast and TF32."""
    matmul = BACKENDS.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "ieee"
    try:
        with _cudnn_tf32(False) if convolutions else nullcontext(), torch.autocast("cuda", enabled=False):
            yield
    finally:
        matmul.fp32_precision = before


@contextmanager
def _cudnn_tf32(allowed: bool) -> Iterator[None]:
    """By the older of torch's two ways, since its compiler asks by that."""
    cudnn = BACKENDS.cudnn
    before = cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
    cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        cudnn.allow_tf32 = before[0] == "tf32"
        cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = before


@contextmanager
def numerics(settings: Mapping[str, Any], device: torch.device) -> Iterator[None]:
    """A run's policy, in force for the process inside the context and put back at its end.

    On a CPU only ``deterministic`` changes anything: the others are switches of a GPU's libraries.

    Args:
        settings: ``matmul``, ``cudnn_benchmark`` and ``deterministic``, as in a recipe's ``train``.
        device: that the run is on.
    """
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(_gpu(settings["matmul"], settings["cudnn_benchmark"] and not settings["deterministic"]))
        if settings["deterministic"]:
            stack.enter_context(_deterministic())
        yield


@contextmanager
def put_back() -> Iterator[None]:
    """Around any program: what it leaves of precision, determinism and cuDNN's switches is as it was, at the end."""
    switches = [(getattr(BACKENDS, name), attribute) for name, attribute in _SWITCHES]
    exact = [
        BACKENDS.cuda.matmul,
        BACKENDS.mkldnn.matmul,
        BACKENDS.cudnn.conv,
        BACKENDS.cudnn.rnn,
    ]
    overall, values = _overall(), [getattr(owner, attribute) for owner, attribute in switches]
    precisions = [each.fp32_precision for each in exact]
    deterministic, only_warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=only_warns)
        for (owner, attribute), value in zip(switches, values, strict=True):
            setattr(owner, attribute, value)
        torch.set_float32_matmul_precision(overall)
        for each, value in zip(exact, precisions, strict=True):
            each.fp32_precision = value


_SWITCHES = (("cudnn", "enabled"), ("cudnn", "benchmark"), ("cudnn", "deterministic"), ("mkldnn", "enabled"))


def in_force() -> dict[str, Any]:
    """What holds in this process now, for records: the types of float32 products on a GPU, cuDNN, determinism."""
    return {
        "cuda_matmul": BACKENDS.cuda.matmul.fp32_precision,
        "cudnn_conv": BACKENDS.cudnn.conv.fp32_precision,
        "cudnn_benchmark": BACKENDS.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


@contextmanager
def _gpu(matmul: str, benchmark: bool) -> Iterator[None]:
    """The switches of cuBLAS and cuDNN."""
    overall = _overall()
    on_gpu, on_cpu = BACKENDS.cuda.matmul.fp32_precision, BACKENDS.mkldnn.matmul.fp32_precision
    tuned = BACKENDS.cudnn.benchmark
    try:
        torch.set_float32_matmul_precision(matmul)
        BACKENDS.mkldnn.matmul.fp32_precision = on_cpu  # it was set with the GPU's
        BACKENDS.cudnn.benchmark = benchmark
        with _cudnn_tf32(matmul != "highest"):
            yield
    finally:
        torch.set_float32_matmul_precision(overall)
        BACKENDS.cuda.matmul.fp32_precision, BACKENDS.mkldnn.matmul.fp32_precision = on_gpu, on_cpu
        BACKENDS.cudnn.benchmark = tuned


def _overall() -> str:
    """What ``torch.set_float32_matmul_precision`` was last given."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # the newer of torch's two ways was used beside it
        return "highest"


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    workspace = os.environ.get(WORKSPACE)
    try:
        if workspace is None:
            os.environ[WORKSPACE] = ":4096:8"  # cuBLAS reads it when it is first used
        torch.use_deterministic_algorithms(True)
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warns)
        if workspace is None:
            os.environ.pop(WORKSPACE, None)
