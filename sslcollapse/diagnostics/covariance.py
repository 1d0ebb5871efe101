"""Streaming second moments: the spectrum of N samples in O(d²) memory."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcollapse.diagnostics.spectrum import from_gram
from sslcollapse.distributed import world_size

_CHUNK = 4096


class StreamingCovariance:
    """Count, mean and centred scatter of rows [n, d], accumulated in float64 chunk by chunk.

    The scatter is accumulated about the running mean (Chan et al. 1983), so a large mean costs no precision, and
    the un-centred Gram matrix is recovered as scatter + n·mean·meanᵀ.
    """

    def __init__(self, dim: int, device: torch.device | None = None) -> None:
        self.n = 0
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    @property
    def dim(self) -> int:
        """d."""
        return self.mean.numel()

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Add rows [n, d] of any floating dtype.

        Raises:
            ValueError: for another width.
        """
        if rows.dim() != 2 or rows.shape[1] != self.dim:
            raise ValueError(f"expected rows of width {self.dim}, got shape {tuple(rows.shape)}")
        for chunk in rows.split(_CHUNK) if len(rows) else ():
            wide = chunk.double()
            mean = wide.mean(0)
            centred = wide - mean
            self._combine(chunk.shape[0], mean, centred.t() @ centred)

    def merge(self, other: StreamingCovariance) -> None:
        """Add what another one has seen."""
        self._combine(other.n, other.mean, other.scatter)

    def copy(self) -> StreamingCovariance:
        """Another one that has seen the same rows."""
        other = StreamingCovariance(self.dim, self.mean.device)
        other.merge(self)
        return other

    def all_reduce(self) -> None:
        """Merge the samples of all ranks into every rank, in rank order, so that all get the same bits."""
        if world_size() == 1:
            return
        packed = torch.cat([self.mean.new_tensor([self.n]), self.mean, self.scatter.flatten()])
        parts = [torch.empty_like(packed) for _ in range(world_size())]
        torch.distributed.all_gather(parts, packed)
        self.n, d = 0, self.dim
        self.mean, self.scatter = torch.zeros_like(self.mean), torch.zeros_like(self.scatter)
        for part in parts:
            self._combine(int(part[0]), part[1 : d + 1], part[d + 1 :].view(d, d))

    def singular_values(self, *, centred: bool) -> Tensor:
        """Singular values [d], descending, of the N × d matrix of all rows, centred or not."""
        gram = self.scatter if centred else self.scatter + self.n * torch.outer(self.mean, self.mean)
        return from_gram(gram)

    def _combine(self, n: int, mean: Tensor, scatter: Tensor) -> None:
        if n == 0:
            return
        total = self.n + n
        delta = mean - self.mean
        self.scatter.add_(scatter).addr_(delta, delta, alpha=self.n * n / total)
        self.mean.add_(delta, alpha=n / total)
        self.n = total
