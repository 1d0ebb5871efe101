"""Singular values of many matrices at once: a batch for each size, and one copy to the host for all of them.

A GPU takes nearly as long for the eigenvalues of one small matrix as for those of twenty, and every number that is
asked of it by itself makes the host wait. So what is measured is listed first, as Gram matrices to be made, and
computed together. There are three routes, with one result up to rounding:

``host``: eigenvalues in float64 on the host's threads, a matrix each. The usual one for a CPU. Grams of another device
are copied to the host together.

``double``: eigenvalues in float64 on the matrices' device, a batch a size.

``single``: the same in float32, and again in float64 for what float32 does not settle. The usual one for a GPU.

What float32 does. The computed eigenvalues are those of G + E with ‖E‖ ≤ τ‖G‖, so |λ̂ − λ| ≤ δ = τ λ₁ for each
(Weyl), and |σ̂ − σ| = |λ̂ − λ| / (σ̂ + σ) ≤ min(δ / σ̂, √δ). Singular values under √τ σ₁ are therefore lost, which is
0.0033 σ₁ for 512 dimensions, and those a little above are coarse. That moves the numerical rank, whose tolerance is
0.001, a condition number, and effective rank and RankMe, where many small values add up. Participation ratio and stable
rank are of λ and hardly notice. A spectrum is settled in float32 if no λ is within δ of the numerical rank's border,
and if the effective rank cannot move by more than ``TOLERANCE`` of itself: to first order its logarithm, the entropy H
of p = σ/Σσ, moves by at most Σ |δσᵢ| |log pᵢ + H| / Σσ.

Sources: Weyl 1912 for eigenvalues; Golub & Van Loan 2013, section 8.1, for the solver's backward error.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sslcollapse.core.memory import map_on_threads, to_host
from sslcollapse.rank.spectrum import NUMERICAL_RANK_RTOL, NotFiniteError, from_gram, gram_of, without_noise

CPU = torch.device("cpu")

Route = Literal["host", "double", "single"]
ROUTES: tuple[Route, ...] = ("host", "double", "single")

TOLERANCE = 1e-3
"""Share by which an effective rank may be uncertain in float32, by a bound that real errors stay far below."""

_BUDGET = 2**29
"""Bytes of Grams that wait to be computed together; of more, the eigenvalues are computed in several parts."""

_THREADS = 8
"""At most this many matrices are made at once on the host, since each takes a few of the size of its Gram."""


class Gram(NamedTuple):
    """BᴴB [k, k] in float64 or complex128, of a matrix A = scale · B with ``size`` singular values, k or more."""

    matrix: Tensor
    scale: Tensor | None
    size: int

    @classmethod
    def of(cls, matrix: Tensor) -> Gram:
        """The smaller of a matrix's two."""
        return cls(*gram_of(matrix), min(matrix.shape))


Make = Callable[[], Sequence[Gram]]
"""Makes Grams; may be called twice, and gives the same ones again."""


def usual_route(device: torch.device) -> Route:
    """``host`` for matrices on a CPU, ``single`` for those of a GPU."""
    return "host" if device.type == "cpu" else "single"


@torch.no_grad()
def spectra(
    makes: Sequence[Make], route: Route, *, device: torch.device = CPU, ordered: bool = False
) -> list[list[Tensor]]:
    """Singular values in float64 on the host, descending, of every Gram that is made; NaN where one is not finite.

    Args:
        makes: each called once, on a thread of its own on the ``host`` route; twice where float32 does not settle it.
        route: see above.
        device: of the Grams.
        ordered: whether all is made once, in order, in the thread that calls, and in float64: where ranks gather shards
            for it, and where what is found moves a training.

    Raises:
        ValueError: for another route.
    """
    if route not in ROUTES:
        raise ValueError(f"route must be one of {', '.join(map(repr, ROUTES))}, got {route!r}")
    if route == "host":
        if device.type != "cpu":
            return _copied(makes)
        if ordered or torch.get_num_threads() == 1:
            return [_on_host(make) for make in makes]
        return map_on_threads(_on_host, makes, _THREADS)
    single = route == "single" and not ordered
    found = _batched(dict(enumerate(makes)), single=single)
    if single:
        open_ = {index: makes[index] for index, values in found.items() if not all(settled for _, settled in values)}
        found |= _batched(open_, single=False)
    return [[sigma for sigma, _ in found[index]] for index in range(len(makes))]


