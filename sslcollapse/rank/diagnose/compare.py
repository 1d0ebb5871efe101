"""Two networks layer by layer: the rank of both and of what lies between, and how their top directions have turned."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sslcollapse.rank.diagnose.diagnosis import Diagnosis
from sslcollapse.rank.diagnose.matrices import Matrix, StoredMatrices, kind_of_layer
from sslcollapse.rank.diagnose.networks import Target
from sslcollapse.rank.diagnose.state_dict import TargetError
from sslcollapse.rank.spectrum import (
    effective_rank_from_singular_values,
    finite,
    gram_of,
    singular_values,
    stable_rank_from_singular_values,
    widest,
    without_noise,
)

TOP = 10
"""So many of the largest directions are compared."""

INTRUDES_BELOW = 0.5
"""A top direction of the tuned weight is an intruder where its cosine with every direction of the base is smaller."""

UNCHANGED = 1e-12
"""A smaller relative change is rounding."""


@dataclass(frozen=True)
class Change:
    """What has become of one weight A, now B.

    Attributes:
        layer: name in the tuned network.
        kind: attention, MLP, experts, ...
        shape: [out, in].
        change: ‖B − A‖_F / ‖A‖_F.
        rank_before, rank_after, rank_of_change: effective rank of A, of B and of B − A.
        stable_before, stable_after, stable_of_change: stable rank of the same.
        intruders: how many of the top directions of B are like none of A (Shuttleworth et al. 2024).
        angles: principal angles in degrees between the top subspaces of A and B, the smallest first.
        sigma_before, sigma_after, sigma_of_change: singular values.
    """

    layer: str
    kind: str
    shape: tuple[int, int]
    change: float
    rank_before: float
    rank_after: float
    rank_of_change: float
    stable_before: float
    stable_after: float
    stable_of_change: float
    intruders: int
    angles: tuple[float, ...]
    sigma_before: Tensor
    sigma_after: Tensor
    sigma_of_change: Tensor

    @property
    def largest_angle(self) -> float:
        """In degrees; 90 where a top direction of A is gone from those of B."""
        return max(self.angles, default=0.0)


def add_changes(diagnosis: Diagnosis, target: Target, base: Target) -> Diagnosis:
    """The same diagnosis with what has changed against a base, the most changed layer first.

    Layers are matched by name, with what one of the two has before all names (``backbone.``) taken off. An adapter is
    matched with the weight that it changes.

    Raises:
        TargetError: no layer of the two has the same name and shape; names a few of both.
    """
    after, before = _lookup(target.matrices), _lookup(base.matrices)
    pairs = _paired(list(after), list(before))
    changes, unmatched = [], [f"{name}: only in {base.title}" for name in before if name not in pairs.values()]
    for name in after:
        if name not in pairs:
            unmatched.append(f"{name}: only in {target.title}")
            continue
        new, old = after[name](), before[pairs[name]]()
        if new.weight.shape != old.weight.shape:
            unmatched.append(f"{name}: {list(old.weight.shape)} became {list(new.weight.shape)}")
        elif bool(torch.isfinite(widest(new.weight)).all()) and bool(torch.isfinite(widest(old.weight)).all()):
            changes.append(change_of(name, old.weight, new.weight, adapter=bool(new.adapter)))
        else:
            unmatched.append(f"{name}: has entries that are NaN or infinite")
    if not changes:
        order = "; the base comes first, then the adapter" if next(iter(before.values()))().adapter else ""
        raise TargetError(
            f"{target.title} and {base.title} have no layer of one name and shape: {', '.join(list(after)[:3])} and "
            f"{', '.join(list(before)[:3])}" + order
        )
    changes.sort(key=lambda change: -change.change)
    return replace(diagnosis, changes=changes, unmatched=unmatched, against=base.title)


@torch.no_grad()
def change_of(name: str, before: Tensor, after: Tensor, *, adapter: bool = False) -> Change:
    """What lies between two weights.

    Args:
        name: of the layer.
        before: [out, in].
        after: [out, in]; of an adapter the change alone.
        adapter: whether ``after`` is that.
    """
    old, given = widest(before), widest(after)
    difference = given if adapter else given - old
    new = old + difference if adapter else given
    sigma_old, left_old = _directions(old)
    sigma_new, left_new = _directions(new)
    sigma_change = singular_values(difference)
    size = float(sigma_old.square().sum().sqrt())
    moved_by = float(sigma_change.square().sum().sqrt())
    change = moved_by / size if size else (math.inf if moved_by else 0.0)
    top = min(TOP, int((sigma_old > 0).sum()), int((sigma_new > 0).sum()))
    both = torch.promote_types(left_old.dtype, left_new.dtype)  # one of them may be complex
    left_old, left_new = left_old.to(both), left_new.to(both)[:, :top]
    has = left_old[:, : int((sigma_old > 0).sum())]  # what A maps to zero is no direction of it
    cosines = (has.mH @ left_new).abs()  # [k, top]
    straight = torch.linalg.svdvals(left_old[:, :top].mH @ left_new).clamp(max=1.0)
    moved = change > UNCHANGED
    return Change(
        layer=name,
        kind=kind_of_layer(name),
        shape=(before.shape[0], before.shape[1]),
        change=change if moved else 0.0,
        rank_before=effective_rank_from_singular_values(sigma_old),
        rank_after=effective_rank_from_singular_values(sigma_new),
        rank_of_change=effective_rank_from_singular_values(sigma_change) if moved else 0.0,
        stable_before=stable_rank_from_singular_values(sigma_old),
        stable_after=stable_rank_from_singular_values(sigma_new),
        stable_of_change=stable_rank_from_singular_values(sigma_change) if moved else 0.0,
        intruders=int((cosines.amax(0) < INTRUDES_BELOW).sum()) if moved and top else 0,
        angles=tuple(straight.acos().rad2deg().tolist()) if moved else (0.0,) * top,
        sigma_before=sigma_old,
        sigma_after=sigma_new,
        sigma_of_change=sigma_change,
    )


def _directions(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values, descending, and the singular vectors [d, d] of the smaller side."""
    gram, scale = gram_of(matrix)
    energy, vectors = torch.linalg.eigh(finite(gram))
    sigma = without_noise(energy.flip(0)).clamp(min=0.0).sqrt()
    return sigma if scale is None else sigma * scale, vectors.flip(1)


