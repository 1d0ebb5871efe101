"""Constant sparse matrices times dense ones, forward and backward as CSR products; a quiet PyTorch Geometric."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.errors import RunError
from sslcollapse.core.memory import onto
from sslcollapse.core.precision import full_precision

MOST = 2**31 - 1
"""Rows, columns and non-zeros of a matrix."""

AT_A_TIME = 1 << 26
"""Products of non-zeros that a deterministic sum has in memory at once."""


def stable_order(keys: Tensor, below: int) -> tuple[Tensor, Tensor]:
    """The permutation that sorts whole numbers [n], equal ones in the order in which they are, and them sorted.

    On a host a number and its place are sorted as one number, where 63 bits hold both: NumPy sorts these with vector
    instructions, in a third of the time of a stable sort.

    Args:
        keys: from 0 on.
        below: a number that is above all of them.
    """
    bits = max(1, len(keys) - 1).bit_length()
    if keys.device.type != "cpu" or bits + below.bit_length() > 63:
        order = torch.argsort(keys, stable=True)
        return order, keys[order]
    packed = (keys.long() << bits).bitwise_or_(torch.arange(len(keys)))
    packed.numpy().sort()
    return packed & ((1 << bits) - 1), packed >> bits


@dataclass(frozen=True)
class Pattern:
    """Where the non-zeros of a [rows, columns] matrix are, sorted by row, then by column.

    Shapes:
        row, col: [nnz] int64.
        order: [nnz] position of each non-zero in the list the pattern was made from.
    """

    row: Tensor
    col: Tensor
    order: Tensor
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        if max(len(self.row), *self.shape) > MOST:
            raise RunError(
                f"a sparse matrix of {self.shape[0]:,} x {self.shape[1]:,} with {len(self.row):,} non-zeros: products "
                f"count in 32 bits, so {MOST:,} are the most; train a graph of this size with domain.batching of type "
                "'neighbours'"
            )

    @staticmethod
    def from_indices(row: Tensor, col: Tensor, shape: tuple[int, int]) -> Pattern:
        """Sort index pairs [nnz] into a pattern; duplicates stay and add up in products."""
        order, _ = stable_order(row * shape[1] + col, shape[0] * shape[1])
        return Pattern(row[order], col[order], order, shape)

    @cached_property
    def row_pointers(self) -> Tensor:
        """[rows + 1] int32, as CSR has them."""
        return _pointers(self.row, self.shape[0])

    @cached_property
    def columns(self) -> Tensor:
        """[nnz] int32 columns: the width the CPU's sparse library takes without a conversion."""
        return self.col.int()

    @cached_property
    def transposition(self) -> Tensor:
        """[nnz] permutation that sorts the non-zeros by column, then by row."""
        return stable_order(self.col * self.shape[0] + self.row, self.shape[0] * self.shape[1])[0]

    @cached_property
    def _transposed_indices(self) -> tuple[Tensor, Tensor]:
        order = self.transposition
        return _pointers(self.col[order], self.shape[1]), self.row[order].int()

    def matrix(self, values: Tensor) -> Tensor:
        """The torch CSR tensor with these values [nnz]."""
        return _csr(self.row_pointers, self.columns, values, self.shape)

    def transposed(self, values: Tensor) -> Tensor:
        """The torch CSR tensor of the transpose, from values [nnz] in this pattern's order."""
        pointers, columns = self._transposed_indices
        return _csr(pointers, columns, values[self.transposition], (self.shape[1], self.shape[0]))

    def row_sums(self, values: Tensor) -> Tensor:
        """Sum of the values [nnz] in each row; exact, so deterministic, for small integers."""
        return values.new_zeros(self.shape[0]).index_add_(0, self.row, values)

    def to(self, device: torch.device) -> Pattern:
        """The same pattern on another device."""
        return Pattern(onto(device, self.row), onto(device, self.col), onto(device, self.order), self.shape)


class SparseMatrix:
    """A constant [M, K] matrix: ``matrix @ dense`` is [M, D] and sends gradient to ``dense`` only.

    The transpose, needed for the backward pass, is made on first use: a target network never needs it.

    Attributes:
        before_weights: whether x is multiplied by it first, and by a weight then, whichever of the two is narrower: it
            has few of the rows of a graph, and reads many.
    """

    before_weights = False

    def __init__(self, pattern: Pattern, values: Tensor) -> None:
        self.pattern = pattern
        self.values = values

    @property
    def shape(self) -> tuple[int, int]:
        """(M, K)."""
        return self.pattern.shape

    @cached_property
    def forward_matrix(self) -> Tensor:
        """The matrix as torch CSR."""
        return self.pattern.matrix(self.values)

    @cached_property
    def backward_matrix(self) -> Tensor:
        """The transpose as torch CSR."""
        return self.pattern.transposed(self.values)

    def __matmul__(self, dense: Tensor) -> Tensor:
        return _Product.apply(dense, self)

    def scale_columns(self, scale: Tensor) -> SparseMatrix:
        """The matrix with column k multiplied by ``scale[k]`` ([K])."""
        return SparseMatrix(self.pattern, self.values * scale[self.pattern.col])

    def corner(self, rows: int, columns: int) -> SparseMatrix:
        """The first rows, which have no non-zero beyond the first columns: [rows, columns]."""
        pattern, count = self.pattern, int(self.pattern.row_pointers[rows])
        within = Pattern(pattern.row[:count], pattern.col[:count], pattern.order[:count], (rows, columns))
        return SparseMatrix(within, self.values[:count])

    def rows(self, index: Tensor) -> SparseMatrix:
        """Rows [n] in the order of an index, any of them as often as it is there: [n, K]."""
        pattern = self.pattern
        starts = pattern.row_pointers[index].long()
        counts = pattern.row_pointers[index + 1].long() - starts
        row = torch.repeat_interleave(torch.arange(len(index), device=index.device), counts)
        place = torch.arange(len(row), device=index.device)
        entry = place + (starts - counts.cumsum(0) + counts)[row]
        return SparseMatrix(Pattern(row, pattern.col[entry], place, (len(index), self.shape[1])), self.values[entry])

    def dense(self) -> Tensor:
        """The dense [M, K] matrix."""
        return self.forward_matrix.to_dense()

    def to(self, device: torch.device) -> SparseMatrix:
        """The same matrix on another device."""
        if self.values.device == device:
            return self
        return SparseMatrix(self.pattern.to(device), onto(device, self.values))

    @staticmethod
    def from_csr(matrix: Tensor) -> SparseMatrix:
        """Wrap a torch CSR tensor whose columns are sorted within each row."""
        pointers, col = matrix.crow_indices(), matrix.col_indices().long()
        rows = torch.arange(matrix.shape[0], device=col.device)
        row = torch.repeat_interleave(rows, (pointers[1:] - pointers[:-1]).long())
        order = torch.arange(col.numel(), device=col.device)
        return SparseMatrix(Pattern(row, col, order, (matrix.shape[0], matrix.shape[1])), matrix.values())


