"""The course of a run over its steps: ranks of the features wherever they are measured, and accuracy beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from sslcollapse.core.types import LazyViews, ProbeSet, Split
from sslcollapse.probes.base import SplitProbe, scaled
from sslcollapse.rank.measure import FEATURES

PENALTIES = tuple(10.0**-k for k in range(7))
"""Ridge penalties that validation chooses from, in units of the largest eigenvalue of the Gram matrix."""

CLASSIFIER = "ridge"
RANKS = ("effective_rank", "effective_rank_centred")
SCORES = ("test_accuracy", "validation_accuracy")


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
    """

    name: str
    split: Split
    labels: Tensor
    num_classes: int

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
        return cls(name, probes[name].splits.of(probe_set)[0], probe_set.labels, probe_set.num_classes)

    @torch.no_grad()
    def __call__(self, h: Tensor) -> dict[str, float]:
        """Test and validation accuracy of representations [N, d]."""
        rows = normalize(scaled(h.double(), 1))
        chosen = (self.split.train, self.split.validation, self.split.test)
        parts = [torch.as_tensor(part, device=h.device) for part in chosen]
        x, labels = rows[parts[0]], self.labels.to(h.device)
        mean, targets = x.mean(0), one_hot(labels[parts[0]], self.num_classes).double()
        x, offset = x - mean, targets.mean(0)
        targets = targets - offset  # [n, C]
        dual = len(x) < x.shape[1]  # the solution is a combination of the n rows
        values, axes = torch.linalg.eigh(x @ x.t() if dual else x.t() @ x)
        right = axes.t() @ (targets if dual else x.t() @ targets)
        projected = [((rows[part] - mean) @ x.t() if dual else rows[part] - mean) @ axes for part in parts[1:]]
        known = [labels[part] for part in parts[1:]]
        best = {"validation_accuracy": -1.0}
        for penalty in PENALTIES:
            weight = right / (values.clamp(min=0) + penalty * values[-1].clamp(min=1e-30))[:, None]
            hits = [((seen @ weight + offset).argmax(1) == own) for seen, own in zip(projected, known, strict=True)]
            validation, test = (float(each.double().mean()) for each in hits)
            if validation > best["validation_accuracy"]:
                best = {"test_accuracy": test, "validation_accuracy": validation}
        return best


def course_of(records: Iterable[Mapping[str, Any]], probe: str | None) -> dict[str, Any]:
    """The course as ``result.json`` has it, from the lines of ``metrics.jsonl``; empty where nothing was measured.

    ``step``: the measured steps; ``representation``, ``embedding`` and ``prediction``: → effective rank un-centred and
    centred, one entry a step; ``test_accuracy`` and ``validation_accuracy``, and which ``classifier`` they are of.

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
    return made