def _lookup(matrices: Collection[Matrix]) -> dict[str, Callable[[], Matrix]]:
    """Name → what gives that matrix."""
    if isinstance(matrices, StoredMatrices):
        return {name: _getter(matrices, name) for name in matrices.names()}
    return {matrix.name: _given(matrix) for matrix in matrices}


def _getter(matrices: StoredMatrices, name: str) -> Callable[[], Matrix]:
    return lambda: matrices.get(name)


def _given(matrix: Matrix) -> Callable[[], Matrix]:
    return lambda: matrix


def _paired(after: Sequence[str], before: Sequence[str]) -> dict[str, str]:
    """Name in the tuned network → name in the base."""
    bare = {name: name.partition(".lora")[0] if ".lora" in name else name for name in after}
    known = set(before)
    for off in _beginnings(list(bare.values())):
        for other in _beginnings(before):
            short = {name.removeprefix(other): name for name in before}
            found = {name: short[own.removeprefix(off)] for name, own in bare.items() if own.removeprefix(off) in short}
            if found and (set(found.values()) <= known):
                return found
    return {}


def _beginnings(names: Sequence[str]) -> list[str]:
    """Nothing; and the first words that all names share, ever more of them."""
    parts = [name.split(".")[:-1] for name in names]
    found = [""]
    for same in zip(*parts, strict=False):
        if len(set(same)) > 1:
            break
        found.append(f"{found[-1]}{same[0]}.")
    return found
