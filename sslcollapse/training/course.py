"""The course of a run over its steps: ranks of the features wherever they are measured, and accuracy beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from sslcollapse.core.types import LazyViews, ProbeSet, Split, renumbered, rows_of
from sslcollapse.probes.base import SplitProbe, scaled
from sslcollapse.rank.measure import FEATURES

PENALTIES = tuple(10.0**-k for k in range(7))
"""Ridge penalties that validation chooses from, in units of the largest eigenvalue of the Gram matrix."""

TILE = 2**25
"""Numbers of rows that are classified at once, for memory only."""

CLASSIFIER = "ridge"
RANKS = ("effective_rank", "effective_rank_centred")
SCORES = ("test_accuracy", "validation_accuracy")
OF_LAYERS = ("overlap", "dirichlet_ratio", "mad")
"""What is followed of each layer, where ``monitor`` asked for it."""


@dataclass(frozen=True)
class CourseProbe:
    """A linear classifier in closed form, fitted to frozen representations while an encoder learns.

    Least squares on rows of length 1, less their mean over the training part, with a ridge penalty that is chosen on
    the validation part; of equals the largest. It takes milliseconds where a probe's logistic regression takes longer,
    so that it can be fitted at every measurement. It does not replace the probes, whose numbers are those of tables.

    Args:
        name: of the recipe's probe whose first split is used.
        split: that split.
        labels: [N] classes.
        num_classes: C.
        rows: of the probe set, whose representations it is given [R]; None for all. Split and labels are of those.
    """

    name: str
    split: Split
    labels: Tensor
    num_classes: int
    rows: Tensor | None = None

    @classmethod
    def of(cls, probes: Mapping[str, Any], probe_set: ProbeSet, asked: bool | None) -> CourseProbe | None:
        """That of the first probe which works split by split; None where there is none, or it is not wanted.

        Args:
            probes: name → probe of the recipe.
            probe_set: with its inputs.
            asked: ``monitor.probe``: None asks for it where all inputs are at hand.
        """
        wanted = not isinstance(probe_set.views, LazyViews) if asked is None else asked
        name = next((name for name, probe in probes.items() if isinstance(probe, SplitProbe)), None)
        if not wanted or name is None or probe_set.multilabel:
            return None
        split, labels = probes[name].splits.of(probe_set)[0], probe_set.labels
        rows = rows_of([split], len(labels)) if probe_set.partwise else None
        if rows is not None:
            split, labels = renumbered(split, rows), labels[rows]
        return cls(name, split, labels, probe_set.num_classes, rows)

    @torch.no_grad()
    def __call__(self, h: Tensor) -> dict[str, float]:
        """Test and validation accuracy of representations [N, d]."""
        chosen = (self.split.train, self.split.validation, self.split.test)
        parts = [torch.tensor(np.asarray(part), device=h.device) for part in chosen]
        x, labels = _unit(h[parts[0]]), self.labels.to(h.device)
        mean, targets = x.mean(0), one_hot(labels[parts[0]], self.num_classes).double()
        x, offset = x - mean, targets.mean(0)
        targets = targets - offset  # [n, C]
        dual = len(x) < x.shape[1]  # the solution is a combination of the n rows
        values, axes = torch.linalg.eigh(x @ x.t() if dual else x.t() @ x)
        right = axes.t() @ (targets if dual else x.t() @ targets)
        weights = [
            right / (values.clamp(min=0) + penalty * values[-1].clamp(min=1e-30))[:, None] for penalty in PENALTIES
        ]
        hits = torch.zeros(2, len(weights), dtype=torch.int64)
        for which, part in enumerate(parts[1:]):
            for some in part.split(max(1, TILE // h.shape[1])):
                seen = _unit(h[some]) - mean
                projected = (seen @ x.t() if dual else seen) @ axes
                found = [((projected @ weight + offset).argmax(1) == labels[some]).sum() for weight in weights]
                hits[which] += torch.stack(found).cpu()
        best = {"validation_accuracy": -1.0}
        shares = [hits[which].double() / max(len(part), 1) for which, part in enumerate(parts[1:])]
        for validation, test in zip(*(share.tolist() for share in shares), strict=True):
            if validation > best["validation_accuracy"]:
                best = {"test_accuracy": test, "validation_accuracy": validation}
        return best


def _unit(h: Tensor) -> Tensor:
    """Rows of length 1, float64."""
    return normalize(scaled(h.double(), 1))


def course_of(records: Iterable[Mapping[str, Any]], probe: str | None) -> dict[str, Any]:
    """The course as ``result.json`` has it, from the lines of ``metrics.jsonl``; empty where nothing was measured.

    ``step``: the measured steps; ``representation``, ``embedding`` and ``prediction``: → effective rank un-centred and
    centred, one entry a step; ``test_accuracy`` and ``validation_accuracy``, and which ``classifier`` they are of;
    ``layers``: name → the overlap of its weight with that of the layer before, and the smoothness of its output.

    Args:
        records: of ``metrics.jsonl``.
        probe: name of the recipe's probe whose first split was used; None where accuracy was not measured.
    """
    measured = [record for record in records if f"rank/{FEATURES[0]}/{RANKS[0]}" in record]
    if not measured:
        return {}
    made: dict[str, Any] = {"step": [record["step"] for record in measured]}
    scores = {name: [record.get(f"probe/{name}") for record in measured] for name in SCORES}
    if any(value is not None for values in scores.values() for value in values):
        made |= {**scores, "classifier": CLASSIFIER, "split": f"the first of {probe!r}"}
    for feature in FEATURES:
        ranks = {rank: [record.get(f"rank/{feature}/{rank}") for record in measured] for rank in RANKS}
        if any(value is not None for value in ranks[RANKS[0]]):
            made[feature] = ranks
    layers: dict[str, dict[str, Any]] = {}
    for key in dict.fromkeys(key for record in measured for key in record):
        kind, _, rest = key.partition("/layers/")
        name, _, measure = rest.rpartition("/")
        if kind == "rank" and measure in OF_LAYERS:
            values = [record.get(key) for record in measured]
            layers.setdefault(name.rpartition("/")[0], {})[measure] = values
    return {**made, "layers": layers} if layers else made