@torch.no_grad()  # which is for the thread that calls
def _on_host(make: Make) -> list[Tensor]:
    found = []
    for gram in make():
        try:
            sigma = from_gram(gram.matrix.cpu())
        except NotFiniteError:
            sigma = torch.full((gram.size,), torch.nan, dtype=torch.float64)
        found.append(_filled(sigma if gram.scale is None else sigma * gram.scale.cpu(), gram.size))
    return found


def _copied(makes: Sequence[Make]) -> list[list[Tensor]]:
    """As ``_on_host`` of Grams on a device, which are copied to the host together."""
    found: list[list[Tensor]] = []
    made: list[Sequence[Gram]] = []
    for number, make in enumerate(makes, 1):
        made.append(make())
        size = sum(gram.matrix.numel() * gram.matrix.element_size() for grams in made for gram in grams)
        if size > _BUDGET or number == len(makes):
            here = _all_to_host(made)
            found += map_on_threads(_on_host, [lambda grams=grams: grams for grams in here], _THREADS)
            made.clear()
    return found


def _all_to_host(made: Sequence[Sequence[Gram]]) -> list[list[Gram]]:
    """The same Grams on the host, in one copy."""
    grams = [gram for each in made for gram in each]
    if not grams:
        return [[] for _ in made]
    device, values = grams[0].matrix.device, []
    for gram in grams:
        matrix = torch.view_as_real(gram.matrix) if gram.matrix.is_complex() else gram.matrix
        scale = matrix.new_ones(1) if gram.scale is None else gram.scale.view(1)
        values += [matrix.flatten().to(device), scale.to(device, matrix.dtype)]
    parts = iter(to_host(torch.cat(values)).split([len(value) for value in values]))
    found = []
    for gram in grams:
        flat, scale = next(parts), next(parts)
        matrix = torch.view_as_complex(flat.view(-1, 2).clone()) if gram.matrix.is_complex() else flat
        found.append(Gram(matrix.view(gram.matrix.shape), scale[0], gram.size))
    rest = iter(found)
    return [[next(rest) for _ in each] for each in made]


def _filled(sigma: Tensor, size: int) -> Tensor:
    """So many singular values, the last ones zero."""
    return torch.nn.functional.pad(sigma, (0, size - len(sigma)))


def _batched(makes: Mapping[int, Make], *, single: bool) -> dict[int, list[tuple[Tensor, bool]]]:
    """Number of the maker → singular values of each of its Grams, and whether they are settled."""
    batches = _Batches(single)
    for index, make in makes.items():
        for gram in make():
            batches.add(index, gram)
    found: dict[int, list[tuple[Tensor, bool]]] = {index: [] for index in makes}
    for _, index, sigma, settled in sorted(batches.finish(), key=lambda row: row[0]):
        found[index].append((sigma, settled))
    return found


class _Row(NamedTuple):
    """What became of one Gram."""

    number: int
    maker: int
    sigma: Tensor
    settled: bool


class _Batches:
    """Grams that wait for others of their size, and eigenvalues that wait to be copied to the host."""

    def __init__(self, single: bool) -> None:
        self._single = single
        self._waiting: dict[tuple[int, torch.device, torch.dtype], list[tuple[int, int, Gram]]] = defaultdict(list)
        self._bytes = self._count = 0
        self._solved: list[Tensor] = []  # [b, k + 2]
        self._places: list[tuple[int, int, int]] = []  # number, maker and size of each of their rows

    def add(self, maker: int, gram: Gram) -> None:
        matrix = gram.matrix
        self._waiting[len(matrix), matrix.device, matrix.dtype].append((self._count, maker, gram))
        self._count += 1
        self._bytes += matrix.numel() * matrix.element_size()
        if self._bytes > _BUDGET:
            self._solve()

    def finish(self) -> list[_Row]:
        self._solve()
        if not self._solved:
            return []
        device = self._solved[0].device
        flat = to_host(torch.cat([values.to(device).flatten() for values in self._solved]))
        parts = flat.split([values.numel() for values in self._solved])
        places, rows = iter(self._places), []
        for part, values in zip(parts, self._solved, strict=True):
            table = part.view(values.shape)
            energy, top, scale = table[:, :-2].flip(1), table[:, -2:-1], table[:, -1:]
            settled = settled_in_float32(energy) if self._single else torch.ones(len(table), dtype=torch.bool)
            if not self._single:
                energy = without_noise(energy)
            sigma = (energy.clamp(min=0.0) * top).sqrt() * scale
            for one, sure in zip(sigma, settled.tolist(), strict=True):
                number, maker, size = next(places)
                rows.append(_Row(number, maker, _filled(one, size), sure))
        return rows

    def _solve(self) -> None:
        for group in self._waiting.values():
            self._solved.append(_eigenvalues([gram for _, _, gram in group], self._single))
            self._places += [(number, maker, gram.size) for number, maker, gram in group]
        self._waiting.clear()
        self._bytes = 0


