"""Streaming second moments: the spectrum of N samples in O(d²) memory; and the rows that a layer puts out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.distributed import world_size
from sslcollapse.layers.map import CONVOLUTIONS, Layer
from sslcollapse.nn.init import unreadable
from sslcollapse.nn.moments import add_gram_, mirrored_
from sslcollapse.rank.spectrum import from_gram

MAX_ROWS = 4096
"""Rows a batch taken from the output of a convolution or a token layer, which has many rows a sample."""

_CHUNK = 4096
_CACHED = 2**18
"""Entries of a float64 block that stays in a processor's cache while it is centred and multiplied."""


class StreamingCovariance:
    """Count, mean and centred scatter of rows [n, d], accumulated in float64 chunk by chunk.

    Complex rows make it complex (complex128), and xᴴ stands for xᵀ.

    The scatter is accumulated about the running mean (Chan et al. 1983), so a large mean costs no precision, and
    the un-centred Gram matrix is recovered as scatter + n·mean·meanᵀ.
    """

    def __init__(self, dim: int, device: torch.device | None = None) -> None:
        self.n = 0
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self._lower = torch.zeros(dim, dim, dtype=torch.float64, device=device)  # to be mirrored

    @property
    def dim(self) -> int:
        """d."""
        return self.mean.numel()

    @property
    def scatter(self) -> Tensor:
        """Σ (x − mean)(x − mean)ᵀ over the rows x, columns: [d, d]."""
        return mirrored_(self._lower.clone())

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Add rows [n, d] of any dtype.

        Raises:
            ValueError: for another width, or a tensor that is not dense.
        """
        reason = unreadable(rows)
        if reason is not None:
            raise ValueError(f"expected rows of width {self.dim}, got a tensor that {reason}")
        if rows.dim() != 2 or rows.shape[1] != self.dim:
            raise ValueError(f"expected rows of width {self.dim}, got shape {tuple(rows.shape)}")
        if rows.is_complex():
            self.become_complex()
        for chunk in rows.split(_CHUNK) if len(rows) else ():
            self._add(chunk)

    def merge(self, other: StreamingCovariance) -> None:
        """Add what another one has seen."""
        if other.mean.is_complex():
            self.become_complex()
        if other.n:
            self._lower.add_(other._lower)
            self._combine(other.n, other.mean)

    def become_complex(self) -> None:
        """Complex from here on; what was added before keeps its value."""
        if not self.mean.is_complex():
            self.mean, self._lower = self.mean.to(torch.complex128), self._lower.to(torch.complex128)

    def copy(self) -> StreamingCovariance:
        """Another one that has seen the same rows."""
        other = StreamingCovariance(self.dim, self.mean.device)
        other.merge(self)
        return other

    def all_reduce(self) -> None:
        """Merge the samples of all ranks into every rank, in rank order, so that all get the same bits."""
        if world_size() == 1:
            return
        packed = torch.cat([self.mean.new_tensor([self.n]), self.mean, self._lower.flatten()])
        if packed.is_complex():
            packed = torch.view_as_real(packed)
        parts = [torch.empty_like(packed) for _ in range(world_size())]
        torch.distributed.all_gather(parts, packed)
        self.n, d = 0, self.dim
        self.mean, self._lower = torch.zeros_like(self.mean), torch.zeros_like(self._lower)
        for part in parts:
            part = torch.view_as_complex(part) if part.dim() == 2 else part
            if n := int(part[0].real):
                self._lower.add_(part[d + 1 :].view(d, d))
                self._combine(n, part[1 : d + 1])

    def singular_values(self, *, centred: bool) -> Tensor:
        """Singular values [d], descending, of the N × d matrix of all rows, centred or not."""
        return from_gram(self.scatter if centred else self.scatter.addr_(self.mean, self.mean.conj(), alpha=self.n))

    def _add(self, chunk: Tensor) -> None:
        """Add the Gram matrix of rows less nearly their mean, and take off what the mean was missed by.

        On a CPU block by block: the first one's mean is nearly that of all.
        """
        on_cpu = chunk.device.type == "cpu"
        blocks = chunk.split(max(_CACHED // max(self.dim, 1), 512)) if on_cpu else (chunk,)
        wide_type = self.mean.dtype
        shift = blocks[0].to(wide_type).mean(0)
        missed = torch.zeros_like(shift)
        for block in blocks:
            wide = block.to(wide_type, copy=True).sub_(shift)  # [n, d]
            missed.add_(wide.sum(0))
            add_gram_(self._lower, wide.t())
        missed.div_(len(chunk))
        self._lower.addr_(missed, missed.conj(), alpha=-len(chunk))
        self._combine(len(chunk), shift.add_(missed))

    def _combine(self, n: int, mean: Tensor) -> None:
        """From the scatters of two sets of rows, already added up, to that of both about their common mean."""
        total = self.n + n
        delta = mean - self.mean
        self._lower.addr_(delta, delta.conj(), alpha=self.n * n / total)
        self.mean.add_(delta, alpha=n / total)
        self.n = total


def activation_rows(output: Tensor, max_rows: int | None = None, channels: int | None = None) -> Tensor:
    """Rows of channels [n, C] of a layer output: [N, C], [B, C, H, W] or [B, T, C], at most so many evenly spaced ones.

    Args:
        output: of a layer.
        max_rows: by default all rows of [N, C] and ``MAX_ROWS`` of others.
        channels: dimension of the channels; by default 1 where there are four dimensions or more, else the last.
    """
    if channels is None:
        channels = 1 if output.dim() >= 4 else -1
    if max_rows is None:
        max_rows = MAX_ROWS if output.dim() != 2 else output.shape[0]
    last = output.movedim(channels, -1)
    shape, width = last.shape[:-1], last.shape[-1]
    if shape.numel() <= max_rows:
        return last.reshape(shape.numel(), width)
    chosen = torch.linspace(0, shape.numel() - 1, max_rows, device=output.device, dtype=torch.float64)
    return last[torch.unravel_index(chosen.round().long(), shape)]  # before flattening, which would copy everything


def output_rows(layer: Layer, output: Any, max_rows: int | None = None) -> Tensor | None:
    """[n, out] of what a module put out for one of its layers; None where that is not the layer's product.

    A Linear has its channels last, a convolution before its spatial dimensions. ``nn.MultiheadAttention`` and a module
    with a stack of matrices show the product of none of them.
    """
    own = layer_output(layer, output)
    return None if own is None else activation_rows(own[0].detach(), max_rows, own[1])


def layer_output(layer: Layer, output: Any) -> tuple[Tensor, int] | None:
    """What ``output_rows`` takes rows of, with its gradient, and its dimension of channels."""
    if isinstance(output, tuple) and output:
        output = output[0]
    if not isinstance(output, Tensor) or not is_plain(output) or not shows_product(layer):
        return None
    if output.layout != torch.strided or output.dim() == 0:
        return None
    if not (output.is_floating_point() or output.is_complex()):
        return None
    channels = 1 if output.dim() >= 4 else -1
    if isinstance(layer.module, nn.Linear):
        channels = -1
    elif isinstance(layer.module, CONVOLUTIONS):
        channels = output.dim() - 1 - len(layer.module.kernel_size)
    own = layer.channels(output, channels)
    return None if own is None else (own, channels)


def shows_product(layer: Layer) -> bool:
    """Whether a module puts out the product of this weight of it: not where it has several, or mixes them."""
    return layer.tensor == "weight" and layer.item is None


def unread(output: Any) -> str:
    """Why an output has no rows, for messages."""
    if isinstance(output, tuple) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        return f"it is no tensor but {type(output).__name__}"
    if torch._C._functorch.is_functorch_wrapped_tensor(output):
        return "it is inside torch.func (grad, vmap and the like), where it has no values of its own"
    if output.is_nested:
        return "it is nested; nn.TransformerEncoder makes none with enable_nested_tensor=False"
    if hasattr(output, "full_tensor"):
        return "it is sharded (DTensor); measure a module that puts out plain tensors"
    reason = unreadable(output)
    return f"it has the shape {tuple(output.shape)} and the type {output.dtype}" if reason is None else f"it {reason}"


def is_plain(output: Tensor) -> bool:
    """Whether a tensor has values of its own here: not nested, sharded, on the meta device or inside ``torch.func``."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(output)
    return not (wrapped or output.is_nested or output.is_meta or hasattr(output, "full_tensor"))
