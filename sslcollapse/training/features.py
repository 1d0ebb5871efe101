"""What probes are given of a network: every row of a probe set, or of inputs in parts those alone that they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.distributed import made_by_rank_0, world_size
from sslcollapse.core.types import ProbeSet
from sslcollapse.probes.evaluate import rows_read

REPRESENTING = "computing representations"


def probe_features(
    what: str, make: Callable[[Any], Tensor], probes: Mapping[str, Any], probe_set: ProbeSet, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Features of the probe set, made by rank 0, on every rank, and the rows that they are of; every rank calls.

    Args:
        what: is done, for messages.
        make: features of inputs, [N, d].
        probes: name → probe; of partwise inputs, those rows alone are made which are in one of their splits.
        probe_set: labels and splits; on rank 0 also the inputs.
        device: of features that are sent to other ranks.

    Shapes:
        result: [N, d] and None for all rows, or [R, d] and their numbers [R], as ``run_probes`` takes them.
    """
    wanted = rows_read(probes, probe_set)

    def made() -> Tensor:
        features = make(probe_set.only(wanted))
        return features if world_size() == 1 else features.to(device)

    features = made_by_rank_0(what, made, device)
    return features, wanted if wanted is not None and len(features) < len(probe_set.labels) else None
