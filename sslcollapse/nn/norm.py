"""Normalisations and activations by name, and BatchNorm + PReLU as one operation.

Eager PyTorch spends more time in PReLU's backward than in the matrix products around it: it writes a
full-size gradient for the single slope. ``BatchNormPReLU`` keeps the parameters and the names of
``nn.BatchNorm1d`` and ``nn.PReLU`` and replaces the two kernels by one autograd function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from sslcollapse.nn.init import check_norm_momentum

NormName = Literal["batch", "layer", "graph", "none"]
ActivationName = Literal["prelu", "relu", "elu", "gelu", "none"]


class NormAct(nn.Module):
    """Normalisation followed by an activation, [N, d] → [N, d].

    Args:
        dim: d.
        norm: ``"batch"``, ``"layer"`` (each row), ``"graph"`` (all nodes and channels of a graph together,
            PyTorch Geometric's default LayerNorm and BGRL's) or ``"none"``.
        momentum: of BatchNorm's running statistics in torch's convention; BGRL's authors use 0.99.
        activation: ``"prelu"`` has one slope, 0.25 at first.

    Raises:
        ValueError: for an unknown norm or activation, or a momentum outside [0, 1].
    """

    def __init__(self, dim: int, norm: NormName, momentum: float, activation: ActivationName) -> None:
        super().__init__()
        self.norm = _make_norm(norm, dim, check_norm_momentum(momentum))
        self.activation = _make_activation(activation)
        self._fused = norm == "batch" and activation == "prelu"

    def reset_parameters(self) -> None:
        """Initialise again: scale 1, shift 0, running statistics 0 and 1, slope 0.25."""
        if hasattr(self.norm, "reset_parameters"):
            self.norm.reset_parameters()
        if isinstance(self.activation, nn.PReLU):
            self.activation.reset_parameters()

    def forward(self, x: Tensor, graph_index: Tensor | None = None) -> Tensor:
        """[N, d] → [N, d]; ``graph_index`` [N] is read by the graph norm only."""
        if self._fused and self.training and self._own_kernels():
            return batch_norm_prelu(x, self.norm, self.activation)
        if isinstance(self.norm, GraphNorm):
            return self.activation(self.norm(x, graph_index))
        return self.activation(self.norm(x))

    @property
    def couples(self) -> bool:
        """Whether what becomes of a row depends on the others, as it is now: BatchNorm does so in train mode."""
        norm = self.norm
        own = isinstance(norm, _BatchNorm) and (norm.training or norm.running_mean is None)
        return own or isinstance(norm, GraphNorm)

    def given(self, moments: Moments) -> Callable[[Tensor], Tensor]:
        """The function of some rows [n, d] of one graph that ``forward`` is, from the moments of all its rows.

        Of a BatchNorm in train mode the running statistics are updated, once.
        """
        norm: Any = self.norm
        if isinstance(norm, GraphNorm):
            centre, spread = moments.of_all_channels()
            return lambda x: self.activation(norm.scaled(x - centre.to(x), spread.to(x)))
        mean, variance = moments.mean, moments.squares / max(moments.n, 1)
        if norm.training and norm.running_mean is not None:
            norm.num_batches_tracked.add_(1)
            share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            unbiased = moments.squares / max(moments.n - 1, 1)
            norm.running_mean.lerp_(mean.to(norm.running_mean), share)
            norm.running_var.lerp_(unbiased.to(norm.running_var), share)
        return lambda x: self.activation(
            functional.batch_norm(x, mean.to(x), variance.to(x), norm.weight, norm.bias, False, 0.0, norm.eps)
        )

    def _own_kernels(self) -> bool:
        """Not where the norm has become a SyncBatchNorm, somebody hooked a module, or the compiler fuses better."""
        plain = type(self.norm) is nn.BatchNorm1d and not torch.compiler.is_compiling()
        return plain and not _observed(self.norm) and not _observed(self.activation)


class GraphNorm(nn.Module):
    """Layer normalisation over all nodes and channels of each graph, with scale and shift per channel.

    Formula: γ (x − E[x]) / (std[x] + ε) + β, the statistics over the nodes and channels of one graph.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, graph_index: Tensor | None = None) -> Tensor:
        """[N, d] → [N, d]; without ``graph_index`` [N] all nodes are one graph."""
        if graph_index is None:
            x = x - x.mean()
            return self.scaled(x, x.std(unbiased=False))
        # As many places as there are nodes, since a device would make the host wait to say how many graphs there are.
        # Those of no graph get the variance 1, whose root has a gradient.
        nodes = torch.zeros_like(graph_index).index_add_(0, graph_index, torch.ones_like(graph_index))
        absent = (nodes == 0).to(x.dtype)
        count = nodes.clamp_(min=1).to(x.dtype) * x.shape[1]
        mean = x.new_zeros(len(x)).index_add(0, graph_index, x.sum(1)) / count
        x = x - mean[graph_index, None]
        var = absent.index_add(0, graph_index, x.square().sum(1)) / count
        return x / (var.sqrt() + self.eps)[graph_index, None] * self.weight + self.bias

    def scaled(self, x: Tensor, spread: Tensor) -> Tensor:
        """Rows [n, d] of one graph less its mean, and its standard deviation → [n, d]."""
        return x / (spread + self.eps) * self.weight + self.bias


