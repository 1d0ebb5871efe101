"""What every probe refuses: features and labels that it cannot evaluate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sslcollapse.errors import DataError, RecipeError
from sslcollapse.types import ProbeSet, Split


def check_inputs(features: Tensor, probe_set: ProbeSet, splits: Sequence[Split]) -> None:
    """Make sure that there is one finite row a label, and that the rows used have labels.

    Shapes:
        features: [N, d].

    Raises:
        DataError: for another shape, NaN or infinite values, or labels outside 0..C-1 (or {0, 1}) among
            the rows of the splits.
    """
    _check_features(features, probe_set.labels)
    _check_labels(probe_set, splits)


def check_single_label(probe_set: ProbeSet, probe: str) -> None:
    """Raise RecipeError for a multi-label set, naming the probe that takes one."""
    if probe_set.multilabel:
        raise RecipeError(
            f"probe {probe!r} needs one class a row, but this set has {probe_set.num_classes} labels a row: "
            f"use a probe of type 'logistic'"
        )


def _check_features(features: Tensor, labels: Tensor) -> None:
    """Refuse anything but one finite row a label."""
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


def _check_labels(probe_set: ProbeSet, splits: Sequence[Split]) -> None:
    """Refuse labels outside 0..C-1 (or {0, 1} for multi-label rows) among the rows that are used."""
    labels, last = probe_set.labels, 1 if probe_set.multilabel else probe_set.num_classes - 1
    used = np.unique(np.concatenate([part for s in splits for part in (s.train, s.validation, s.test)]))
    wrong = ((labels < 0) | (labels > last)).view(len(labels), -1).any(1).cpu().numpy()[used]
    if wrong.any():
        row = used[wrong.argmax()]
        raise DataError(
            f"{int(wrong.sum())} rows of the splits have labels outside 0..{last}, the first is row {row} "
            f"with {labels[row].tolist()}: leave unlabelled rows out of the splits"
        )
