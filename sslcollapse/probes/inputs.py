"""What every probe refuses: labels before there are features, and features that do not belong to the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.core.types import ProbeSet, Split


def check_single_label(probe_set: ProbeSet, probe: str) -> None:
    """Raise RecipeError for a multi-label set, naming the probe that takes one."""
    if probe_set.multilabel:
        raise RecipeError(
            f"probe {probe!r} needs one class a row, but this set has {probe_set.num_classes} labels a row: "
            f"use a probe of type 'logistic'"
        )


def check_features(features: Tensor, labels: Tensor) -> None:
    """Make sure that there is one finite row a label.

    Shapes:
        features: [N, d].

    Raises:
        DataError: for another shape, NaN or infinite values.
    """
    if features.dim() != 2 or len(features) != len(labels):
        raise DataError(
            f"features must be [N, d] with a row for each of the {len(labels)} labels, "
            f"got shape {tuple(features.shape)}"
        )
    bad = (~torch.isfinite(features)).any(1).nonzero().flatten()
    if len(bad):
        raise DataError(
            f"{len(bad)} of {len(features)} feature rows hold NaN or infinite values, the first is row "
            f"{int(bad[0])}: the encoder has diverged; lower its learning rate or look at the loss"
        )


def check_labels(probe_set: ProbeSet, splits: Sequence[Split], name: str, metric: str) -> None:
    """Make sure that the labels of these splits can be learnt and scored; needs no features.

    Args:
        probe_set: whose labels.
        splits: the very ones that will be used.
        name: of the splits, for messages.
        metric: that will be measured.

    Raises:
        DataError: labels outside 0..C-1 (or {0, 1}) among the rows of the splits, a training part in which nothing
            varies, or a part of one class that ROC-AUC is asked of.
    """
    _check_range(probe_set, splits, name)
    labels = probe_set.labels
    for k, split in enumerate(splits):
        known = labels[split.train]
        if not (known != known[0]).any():
            of = "have the same labels" if probe_set.multilabel else f"are of class {int(known[0])}"
            raise DataError(
                f"split {k} of {name!r}: all {len(known)} rows of the training part {of}, so there is nothing to tell "
                "apart; use a larger training part or another split, or pre-train without probes (evaluate={})"
            )
        for part in ("validation", "test") if metric == "roc_auc" else ():
            rows = labels[getattr(split, part)]
            if not (rows != rows[0]).any():
                raise DataError(
                    f"split {k} of {name!r}: all {len(rows)} rows of the {part} part are of class {int(rows[0])}, and "
                    "ROC-AUC needs both classes; use larger parts or another split, or metric='accuracy'"
                )


def _check_range(probe_set: ProbeSet, splits: Sequence[Split], name: str) -> None:
    labels, last = probe_set.labels, 1 if probe_set.multilabel else probe_set.num_classes - 1
    wrong = ~((labels >= 0) & (labels <= last)).view(len(labels), -1).all(1).cpu().numpy()
    if not wrong.any():
        return
    used = np.zeros(len(labels), dtype=bool)
    for split in splits:
        for part in (split.train, split.validation, split.test):
            used[part] = True
    rows = np.flatnonzero(used & wrong)
    if len(rows):
        way_out = (
            "random splits use every row: use a named split of the labelled ones"
            if name == "random"
            else "leave unlabelled rows out of the splits"
        )
        raise DataError(
            f"{len(rows)} rows of the splits have labels outside 0..{last}, the first is row {rows[0]} "
            f"with {labels[rows[0]].tolist()}: {way_out}, or pre-train without probes (evaluate={{}})"
        )
