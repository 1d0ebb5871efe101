"""What a domain has to keep."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.registry import DOMAINS
from sslcollapse.core.types import Batch, Context, ProbeSet
from sslcollapse.probes.splits import check_split
from sslcollapse.testing.contract import ensure, same
from sslcollapse.training.build import checked_batches

MOST_BATCHES = 300
"""Batches that are drawn, at most, to see whether a domain goes on after an epoch."""


def check_domain(domain: Any) -> None:
    """A domain that has not been loaded: its attributes, batches on one and two ranks, probe set and measurable rows.

    Raises:
        ContractError: what is wrong.
        MissingDataError, DataError: its data cannot be read.
    """
    name = type(domain).__name__
    DOMAINS.check(domain, name)
    ensure(isinstance(domain.kind, str) and bool(domain.kind), f"{name}.kind must be a word, got {domain.kind!r}")
    shape = domain.in_shape
    ensure(
        isinstance(shape, tuple) and bool(shape) and all(isinstance(size, int) and size > 0 for size in shape),
        f"{name}.in_shape must be a tuple of whole numbers >= 1, got {shape!r}",
    )
    line = domain.describe()
    one = isinstance(line, str) and bool(line.strip()) and "\n" not in line
    ensure(one, f"{name}.describe() must be one line of text, got {line!r}")
    domain.check(1)
    domain.load()

    def draw(count: int, start: int = 0, **context: Any) -> list[Batch]:
        stream = checked_batches(domain, start, Context(**context))
        try:
            return list(islice(stream, count))
        finally:
            stream.close()

    torch.manual_seed(0)
    first, _, third = draw(3, seed=1)
    torch.manual_seed(1)
    (again,) = draw(1, 2, seed=1)
    ensure(
        same(third, again),
        f"{name}.batches(2, context) does not begin with the third batch of batches(0, context): batch k may depend on "
        "its number and on the context only, not on batches before it or on torch's global random state",
    )
    moves = not same(first.views, third.views)
    ensure(moves, f"the views of {name} are the same in batch 0 and in batch 2; draw them from (seed, step, rank)")
    (other,) = draw(1, seed=2)
    ensure(not same(first.views, other.views), f"the views of {name} are the same for two seeds of the context")
    _check_ranks(domain, name, len(first.index), draw)
    probe_set = domain.probe_set()
    draw(3 if domain.replicated else min(len(probe_set.labels) // len(first.index) + 2, MOST_BATCHES))
    _check_probe_set(name, probe_set)
    rows = [domain.measurable(view) for view in first.views]
    ensure(
        all(each is None for each in rows) or all(isinstance(each, Tensor) and each.dim() == 2 for each in rows),
        f"{name}.measurable(view) must be rows [N, d] of every view, or None of every view",
    )
    ensure(
        len({None if each is None else len(each) for each in rows}) == 1,
        f"{name}.measurable() gives two views of the same samples another number of rows",
    )
    for near in map(domain.neighbours, first.views):
        ensure(
            near is None or (near.edges.shape[0] == 2 and bool(((near.edges >= 0) & (near.edges < near.nodes)).all())),
            f"{name}.neighbours(view) must be None or have edges [2, E] between rows 0 to nodes - 1",
        )


def _check_ranks(domain: Any, name: str, size: int, draw: Callable[..., list[Batch]]) -> None:
    try:
        domain.check(2)
    except RecipeError:
        return
    pair = [draw(1, seed=1, rank=rank, world_size=2)[0] for rank in range(2)]
    indices = [set(batch.index.tolist()) for batch in pair]
    if domain.replicated:
        ensure(indices[0] == indices[1], f"{name}.replicated is True, and two ranks have other samples")
    else:
        ensure(not indices[0] & indices[1], f"two ranks of {name} have the same samples; share a batch over ranks")
        together = sum(len(batch.index) for batch in pair)
        ensure(together == size, f"two ranks of {name} have {together} samples a step together, and one rank {size}")
    same_size = len(pair[0].index) == len(pair[1].index)
    ensure(same_size or not any(batch.equal for batch in pair), f"Batch.equal of {name} is True, and ranks differ")
    ensure(not same(pair[0].views, pair[1].views), f"two ranks of {name} have the same views")


def _check_probe_set(name: str, probe_set: Any) -> None:
    ensure(isinstance(probe_set, ProbeSet), f"{name}.probe_set() must be a sslcollapse.ProbeSet")
    labels = probe_set.labels
    ensure(isinstance(labels, Tensor) and labels.dim() in (1, 2), f"{name}: labels of a probe set are [N] or [N, C]")
    ensure(len(probe_set.views) > 0, f"{name}: its probe set has no views")
    most = labels.shape[1] if labels.dim() == 2 else int(labels.max()) + 1
    ensure(probe_set.num_classes >= most, f"{name}: num_classes is {probe_set.num_classes}, labels need {most}")
    for split in (split for several in probe_set.splits.values() for split in several):
        check_split(split, len(labels))