class _Product(torch.autograd.Function):
    """A @ X, with gradient Aᵀ G for X and none for the constant A."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: SparseMatrix) -> Tensor:
        ctx.matrix = matrix
        ctx.dtype = dense.dtype
        return _multiply(matrix.forward_matrix, dense)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _multiply(ctx.matrix.backward_matrix, grad).to(ctx.dtype), None


def weighted_sum(pattern: Pattern, values: Tensor, dense: Tensor) -> Tensor:
    """The matrix with these values, one a head, times ``dense``; gradients go to both.

    Shapes:
        values: [nnz, H].
        dense: [K, H, D].
        result: [M, H, D].
    """
    return _WeightedSum.apply(values, dense, pattern)


class _WeightedSum(torch.autograd.Function):
    """A(v) @ X a head: gradient A(v)ᵀ G for X, and for each value the product of its row of G with its row of X."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, dense: Tensor, pattern: Pattern) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(values, dense)
        heads = zip(values.t(), dense.unbind(1), strict=True)
        return torch.stack([_multiply(pattern.matrix(v.contiguous()), x) for v, x in heads], dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,), (values, dense), pattern = grads, ctx.saved_tensors, ctx.pattern
        of_dense, of_values = [], []
        for v, x, g in zip(values.t(), dense.unbind(1), grad.unbind(1), strict=True):
            of_dense.append(_multiply(pattern.transposed(v.contiguous()), g).to(dense.dtype))
            of_values.append(torch.linalg.vecdot(g[pattern.row], x[pattern.col]))
        return torch.stack(of_values, dim=1).to(values.dtype), torch.stack(of_dense, dim=1), None


def _multiply(matrix: Tensor, dense: Tensor) -> Tensor:
    # Autocast would turn the sparse factor to half precision, which CSR kernels do not take everywhere.
    with full_precision(dense.device):
        dense = dense.to(matrix.dtype).contiguous()
        if dense.device.type == "cpu" and not torch.backends.mkl.is_available():
            return torch.sparse.mm(matrix, dense, "sum")
        if dense.device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
            return summed_in_order(matrix, dense)
        # In place into an uninitialised output: ``matrix @ dense`` fills one with zeros first, ``addmm(out=)`` copies.
        return dense.new_empty(matrix.shape[0], dense.shape[1]).addmm_(matrix, dense, beta=0.0)


def summed_in_order(matrix: Tensor, dense: Tensor) -> Tensor:
    """``matrix @ dense`` with every sum in the order of the non-zeros of its row, so with the same bits each time.

    cuSPARSE's product on a GPU does not promise that. This one makes [nnz, columns at a time] products first.

    Shapes: CSR [M, K], [K, D] → [M, D].
    """
    pointers, columns, values = matrix.crow_indices().long(), matrix.col_indices(), matrix.values()
    width = max(1, AT_A_TIME // max(1, values.numel()))
    sums = [
        torch.segment_reduce(values[:, None] * part[columns], "sum", offsets=pointers, axis=0, initial=0, unsafe=True)
        for part in dense.split(width, dim=1)
    ]
    return torch.cat(sums, dim=1)


def _pointers(sorted_index: Tensor, size: int) -> Tensor:
    # By searching, since counting makes the host wait for a device to know how many counts there are.
    starts = torch.arange(size + 1, device=sorted_index.device)
    return torch.searchsorted(sorted_index, starts, out_int32=True)


def _csr(pointers: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    if values.device.type == "cpu":
        pointers, columns, values = _without_zeros(pointers, columns, values)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(pointers, columns, values, shape, check_invariants=False)


def _without_zeros(pointers: Tensor, columns: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The CSR arrays without explicit zeros, or as they are where leaving out under a third would not pay."""
    stays = values != 0
    if 3 * int(stays.count_nonzero()) > 2 * values.numel():
        return pointers, columns, values
    kept = stays.nonzero().flatten()
    before = torch.cat([pointers.new_zeros(1), stays.cumsum(0, dtype=torch.int32)])
    return before[pointers], columns[kept], values[kept]


def import_geometric(name: str = "") -> Any:
    """``torch_geometric``, or the module of it with this dotted name.

    Importing it the first time compiles functions with ``torch.jit.script``, which recent torch warns about.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.* is deprecated")
        return importlib.import_module(f"torch_geometric.{name}" if name else "torch_geometric")