def _eigenvalues(grams: Sequence[Gram], single: bool) -> Tensor:
    """[b, k + 2] in float64, on the device: eigenvalues, ascending, by the largest entry; that entry; the scale.

    What is not finite has NaN for its largest entry, and eigenvalues of something else, so that the solver has nothing
    to refuse.
    """
    stack = torch.stack([gram.matrix for gram in grams])  # [b, k, k]
    one = torch.ones((), dtype=torch.float64, device=stack.device)
    scale = torch.stack([one if gram.scale is None else gram.scale.to(one) for gram in grams])
    if not stack.shape[1]:
        return torch.stack([one.expand_as(scale), scale], dim=1)
    top = stack.diagonal(dim1=1, dim2=2).real.amax(1)  # no entry of a Gram is larger
    top = torch.where(torch.isfinite(stack).flatten(1).all(1), top, torch.nan)
    usable = (top > 0)[:, None, None]
    stack = torch.where(usable, stack / torch.where(top > 0, top, 1.0)[:, None, None], 0.0)
    if single:
        stack = stack.to(torch.complex64 if stack.is_complex() else torch.float32)
    try:
        energy = torch.linalg.eigvalsh(stack).to(torch.float64)
    except torch.linalg.LinAlgError:
        if not single:
            raise
        energy = stack.new_full(stack.shape[:2], torch.nan, dtype=torch.float64)  # float64 is asked then
    return torch.cat([energy, top[:, None], scale[:, None]], dim=1)


def rounding(size: int) -> float:
    """τ: computed eigenvalues of a [k, k] Gram in float32 are within τ λ₁ of its own.

    4 √k ε. Rounding errors add up like a random walk; what is proved is a multiple of k, which nobody has seen.
    """
    return 4 * math.sqrt(size) * torch.finfo(torch.float32).eps


def entropy_bound(energy: Tensor) -> Tensor:
    """At most so far is log(effective rank) off if λ are off by τ λ₁: λ [b, k], descending → [b]."""
    energy = energy.clamp(min=0.0)
    delta = rounding(energy.shape[1]) * energy[:, :1]
    sigma = energy.sqrt()
    off = torch.minimum(delta / sigma, delta.sqrt())  # of 0 / 0 the minimum is NaN, as of a matrix of zeros
    total = sigma.sum(1, keepdim=True)
    share = sigma / total
    entropy = torch.special.entr(share).sum(1, keepdim=True)
    # log p goes to -inf where p does; there p can be no larger than what it may be off by.
    slope = (torch.maximum(share, off / total).log() + entropy).abs()
    return (off * slope).sum(1) / total[:, 0]


def settled_in_float32(energy: Tensor) -> Tensor:
    """Which spectra need no float64: λ [b, k] of a float32 solver, descending → [b].

    A matrix of zeros is settled. NaN is not, which a solver gives where entries underflow.
    """
    if not energy.shape[1]:
        return torch.ones(len(energy), dtype=torch.bool)
    largest = energy[:, :1]
    border, delta = NUMERICAL_RANK_RTOL**2 * largest, rounding(energy.shape[1]) * largest
    counted = ((energy - border).abs() > delta).all(1)
    return (counted & (entropy_bound(energy) <= TOLERANCE)) | (largest[:, 0] <= 0)
