"""Streaming second moments: the spectrum of N samples in O(d²) memory; and the rows that a layer puts out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.distributed import world_size
from sslcollapse.layers.map import CONVOLUTIONS, Layer
from sslcollapse.nn.init import unreadable
from sslcollapse.nn.moments import add_gram_, gram_matrix, mirrored_
from sslcollapse.rank.batch import Gram
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
    the un-centred Gram matrix is recovered as scatter + n·mean·meanᵀ. While there are fewer rows than columns they are
    kept as they are, and have an n × n Gram matrix: 256 outputs of a projector with 8,192 channels need no 8,192².
    """

    def __init__(self, dim: int, device: torch.device | None = None) -> None:
        self._n = 0
        self._mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self._lower: Tensor | None = None  # to be mirrored; there with the first row that is added
        self._kept: list[Tensor] = []  # fewer rows than columns, none of which is added yet

    @property
    def dim(self) -> int:
        """d."""
        return self._mean.numel()

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self._mean.device

    @property
    def n(self) -> int:
        """Rows so far."""
        return self._n + sum(map(len, self._kept))

    @property
    def mean(self) -> Tensor:
        """Mean row [d]; zeros before the first."""
        return self._all_kept().mean(0) if self._kept else self._mean

    @property
    def scatter(self) -> Tensor:
        """Σ (x − mean)(x − mean)ᵀ over the rows x, columns: [d, d]."""
        if self._kept:
            return gram_matrix(self._about_mean().t())
        if self._lower is None:
            return self._mean.new_zeros(self.dim, self.dim)
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
        if not self._n and self.n + len(rows) < self.dim:
            if len(rows):
                self._kept.append(rows.detach().clone())
            return
        self._add_kept()
        self._add_all(rows)

    @torch.no_grad()
    def merge(self, other: StreamingCovariance) -> None:
        """Add what another one has seen."""
        if other._mean.is_complex():
            self.become_complex()
        if not self._n and not other._n and self.n + other.n < self.dim:
            self._kept += other._kept  # which nobody changes
            return
        self._add_kept()
        if other._kept:
            for rows in other._kept:
                self._add_all(rows)
        elif other._lower is not None:
            self._scatter_so_far().add_(other._lower)
            self._combine(other._n, other._mean)

    def become_complex(self) -> None:
        """Complex from here on; what was added before keeps its value."""
        if not self._mean.is_complex():
            self._mean = self._mean.to(torch.complex128)
            self._lower = None if self._lower is None else self._lower.to(torch.complex128)

    def copy(self) -> StreamingCovariance:
        """Another one that has seen the same rows."""
        other = StreamingCovariance(self.dim, self.device)
        other.merge(self)
        return other

    @torch.no_grad()
    def all_reduce(self) -> None:
        """Merge the samples of all ranks into every rank, in rank order, so that all get the same bits."""
        if world_size() == 1:
            return
        self._add_kept()
        packed = torch.cat([self._mean.new_tensor([self._n]), self._mean, self._scatter_so_far().flatten()])
        if packed.is_complex():
            packed = torch.view_as_real(packed)
        parts = [torch.empty_like(packed) for _ in range(world_size())]
        torch.distributed.all_gather(parts, packed)
        self._n, d = 0, self.dim
        self._mean, self._lower = torch.zeros_like(self._mean), None
        for part in parts:
            part = torch.view_as_complex(part) if part.dim() == 2 else part
            if n := int(part[0].real):
                self._scatter_so_far().add_(part[d + 1 :].view(d, d))
                self._combine(n, part[1 : d + 1])

    @torch.no_grad()
    def gram(self, *, centred: bool) -> Gram:
        """A Gram matrix of all rows, centred or not: [d, d], or [n, n] where there are fewer rows than columns."""
        if self._kept:
            matrix = gram_matrix(self._about_mean() if centred else self._all_kept())
        else:
            matrix = self.scatter if centred else self.scatter.addr_(self._mean, self._mean.conj(), alpha=self._n)
        return Gram(matrix, None, self.dim)

    def singular_values(self, *, centred: bool) -> Tensor:
        """Singular values [d], descending, of the N × d matrix of all rows, centred or not."""
        sigma = from_gram(self.gram(centred=centred).matrix)
        return torch.nn.functional.pad(sigma, (0, self.dim - len(sigma)))

    def _all_kept(self) -> Tensor:
        return torch.cat(self._kept).to(self._mean.dtype)

    def _about_mean(self) -> Tensor:
        rows = self._all_kept()
        return rows - rows.mean(0)

    def _scatter_so_far(self) -> Tensor:
        if self._lower is None:
            self._lower = self._mean.new_zeros(self.dim, self.dim)
        return self._lower

    def _add_kept(self) -> None:
        kept, self._kept = self._kept, []
        for rows in kept:
            self._add_all(rows)

    def _add_all(self, rows: Tensor) -> None:
        for chunk in rows.split(_CHUNK) if len(rows) else ():
            self._add(chunk)

    def _add(self, chunk: Tensor) -> None:
        """Add the Gram matrix of rows less nearly their mean, and take off what the mean was missed by.

        On a CPU block by block: the first one's mean is nearly that of all.
        """
        on_cpu = chunk.device.type == "cpu"
        blocks = chunk.split(max(_CACHED // max(self.dim, 1), 512)) if on_cpu else (chunk,)
        wide_type, lower = self._mean.dtype, self._scatter_so_far()
        shift = blocks[0].to(wide_type).mean(0)
        missed = torch.zeros_like(shift)
        for block in blocks:
            wide = block.to(wide_type, copy=True).sub_(shift)  # [n, d]
            missed.add_(wide.sum(0))
            add_gram_(lower, wide.t())
        missed.div_(len(chunk))
        lower.addr_(missed, missed.conj(), alpha=-len(chunk))
        self._combine(len(chunk), shift.add_(missed))

    def _combine(self, n: int, mean: Tensor) -> None:
        """From the scatters of two sets of rows, already added up, to that of both about their common mean."""
        total = self._n + n
        delta = mean - self._mean
        self._scatter_so_far().addr_(delta, delta.conj(), alpha=self._n * n / total)
        self._mean.add_(delta, alpha=n / total)
        self._n = total


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