class Moments:
    """Mean and sum of squares about it of each channel, of rows that come in parts; in float64.

    Source: Chan et al. 1983.

    Attributes:
        n: rows so far.
        mean: [d].
        squares: [d] of differences from the mean.
    """

    def __init__(self, dim: int, device: torch.device) -> None:
        self.n = 0
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self.squares = torch.zeros_like(self.mean)

    def add(self, rows: Tensor) -> None:
        """Further rows [n, d]."""
        if not len(rows):
            return
        variance, mean = torch.var_mean(rows.detach().double(), dim=0, correction=0)
        total, missed = self.n + len(rows), mean - self.mean
        self.squares += variance * len(rows) + missed.square() * (self.n * len(rows) / total)
        self.mean += missed * (len(rows) / total)
        self.n = total

    def of_all_channels(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over rows and channels."""
        mean = self.mean.mean()
        variance = self.squares.mean() / max(self.n, 1) + (self.mean - mean).square().mean()
        return mean, variance.sqrt()


def batch_norm_prelu(x: Tensor, norm: nn.Module, activation: nn.Module) -> Tensor:
    """``activation(norm(x))`` in train mode for BatchNorm1d and a one-slope PReLU; updates running statistics."""
    norm.num_batches_tracked.add_(1)
    if not torch.is_grad_enabled():
        y = functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, True, norm.momentum, norm.eps
        )
        return prelu(y, activation.weight, inplace=True)
    return _BatchNormPReLU.apply(
        x, norm.weight, norm.bias, activation.weight, norm.running_mean, norm.running_var, norm.momentum, norm.eps
    )


class _BatchNormPReLU(torch.autograd.Function):
    """y = BN(x); out = y where y > 0 else a·y. Library kernels only, on any device.

    These operations are bound by memory traffic, so as few full-size tensors as possible are written. On the CPU, for
    a positive slope, y is overwritten by out, which has its signs. The slope's gradient Σ g·min(y, 0) is one product
    of two vectors.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        slope: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        y, mean, inverse_std = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        # Above a thousandth, so that dividing by the slope again costs no precision.
        ctx.overwritten = x.device.type == "cpu" and slope.item() > 1e-3
        out = prelu(y, slope, inplace=ctx.overwritten)
        ctx.save_for_backward(x, weight, bias, slope, out if ctx.overwritten else y, mean, inverse_std)
        ctx.running, ctx.eps = (running_mean, running_var), eps
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, slope, y, mean, inverse_std = ctx.saved_tensors
        again = torch.is_grad_enabled()  # to be differentiated again: what was kept does not know where it comes from
        if again:
            y = functional.batch_norm(x, None, None, weight, bias, True, 0.0, ctx.eps)
        grad_slope, grad_y = prelu_backward(grad.contiguous(), y, slope)
        if ctx.overwritten and not again:
            grad_slope = grad_slope / slope
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad_y, x, weight, *ctx.running, mean, inverse_std, True, ctx.eps, [True, True, True]
        )
        return grad_x, grad_weight, grad_bias, grad_slope, None, None, None, None


class PReLU(nn.PReLU):
    """``nn.PReLU`` with one slope, whose backward does not write a full-size gradient for the slope."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; the same values as ``nn.PReLU``."""
        if torch.compiler.is_compiling():
            return functional.prelu(x, self.weight)
        if x.requires_grad or self.weight.requires_grad:
            return _PReLU.apply(x, self.weight)
        return prelu(x, self.weight)


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return prelu(x, slope)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        grad_slope, grad_x = prelu_backward(grad.contiguous(), x, slope)
        return grad_x, grad_slope


def prelu(x: Tensor, slope: Tensor, inplace: bool = False) -> Tensor:
    """x where x > 0, else slope·x, for a slope of one element; ``inplace`` is a permission."""
    if x.device.type == "cpu":
        # Reading the slope is free here and leaky_relu's kernel is the faster one.
        return functional.leaky_relu(x, slope.item(), inplace)
    return functional.prelu(x, slope.to(x.dtype))


def prelu_backward(grad: Tensor, x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``prelu`` for the slope ([1]) and for x, from contiguous ``grad`` and x of one shape."""
    buffer = x.clamp_max(0)
    grad_slope = torch.dot(grad.reshape(-1), buffer.reshape(-1))
    if x.device.type == "cpu" and not torch.is_grad_enabled():  # an out= argument cannot be differentiated
        grad_x = torch.ops.aten.leaky_relu_backward.grad_input(grad, x, slope.item(), False, grad_input=buffer)
    else:
        grad_x = torch.where(x > 0, grad, grad * slope.to(grad.dtype))
    return grad_slope.to(slope.dtype).reshape(1), grad_x


def _observed(module: nn.Module) -> bool:
    """Whether somebody hooked the module, so that it must really be called."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def _make_norm(name: NormName, dim: int, momentum: float) -> nn.Module:
    if name == "batch":
        return nn.BatchNorm1d(dim, momentum=momentum)
    if name == "layer":
        return nn.LayerNorm(dim)
    if name == "graph":
        return GraphNorm(dim)
    if name == "none":
        return nn.Identity()
    raise ValueError(f"norm must be 'batch', 'layer', 'graph' or 'none', got {name!r}")


def _make_activation(name: ActivationName) -> nn.Module:
    makers = {"prelu": PReLU, "relu": nn.ReLU, "elu": nn.ELU, "gelu": nn.GELU, "none": nn.Identity}
    if name not in makers:
        raise ValueError(f"activation must be one of {', '.join(makers)}, got {name!r}")
    return makers[name]()
